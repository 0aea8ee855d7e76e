"""Makes questions and answers of the notes in the store, with wordings from the backbone, and keeps them as examples."""

from collections.abc import Callable, Iterator, Sequence

from device_agent.cloud.likeliest import likeliest
from device_agent.cloud.link import Link
from device_agent.data.examples import Example
from device_agent.data.questions import SOURCE, Asked, asks_the_same, facts_in, source_of
from device_agent.data.store import StoredExample
from device_agent.data.tokenizer import Tokenizer

WORDINGS = (
    "Two ways to ask the same thing.\n\n"
    "What is my son called? = What name did I give my son?\n"
    "Where does my aunt live? = In which city is my aunt at home?\n"
    "What do I drink in the morning? = Which drink do I have in the morning?\n"
    "{} =",
    "The same question, asked by a friend and by me.\n\n"
    "Where do I work? = Do you know the place where I work?\n"
    "What is my favourite colour? = Which colour do I like best?\n"
    "What am I afraid of? = What is it that I fear?\n"
    "{} =",
)
"""Texts that the backbone goes on with; a small one follows an example better than an instruction."""

ANSWER = 24
"""Most tokens of a wording."""


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
    tokenizer = link.tokenizer() if telling and not plain else None
    added = 0
    for done, (sha256, facts) in enumerate(telling.items(), 1):
        made = [example for fact in facts for example in _examples(fact, link, tokenizer)]
        added += link.store.add_examples(made, source_of(sha256))
        on_note(done, len(telling))
    return added


def made_questions(examples: Sequence[StoredExample]) -> list[StoredExample]:
    """Those of the examples that were made here."""
    return [stored for stored in examples if stored.source.startswith(f"{SOURCE}:")]


def _examples(fact: Asked, link: Link, tokenizer: Tokenizer | None) -> Iterator[Example]:
    asked = list(fact.questions)
    if tokenizer is not None:
        asked += _wordings(link, tokenizer, fact.questions[0])
    for question in dict.fromkeys(asked):
        yield fact.example(question)


def _wordings(link: Link, tokenizer: Tokenizer, question: str) -> Iterator[str]:
    """What the backbone makes of a question, where that is still the same question about the person."""
    for wording in WORDINGS:
        ids = tokenizer.encode(wording.format(question)).tolist()
        said = tokenizer.decode(likeliest(link, ids, ANSWER, link.facts().stop_tokens))
        line = said.strip().split("\n", 1)[0].strip()
        if asks_the_same(line, question):
            yield line
