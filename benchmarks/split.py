"""The device's half in this process: its own client, session, fresh plugin, head and choice."""

import copy
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Self

import numpy as np
from numpy.typing import NDArray

from benchmarks.prompts import Prompt
from device_agent.cloud.link import Link
from device_agent.cloud.session import RemoteSession
from device_agent.data.chat_template import render
from device_agent.generation.drafting import Drafting
from device_agent.generation.generate import generate
from device_agent.generation.sampling import Sampling
from device_agent.runtime.head import Head
from device_agent.runtime.side_plugin import SidePlugin
from device_agent.settings import Settings
from protocol.messages import Wants

Weights = Mapping[str, NDArray[np.float32]]


class SplitModel:
    """The backbone over HTTP, with the default kit's plugin as it is before any training."""

    def __init__(self, link: Link) -> None:
        settings = link.settings
        self.facts = link.facts()
        self.kit = link.kit()
        self.tokenizer = link.tokenizer()
        self._link, self._threads = link, settings.threads
        self._head = Head(self.kit, settings.threads)
        self._fresh = SidePlugin(self.kit, self.kit.initial(), settings.threads)
        self._session = RemoteSession(link.cloud, self.wants(settings.codec))

    def wants(self, codec: str, log_z: bool = False) -> Wants:
        """All that the plugin reads of a token."""
        taps = self.kit.manifest.taps
        return Wants(layers=taps, final=True, log_z=log_z, candidates=0, codec=codec)

    def ids(self, prompt: Prompt) -> list[int]:
        """Tokens of a prompt, the chat template around it where it is a chat."""
        if not prompt.chat or self.facts.chat_template is None:
            return [int(i) for i in self.tokenizer.encode(prompt.text)]
        turns = [{"role": "user", "content": prompt.text}]
        text = render(self.facts, turns, answer_next=True)
        return [int(i) for i in self.tokenizer.encode(text, special=False)]

    def beside(self, link: Link) -> Self:
        """Another one with the same parts, which are held once, and a session of its own over ``link``."""
        other = copy.copy(self)
        other._link = link
        other._session = RemoteSession(link.cloud, self.wants(link.settings.codec))
        return other

    def forget(self) -> None:
        """Begin with nothing the next time."""
        self._session.crop(0)

    def generate(self, ids: Sequence[int], new: int, drafting: Drafting | None = None) -> list[int]:
        """The ``new`` likeliest tokens; nothing stops it early. A request for each unless some are drafted."""
        self.forget()
        parts = (self._session, self._fresh, self._head, self.tokenizer)
        pieces = generate(*parts, ids, Sampling(), (), (), new, drafting=drafting)
        return [piece.token for piece in pieces if piece.token is not None]

    def features(self, texts: Sequence[Sequence[int]], wants: Wants) -> int:
        """Fetches states of whole texts and drops them; gives the bytes that came down."""
        before = self._link.down
        for _ in self._link.cloud.features([_as_ids(text) for text in texts], wants):
            pass
        return self._link.down - before

    def log_probabilities(
        self, ids: Sequence[int], codec: str, weights: Weights | None = None
    ) -> NDArray[np.float64]:
        """
        What the device makes of states that travelled in ``codec``.

        Args:
            ids: (T,)
            codec: By name.
            weights: The plugin's; the fresh ones by default.

        Returns:
            Natural logarithms, (T, V).

        """
        plugin = SidePlugin(self.kit, weights, self._threads) if weights else self._fresh
        (states,) = self._link.cloud.features([_as_ids(ids)], self.wants(codec))
        logits = self._head.logits(plugin.state(states)).astype(np.float64)
        logits -= logits.max(axis=1, keepdims=True)
        return logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))

    def close(self) -> None:
        """Lets the cloud forget the session, if it is still there to be told."""
        self._session.close()


@contextmanager
def split_model(home: Path, url: str, threads: int, codec: str) -> Iterator[SplitModel]:
    """The device's half, connected; waits while the cloud compiles the kit."""
    with Link(Settings(home=home, cloud=url, threads=threads, codec=codec)) as link:
        model = SplitModel(link)
        try:
            yield model
        finally:
            model.close()


def _as_ids(text: Sequence[int]) -> NDArray[np.uint32]:
    return np.array(text, dtype=np.uint32)
