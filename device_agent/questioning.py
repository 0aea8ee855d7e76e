"""Makes questions and answers of the notes in the store, with wordings from the backbone, and keeps them as examples."""

from collections.abc import Callable, Iterator, Sequence

from device_agent.examples import Example
from device_agent.link import Link
from device_agent.questions import SOURCE, Asked, asks_the_same, facts_in, source_of
from device_agent.sampling import Sampling
from device_agent.speaker import Speaker
from device_agent.store import StoredExample

WORDINGS = (
    "Say this question in other words, in one line: {}",
    "How else could somebody ask this? {}",
)
"""How the backbone is asked for other wordings of a question."""

ANSWER = 24
"""Most tokens of one."""


def make_questions(
    link: Link, *, plain: bool = False, on_note: Callable[[int, int], None] = lambda _d, _a: None
) -> int:
    """Turn the facts in all notes into examples; those that are there already stay as they are.

    Args:
        link: The cloud and the home folder.
        plain: Whether the backbone is left alone: then nothing is sent.
        on_note: Told how many notes have been read, of how many.

    Returns:
        How many examples are new.

    Raises:
        CloudUnreachable, Fault: The backbone is to be asked and cannot be; what was made so far is kept.
    """
    notes = [stored for stored in link.store.examples() if stored.example.kind == "text"]
    telling = {note.sha256: facts for note in notes if (facts := [*facts_in(note.example.text)])}
    added = 0
    speaker = Speaker(link, None) if telling and not plain else None
    try:
        for done, (sha256, facts) in enumerate(telling.items(), 1):
            made = [example for fact in facts for example in _examples(fact, speaker)]
            added += link.store.add_examples(made, source_of(sha256))
            on_note(done, len(telling))
    finally:
        if speaker is not None:
            speaker.close()
    return added


def made_questions(examples: Sequence[StoredExample]) -> list[StoredExample]:
    """Those of the examples that were made here."""
    return [stored for stored in examples if stored.source.startswith(f"{SOURCE}:")]


def _examples(fact: Asked, speaker: Speaker | None) -> Iterator[Example]:
    asked = list(fact.questions)
    if speaker is not None:
        asked += [one for one in _wordings(speaker, fact.questions[0]) if one not in asked]
    for question in asked:
        yield fact.example(question)


def _wordings(speaker: Speaker, question: str) -> Iterator[str]:
    """What the backbone makes of a question, where that is still the same question about the person."""
    for wording in WORDINGS:
        ids = speaker.ask([{"role": "user", "content": wording.format(question)}])
        pieces = speaker.answer(ids, Sampling(), ANSWER, stop_strings=["\n"])
        said = "".join(piece.text for piece in pieces).strip().strip('"').strip()
        if asks_the_same(said, question):
            yield said
