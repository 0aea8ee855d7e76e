"""What a request takes out of this device, and brings: how much, of which kind, to whom. Never any of it."""

from dataclasses import dataclass
from typing import Literal, NamedTuple, Protocol, get_args

StepKind = Literal["prompt", "answer", "replay"]
"""What the tokens of a step are."""

Kind = Literal[
    "facts", "tokenizer", "kit", "session", "gate", "prefix", "features", "federated", StepKind
]


class About(NamedTuple):
    """What a kind of request is."""

    words: str
    text: bool
    """Whether somebody's text is in it, as tokens."""


KINDS: dict[Kind, About] = {
    "facts": About("asking which backbone is hosted", text=False),
    "tokenizer": About("fetching the tokenizer", text=False),
    "kit": About("fetching a kit", text=False),
    "session": About("opening, cropping and closing sessions", text=False),
    "gate": About("opening a session with the plugin's classifier", text=False),
    "prefix": About("your personal prefix", text=True),
    "features": About("texts to be read: what you teach, what you have embedded", text=True),
    "federated": About("what training added to weights shared with others", text=False),
    "prompt": About("what you ask", text=True),
    "answer": About("answers, token by token, and guesses at how they go on", text=True),
    "replay": About("a conversation once more, when the cloud has lost it", text=True),
}
"""Every request is of one of these kinds; to add one: a name above and a row."""

Purpose = Literal[
    "chat",
    "run",
    "api",
    "train",
    "memory",
    "evaluate",
    "questions",
    "migrate",
    "forget",
    "federate",
    "bench",
    "status",
    "doctor",
    "program",
]
"""Why it was sent: the command, or ``program`` for somebody else's use of this package."""

PURPOSES: tuple[Purpose, ...] = get_args(Purpose)


@dataclass(frozen=True, slots=True)
class Outgoing:
    """A request that is about to leave."""

    kind: Kind
    host: str
    """``host:port`` that it goes to."""

    body: int
    """Bytes."""

    head: int = 0
    """Bytes of its line and headers, the key among them."""

    tokens: int = 0
    """Of somebody's text."""

    proxy: str = ""
    """``host:port`` that reads it on the way; empty when nobody does."""


@dataclass(frozen=True, slots=True)
class Traffic:
    """What became of it."""

    out: Outgoing
    down: int
    """Bytes of the answer's body."""

    head: int = 0
    """Bytes of the answer's line and headers."""

    left: bool = True
    """False when nobody was reached: then nothing has left."""


class Account(Protocol):
    """Who is told of every request."""

    def leaving(self, out: Outgoing) -> None:
        """It is about to leave; whatever is raised keeps it here."""
        ...

    def came(self, traffic: Traffic) -> None:
        """It is over, well or not."""
        ...
