"""Text that is none of the measured people's: what a personal plugin must not make worse."""

from collections.abc import Sequence

from benchmarks import texts
from benchmarks.dictionaries import SOURCES, entries_of
from benchmarks.texts import Document

CHARACTERS = 3000
"""Of each author, about 650 tokens."""


def general_text() -> dict[str, Document]:
    """
    Some paragraphs of each author: four presidents who are nobody's, and both dictionaries.

    Raises:
        TextError: A text cannot be had.

    """
    presidents = {name: _middle(texts.president(name)) for name in texts.OTHERS}
    dictionaries = {name: _some_entries(name) for name in SOURCES}
    return {
        name: Document(name, text[:CHARACTERS].rsplit(" ", 1)[0])
        for name, text in {**presidents, **dictionaries}.items()
    }


def _middle(documents: Sequence[Document]) -> str:
    """The second half of the document in the middle: greetings are alike everywhere."""
    text = documents[len(documents) // 2].text
    return text[len(text) // 2 :].split(" ", 1)[1]


def _some_entries(name: str) -> str:
    entries = entries_of(name)
    chosen = entries[:: max(1, len(entries) * 200 // CHARACTERS)]
    return "\n\n".join(f"{entry.word}: {entry.definition}" for entry in chosen)
