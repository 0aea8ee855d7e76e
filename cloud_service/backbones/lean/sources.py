"""The kernels' own text in one digest."""

import hashlib
from pathlib import Path


def digest_of_sources() -> str:
    """
    Return the sha256 of all files of this package.

    numba keeps compiled functions on disk and looks at the changes of one file only, not of those
    that it calls into: a function that holds this digest is compiled anew when any of them changes.
    """
    digest = hashlib.sha256()
    for file in sorted(Path(__file__).parent.glob("*.py")):
        digest.update(file.read_bytes())
    return digest.hexdigest()
