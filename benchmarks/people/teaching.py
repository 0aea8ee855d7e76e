"""A person's profile as the files they would teach their device from."""

import json
from collections.abc import Sequence
from pathlib import Path

from benchmarks.people.examples import Past, Person


def write_profile(person: Person, size: int, folder: Path) -> list[Path]:
    """
    Writes the newest ``size`` of each task as notes and as conversations.

    The older half's conversations come first, then all notes, then the newer half's conversations. The device
    puts each half of a text behind a prefix made of the other half's notes: so no conversation is
    learned behind the very note that tells its answer.

    Returns:
        The files, in the order in which they have to be learned.

    """
    halves = _halves(person, size)
    files = []
    for name, write, profile in (
        ("older-chats.jsonl", _chats, halves[0]),
        ("older-notes.md", _notes, halves[0]),
        ("newer-notes.md", _notes, halves[1]),
        ("newer-chats.jsonl", _chats, halves[1]),
    ):
        text = write(profile)
        if text:
            files.append(folder / name)
            files[-1].write_text(text, encoding="utf-8")
    return files


def _halves(person: Person, size: int) -> tuple[list[Past], list[Past]]:
    profile = person.profile(size)
    middle = len(profile) // 2
    return profile[:middle], profile[middle:]


def _notes(profile: Sequence[Past]) -> str:
    return "".join(f"{past.note}\n\n" for past in profile)


def _chats(profile: Sequence[Past]) -> str:
    return "".join(
        json.dumps({"messages": _turns(past)}, ensure_ascii=False) + "\n"
        for past in profile
        if past.question
    )


def _turns(past: Past) -> list[dict[str, str]]:
    return [
        {"role": "user", "content": past.question},
        {"role": "assistant", "content": past.answer},
    ]
