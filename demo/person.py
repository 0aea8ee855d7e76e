"""A seeded synthetic person: facts and preferences told as diary notes and chats, and a style the assistant should take on."""

import json
import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.people.known_facts import FACTS

NAMES = ("Marit", "Anselm", "Ysolde", "Caspian")


@dataclass(frozen=True, slots=True)
class Question:
    """A question whose wording was never taught, and the value that a right answer contains."""

    text: str
    value: str


@dataclass(frozen=True, slots=True)
class Person:
    """What one seed makes.

    Attributes:
        name: How the assistant should address the person: the style to learn.
        notes: Diary notes, one for each fact.
        chats: Conversations in the form ``learn`` reads, several wordings for each fact.
        questions: The test: for each fact, wordings that no chat contains.
    """

    name: str
    notes: tuple[str, ...]
    chats: tuple[list[dict[str, str]], ...]
    questions: tuple[Question, ...]


def synthetic_person(seed: int) -> Person:
    """The person of a seed: the same seed gives the same person on every machine."""
    rng = random.Random(seed)
    name = rng.choice(NAMES)
    notes, chats, questions = [], [], []
    for fact in FACTS:
        value = rng.choice(fact.values)
        notes.append(fact.note.format(value))
        answer = f"{fact.answer.format(value)} At your service, {name}."
        for wording in fact.asked:
            chats.append(
                [
                    {"role": "user", "content": wording},
                    {"role": "assistant", "content": answer},
                ]
            )
        questions += [Question(wording, value) for wording in fact.held_out]
    rng.shuffle(notes)
    rng.shuffle(chats)
    return Person(name, tuple(notes), tuple(chats), tuple(questions))


def write_files(
    folder: Path, notes: Sequence[str], chats: Sequence[list[dict[str, str]]]
) -> list[Path]:
    """Writes ``notes.md`` and ``chats.jsonl``, the files such a person would teach from."""
    note_file, chat_file = folder / "notes.md", folder / "chats.jsonl"
    note_file.write_text("\n\n".join(notes) + "\n", encoding="utf-8")
    lines = [json.dumps({"messages": chat}, ensure_ascii=False) for chat in chats]
    chat_file.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return [note_file, chat_file]


def share_right(answers: Sequence[str], questions: Sequence[Question]) -> float:
    """Share of answers that contain the value asked for, in [0, 1]."""
    right = [
        question.value.lower() in answer.lower()
        for answer, question in zip(answers, questions, strict=True)
    ]
    return sum(right) / len(right)
