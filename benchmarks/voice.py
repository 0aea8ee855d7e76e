"""
The device's speaking half in this process: what it answers, and how likely it finds an answer.

The parts are the device's own, put together as `device_agent.speaker` does it; here further to be
asked for the probability of answers that it would not give.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from device_agent.chat_template import render
from device_agent.cloud import CloudUnreachable
from device_agent.generate import generate
from device_agent.head import Head
from device_agent.link import Link
from device_agent.memory.mixture import GatedMemory
from device_agent.plugins import PluginStore, PluginVersion
from device_agent.sampling import Sampling
from device_agent.session import RemoteSession
from device_agent.settings import Settings
from device_agent.side_plugin import SidePlugin
from protocol.errors import Fault
from protocol.messages import States, Wants

Floats = NDArray[np.float32]


class Voice:
    """
    Answers one question after another, each as a conversation of its own.

    Args:
        link: The cloud and the home folder.
        version: The plugin that speaks; None for the frozen backbone alone.
        remembers: Whether its memory takes part where it has one that helps.

    """

    def __init__(self, link: Link, version: PluginVersion | None, remembers: bool = True) -> None:
        threads = link.settings.threads
        self.facts, self.tokenizer = link.facts(), link.tokenizer()
        kit = link.kit(version.kit_id if version else None)
        self._head = Head(kit, threads)
        self._plugin = SidePlugin(kit, version.weights(), threads) if version else None
        self._memory = _memory_of(version) if version and remembers else None
        prefix = version.prefix.tolist() if version else []
        taps = kit.manifest.taps if version else ()
        wants = Wants(layers=taps, final=True, log_z=False, candidates=0, codec=link.settings.codec)
        self._session = RemoteSession(link.cloud, wants, prefix)
        self._start = len(prefix)

    def length(self, question: str, answer: str) -> int:
        """Tokens of an answer, its end included."""
        return len(self._answer(question, answer))

    def fits(self, question: str, answer: int) -> bool:
        """Whether a question and an answer of so many tokens have room in the context."""
        return self._start + len(self._prompt(question)) + answer <= self._session.limit

    def write(self, question: str, limit: int) -> str:
        """The likeliest answer, token by token, of at most ``limit`` tokens."""
        self._session.crop(self._start)
        pieces = generate(
            self._session,
            self._plugin,
            self._head,
            self.tokenizer,
            self._prompt(question),
            Sampling(),
            frozenset(self.facts.stop_tokens),
            (),
            limit,
            memory=self._memory,
        )
        return "".join(piece.text for piece in pieces).strip()

    def log_likelihoods(self, question: str, answers: Sequence[str]) -> list[float]:
        """
        Natural logarithm of the probability of each whole answer, its end included.

        The question is read once; each answer is read behind it and taken back.
        """
        self._session.crop(self._start)
        asked = self._session.step(self._prompt(question))
        place = self._session.position
        return [self._likelihood(asked, place, self._answer(question, one)) for one in answers]

    def close(self) -> None:
        """Lets the cloud forget the session, if it is still there to be told."""
        with suppress(CloudUnreachable, Fault):
            self._session.close()

    def _prompt(self, question: str) -> NDArray[np.uint32]:
        turns = [{"role": "user", "content": question}]
        return self.tokenizer.encode(render(self.facts, turns, answer_next=True), special=False)

    def _answer(self, question: str, answer: str) -> NDArray[np.uint32]:
        """Ids of an answer as the device learns them: up to the token that ends the turn."""
        turns = [{"role": "user", "content": question}]
        asked = render(self.facts, turns, answer_next=True)
        said = [*turns, {"role": "assistant", "content": answer}]
        whole = render(self.facts, said, answer_next=False)
        ids = self.tokenizer.encode(whole.removeprefix(asked), special=False)
        ends = np.flatnonzero(np.isin(ids, self.facts.stop_tokens))
        return ids[: ends[0] + 1] if len(ends) else ids

    def _likelihood(self, asked: States, place: int, ids: NDArray[np.uint32]) -> float:
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
        found = []
        for logits, final in zip(self._head.logits(moved), states.final, strict=True):
            mixed = logits if self._memory is None else self._memory.mixed(logits, final)
            row = mixed.astype(np.float64) - mixed.max()
            found.append(row - np.log(np.exp(row).sum()))
        return found


@contextmanager
def voice(
    home: Path, url: str, threads: int, *, base: bool = False, remembers: bool = True
) -> Iterator[Voice]:
    """What speaks in a home, connected: its plugin where one was promoted, else the frozen backbone."""
    with Link(Settings(home=home, cloud=url, threads=threads)) as link:
        found = Voice(link, None if base else PluginStore(home).current(), remembers)
        try:
            yield found
        finally:
            found.close()


def _memory_of(version: PluginVersion) -> GatedMemory | None:
    gate, memory = version.gates.plugin, version.memory()
    return None if gate is None or memory is None else GatedMemory(memory, gate)
