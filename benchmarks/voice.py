"""The device's speaking half in this process: what it answers, and how likely it finds an answer."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from device_agent.cloud.link import Link
from device_agent.data.chat_template import render
from device_agent.generation.sampling import Sampling
from device_agent.generation.speaker import Speaker
from device_agent.plugins import PluginStore
from device_agent.settings import Settings
from protocol.messages import States

Ids = NDArray[np.uint32]


class Voice(Speaker):
    """
    The device's own speaker, further to be asked for the probability of answers it would not give.

    Each question is a conversation of its own.
    """

    def fits(self, question: str, answer: int) -> bool:
        """Whether a question and an answer of so many tokens have room in the context."""
        asked = self.ask([_turn(question)])
        return len(self._prefix) + len(asked) + answer <= self._session.limit

    def write(self, question: str, limit: int) -> str:
        """The likeliest answer, token by token, of at most ``limit`` tokens."""
        pieces = self.answer(self.ask([_turn(question)]), Sampling(), limit)
        return "".join(piece.text for piece in pieces).strip()

    def answer_ids(self, question: str, answer: str) -> Ids:
        """Tokens of an answer as the device learns them: up to the one that ends the turn."""
        turns = [_turn(question)]
        asked = render(self.facts, turns, answer_next=True)
        said = [*turns, {"role": "assistant", "content": answer}]
        whole = render(self.facts, said, answer_next=False)
        ids = self.tokenizer.encode(whole.removeprefix(asked), special=False)
        ends = np.flatnonzero(np.isin(ids, self.facts.stop_tokens))
        return ids[: ends[0] + 1] if len(ends) else ids

    def log_likelihoods(self, question: str, answers: Sequence[str]) -> list[float]:
        """
        Natural logarithm of the probability of each whole answer, its end included.

        The question is read once; each answer is read behind it and taken back.
        """
        self._session.crop(len(self._prefix))
        asked = self._session.step(self.ask([_turn(question)]))
        place = self._session.position
        return [self._likelihood(asked, place, self.answer_ids(question, one)) for one in answers]

    def _likelihood(self, asked: States, place: int, ids: Ids) -> float:
        rows = self._log_probabilities(asked)
        # The end of an answer is foreseen, but nothing has to be read after it.
        fed = ids[:-1]
        if len(fed):
            rows += self._log_probabilities(self._session.step(fed, len(fed)))
            self._session.crop(place)
        return float(sum(row[i] for row, i in zip(rows, ids, strict=True)))

    def _log_probabilities(self, states: States) -> list[NDArray[np.float64]]:
        """Of the token after each state, (V,) each."""
        moved = states.final if self._plugin is None else self._plugin.state(states)
        logits = self._head.logits(moved)
        if self._memory is not None:
            logits = self._memory.mixed(logits, states.final)
        found = []
        for one in logits:
            row = one.astype(np.float64) - one.max()
            found.append(row - np.log(np.exp(row).sum()))
        return found


@contextmanager
def voice(
    home: Path, url: str, threads: int, *, base: bool = False, memory: str = "on"
) -> Iterator[Voice]:
    """What speaks in a home, connected: its plugin where one was promoted, else the frozen backbone."""
    settings = Settings(home=home, cloud=url, threads=threads, memory=memory)
    with (
        Link(settings) as link,
        Voice(link, None if base else PluginStore(home).current()) as found,
    ):
        yield found


def _turn(question: str) -> dict[str, str]:
    return {"role": "user", "content": question}
