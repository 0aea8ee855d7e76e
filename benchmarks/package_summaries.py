"""
Long text and its summary: descriptions of the Debian packages on this machine, and their synopses.

They are asked of `dpkg-query`, so that no network is needed. Packages whose descriptions begin with the
same paragraph are versions of one another; one of each is kept.
"""

import hashlib
import re
import subprocess
from dataclasses import dataclass

from benchmarks.errors import TextError

LEAST = 15
"""Words of a description; shorter ones say hardly more than the synopsis."""


@dataclass(frozen=True, slots=True)
class Summary:
    """A description and its synopsis."""

    source: str
    target: str

    @property
    def place(self) -> str:
        """What decides the part that it falls in: of its content alone."""
        return hashlib.sha256(self.source.encode()).hexdigest()


def installed() -> list[Summary]:
    """
    The summaries of this machine's packages, in an order that their content decides.

    Raises:
        TextError: This machine has no dpkg.

    """
    command = ["dpkg-query", "-W", "-f=${Description}\n\x1e"]
    try:
        told = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    except (OSError, subprocess.CalledProcessError) as error:
        raise TextError(f"the descriptions of packages cannot be read: {error}") from error
    return summaries_in(told.split("\x1e"))


def summaries_in(descriptions: list[str]) -> list[Summary]:
    """Summaries out of descriptions as dpkg writes them: a synopsis, then lines that begin with a space."""
    found: dict[str, Summary] = {}
    for description in descriptions:
        synopsis, _, rest = description.strip().partition("\n")
        # A line of a dot alone is an empty one.
        paragraphs = [" ".join(part.split()) for part in re.split(r"\n \.\n", "\n" + rest)]
        text = " ".join(paragraphs)
        if synopsis and len(text.split()) >= LEAST:
            found.setdefault(paragraphs[0], Summary(text, synopsis))
    return sorted(found.values(), key=lambda one: one.place)
