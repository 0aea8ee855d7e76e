"""
Facts in a person's notes, turned into questions and answers to learn from.

A note tells a fact once, in the words of a note; a chat asks for it in other words. So sentences in which
a person says something plain of themselves ("My sister lives in Ghent.", "I play the bassoon.") become
conversations: the questions by patterns, the answers by turning the sentence to the person. Further wordings
of a question come from the backbone, see ``questioning``. English only: other languages have other grammar.
"""

import re
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

from device_agent.data.examples import Example
from device_agent.data.store import StoredExample

LONGEST = 160
"""Characters of a sentence; in longer ones there is more than one fact."""

SOURCE = "questions"
"""Beginning of the source of every example that was made here; the sha256 of its note follows."""


class Asked(NamedTuple):
    """A fact as a conversation knows it."""

    questions: tuple[str, ...]
    """Several wordings; the first is the plainest."""
    answer: str

    def example(self, question: str) -> Example:
        """One wording as a conversation."""
        return Example(messages=(("user", question), ("assistant", self.answer)))


def facts_in(text: str) -> Iterator[Asked]:
    """The facts that the sentences of a note tell plainly."""
    for sentence in _sentences(text):
        for pattern, questions in PATTERNS:
            found = pattern.fullmatch(sentence)
            if found:
                yield Asked(_worded(questions(found)), _turned(sentence))
                break


def asks_the_same(said: str, question: str) -> bool:
    """Whether a wording asks the same of the person: it names all that the question names, and hardly more.

    A wording that lost "brother" would teach an answer about him to a question about the person.
    """
    named, told = (_NAMING.findall(text.lower()) for text in (question, said))
    asks = said.endswith("?") and said.count("?") == 1 and said != question
    mine = _ABOUT_ME.search(said) is not None
    return asks and mine and bool(named) and {*named} <= {*told} and len({*told} - {*named}) <= 1


def source_of(note: str) -> str:
    """What is noted as the source of examples that were made of the note with this sha256."""
    return f"{SOURCE}:{note}"


def beside_their_notes(examples: Sequence[StoredExample]) -> list[StoredExample]:
    """The same examples in the same order, but each that was made of a note right behind it.

    So no question is learned behind a prefix that tells its answer: see ``prefix.crossed``.
    """
    places = {source_of(stored.sha256): place for place, stored in enumerate(examples)}
    order = sorted(
        enumerate(examples),
        key=lambda found: (places.get(found[1].source, found[0]), found[1].source in places),
    )
    return [stored for _, stored in order]


def _sentences(text: str) -> Iterator[str]:
    """Sentences without their full stop; questions and exclamations tell no facts."""
    for found in re.finditer(r"(?:^|(?<=[.!?:;])\s+|\n)([A-Z][^.!?;\n]*)\.(?=\s|$)", text):
        sentence = " ".join(found[1].replace("\u2019", "'").split())
        if len(sentence) <= LONGEST:
            yield sentence


def _turned(sentence: str) -> str:
    """What the person says of themselves, said to the person."""
    words = re.sub(r"\bI am\b|\bI'm\b", "you are", sentence)
    words = re.sub(r"\bI was\b", "you were", words)
    words = re.sub(
        r"\b(I've|I|me|[Mm]y|mine|myself)\b", lambda found: _OTHERS[found[0].lower()], words
    )
    return f"{words[0].upper()}{words[1:]}."


_OTHERS = {
    "i": "you",
    "i've": "you have",
    "me": "you",
    "my": "your",
    "mine": "yours",
    "myself": "yourself",
}


def _worded(plain: tuple[str, ...]) -> tuple[str, ...]:
    """Each question, and the first one as people ask when they test a memory."""
    first = plain[0]
    lower = first if first.startswith("I ") else f"{first[0].lower()}{first[1:]}"
    return *plain, f"I forgot: {lower}", f"Do you remember? {first}", f"Quick question: {lower}"


def _called(found: re.Match[str]) -> tuple[str, ...]:
    who = found["who"]
    return (
        f"What is my {who} called?",
        f"What is the name of my {who}?",
        f"Which name does my {who} have?",
        f"Tell me the name of my {who}.",
    )


def _is(found: re.Match[str]) -> tuple[str, ...]:
    what, verb = found["what"], found["verb"]
    return (
        f"What {verb} my {what}?",
        f"Tell me my {what}.",
        f"Can you say what my {what} {verb}?",
        f"What do you know about my {what}?",
    )


def _other_does(found: re.Match[str]) -> tuple[str, ...]:
    who, verb = found["who"], _plain(found["verb"])
    ask = "Where" if found["how"] in _PLACES else f"{_WHAT[found['how']]}"
    return (
        f"{ask} does my {who} {verb}?",
        f"Tell me {ask.lower()} my {who} {found['verb']}.",
        f"Do you know {ask.lower()} my {who} {found['verb']}?",
    )


def _i_do_somewhere(found: re.Match[str]) -> tuple[str, ...]:
    verb = found["verb"]
    ask = "Where" if found["how"] in _PLACES else f"{_WHAT[found['how']]}"
    return (
        f"{ask} do I {verb}?",
        f"Tell me {ask.lower()} I {verb}.",
        f"Do you know {ask.lower()} I {verb}?",
    )


def _i_am(found: re.Match[str]) -> tuple[str, ...]:
    how, link = found["how"], found["link"]
    return (
        f"What am I {how} {link}?",
        f"Tell me what I am {how} {link}.",
        f"Do you know what I am {how} {link}?",
    )


def _i_am_a(_found: re.Match[str]) -> tuple[str, ...]:
    return "What am I?", "What do I do for a living?", "Tell me what I am.", "Who am I?"


def _i_do(found: re.Match[str]) -> tuple[str, ...]:
    verb = found["verb"]
    return (
        f"What do I {verb}?",
        f"Tell me what I {verb}.",
        f"Do you know what I {verb}?",
        f"Which thing do I {verb}?",
    )


_ABOUT_ME = re.compile(r"\b(?:I|my|me)\b", re.IGNORECASE)
_NAMING = re.compile(
    r"\b(?!(?:what|which|where|who|whom|when|how|does|did|has|have|the|and|are|was|were|can|you|say|"
    r"that|for|called|named|name|know|tell|kind)\b)[a-z]{3,}"
)
"""Words that name something; what questions are made of otherwise."""
_PLACES = ("in", "at", "near", "on")
_WHAT = {"for": "Whom or what for", "with": "With whom or what", "as": "As what"}

_NOUN = r"[a-z][a-z -]{0,40}?"
_LINKS = "to|of|about|with|in|at|from"
_TRANSITIVE = (
    "play|like|love|prefer|hate|drink|eat|drive|ride|speak|collect|own|study|teach|read|grow|wear|"
    "support|fear|avoid|believe in|wake up at|get up at|go to bed at"
)

PATTERNS: tuple[tuple[re.Pattern[str], Callable[[re.Match[str]], tuple[str, ...]]], ...] = (
    (re.compile(rf"My (?P<who>{_NOUN})(?: is|'s) (?:called|named) .+"), _called),
    (re.compile(rf"My (?P<who>{_NOUN})'s name is .+"), _called),
    (
        re.compile(
            rf"My (?P<who>{_NOUN}) (?P<verb>lives|works|studies|teaches) (?P<how>in|at|near|on|for|with|as) .+"
        ),
        _other_does,
    ),
    (re.compile(rf"My (?P<what>{_NOUN}) (?P<verb>is|are|was|were) .+"), _is),
    (
        re.compile(r"I (?P<verb>live|work|study|teach) (?P<how>in|at|near|on|for|with|as) .+"),
        _i_do_somewhere,
    ),
    (re.compile(rf"(?:I am|I'm) (?P<how>[a-z]+) (?P<link>{_LINKS}) .+"), _i_am),
    (re.compile(r"(?:I am|I'm) an? .+"), _i_am_a),
    (re.compile(rf"I (?P<verb>{_TRANSITIVE}) .+"), _i_do),
)
"""Sentences that tell a fact, and what one asks for it. To add a kind of fact: a row."""


def _plain(verb: str) -> str:
    """``lives`` as ``live``, ``studies`` as ``study``, ``teaches`` as ``teach``."""
    if verb.endswith("ies"):
        return f"{verb[:-3]}y"
    return verb[:-2] if verb.endswith("ches") else verb[:-1]
