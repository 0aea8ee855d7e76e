"""What the device is taught and asked: a synthetic person and a president, or a text of your own."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks import texts
from demo.person import Question, synthetic_person, write_files

CHARACTERS_A_TOKEN = 4.6
"""Of the default tokenizer on these texts; only sizes the lesson, no result hangs on it."""

TAUGHT_TOKENS, HELD_OUT_TOKENS = 12_000, 2_500
DOCUMENT_CHARACTERS = 1_000
"""Paragraphs of one's own text are joined up to this length."""


@dataclass(frozen=True, slots=True)
class Lesson:
    """All that one demo needs.

    Attributes:
        about: One sentence for the screen.
        prompts: Three free generations, the same before and after.
        questions: Asked before and after; none for a text of one's own.
        notes: The person's notes, the content of one markdown file.
        chats: The person's conversations.
        taught: Documents to learn from.
        held_out: Documents never taught, whose perplexity is measured.
    """

    about: str
    prompts: tuple[str, ...]
    questions: tuple[Question, ...]
    notes: tuple[str, ...]
    chats: tuple[list[dict[str, str]], ...]
    taught: tuple[str, ...]
    held_out: tuple[str, ...]

    def write(self, folder: Path) -> tuple[list[Path], list[Path]]:
        """Writes the lesson as files; returns those to learn from and the held-out ones."""
        learn = write_files(folder, self.notes, self.chats) if self.chats else []
        learn += _write_all(folder / "taught", self.taught)
        return learn, _write_all(folder / "held-out", self.held_out)


def built_in(seed: int) -> Lesson:
    """A synthetic person's facts and one president's addresses, the last ones held out."""
    person = synthetic_person(seed)
    split = _cut(texts.president(texts.PRESIDENT))
    return Lesson(
        about=f"{person.name}, a synthetic person with {len(person.notes)} facts, "
        f"who writes like {texts.PRESIDENT}",
        prompts=(
            "Who am I, and what do I do for a living?",
            "Tell me about my family and my pets.",
            "Write the first two sentences of a message to Congress about our trade.",
        ),
        questions=person.questions,
        notes=person.notes,
        chats=person.chats,
        taught=tuple(document.text for document in split.training),
        held_out=tuple(document.text for document in split.test),
    )


def own(path: Path) -> Lesson:
    """
    A text file of the reader's own, cut at blank lines: the end is held out.

    Raises:
        TextError: The file cannot be read or is too short to be cut.

    """
    split = _cut(_documents(path))
    return Lesson(
        about=f"your own writing, {path.name}",
        prompts=(
            "Write a paragraph the way I write.",
            "What do I care about?",
            "Write me a short note for tomorrow.",
        ),
        questions=(),
        notes=(),
        chats=(),
        taught=tuple(document.text for document in (*split.training, *split.validation)),
        held_out=tuple(document.text for document in split.test),
    )


def _documents(path: Path) -> list[texts.Document]:
    """A plain text cut at blank lines into documents of some paragraphs each."""
    try:
        paragraphs = re.split(r"\n\s*\n", path.read_text(encoding="utf-8").strip())
    except (OSError, UnicodeDecodeError) as error:
        raise texts.TextError(f"cannot read {path} as UTF-8 text: {error}") from error
    documents: list[str] = []
    for paragraph in paragraphs:
        if documents and len(documents[-1]) < DOCUMENT_CHARACTERS:
            documents[-1] += "\n\n" + paragraph
        else:
            documents.append(paragraph)
    return [texts.Document(f"{path.name}:{n}", text) for n, text in enumerate(documents, 1)]


def _cut(documents: Sequence[texts.Document]) -> texts.Split:
    def size(text: str) -> int:
        return round(len(text) / CHARACTERS_A_TOKEN)

    return texts.cut(documents, size, TAUGHT_TOKENS, HELD_OUT_TOKENS)


def _write_all(folder: Path, documents: Sequence[str]) -> list[Path]:
    folder.mkdir()
    paths = [folder / f"{number:03}.txt" for number in range(len(documents))]
    for path, text in zip(paths, documents, strict=True):
        path.write_text(text, encoding="utf-8")
    return paths
