"""Which rows of a flat pass are wanted, and how what was read of them becomes an answer each."""

from collections.abc import Mapping, Sequence
from typing import Protocol, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cloud_service.backbones.base import Span
from cloud_service.backbones.head import Head
from protocol.messages import Candidates, Floats, States

Rows = TypeVar("Rows", Tensor, Floats, contravariant=True)
"""Final states (R, H), as an engine has them."""


class ReadsRows(Protocol[Rows]):
    """The head of an engine."""

    def read(self, final: Rows, log_z: bool, count: int) -> tuple[Floats | None, Candidates | None]:
        """Return log Z (R,) and the ``count`` likeliest tokens (R, C), each if asked for."""
        ...


class Answers:
    """
    The answers of one pass. R is the number of rows that are wanted of all spans together.

    Attributes:
        rows: Places of the wanted rows in the flat sequence, ascending, int64 (R,).
        layers: Every tap that some span wants, ascending.
        depth: The layer behind which nobody ever looks; None when the whole model has to run.

    """

    def __init__(self, spans: Sequence[Span]) -> None:
        self._spans = spans
        ends = np.cumsum([len(span.ids) for span in spans])
        wanted = [np.arange(e - s.wanted, e) for e, s in zip(ends, spans, strict=True)]
        self.rows: NDArray[np.int64] = np.concatenate(wanted)
        self.layers = tuple(
            sorted({layer for span in spans if span.wanted for layer in span.wants.layers})
        )
        # A chunk whose answer nobody reads counts too: what its session wants later looks back at it.
        depths = [span.wants.depth for span in spans]
        whole = any(depth is None for depth in depths)
        self.depth = None if whole else max(depth for depth in depths if depth is not None)
        stops = np.cumsum([span.wanted for span in spans]).tolist()
        self._parts = [slice(e - s.wanted, e) for e, s in zip(stops, spans, strict=True)]
        """Of each span, its rows among the wanted ones."""

    def split(self, seen: Mapping[int, Tensor], final: Tensor, head: Head) -> list[States | None]:
        """
        Return each span's answer, None where nothing is wanted.

        Args:
            seen: The wanted rows of every tap (R, H).
            final: The wanted rows of what the head reads (R, H).
            head: Makes log Z and candidates for those who want them.

        """
        if not len(self.rows):
            return [None] * len(self._spans)
        # One copy of everything out of the model's memory, however many spans there are.
        read = torch.stack([*(seen[layer] for layer in self.layers), final]).float().cpu().numpy()
        return self.share(read, final, head)

    def share(self, read: Floats, final: Rows, head: ReadsRows[Rows]) -> list[States | None]:
        """
        Return each span's answer, None where nothing is wanted.

        Args:
            read: The wanted rows of every tap and of the final state (K + 1, R, H).
            final: The final state as the head takes it (R, H).
            head: Makes log Z and candidates for those who want them.

        """
        heads = self._through(head, self._arrived(read, final))
        return [
            self._answer(number, read, *heads[number]) if span.wanted else None
            for number, span in enumerate(self._spans)
        ]

    def _answer(
        self, number: int, read: Floats, log_z: Floats | None, candidates: Candidates | None
    ) -> States:
        span, part = self._spans[number], self._parts[number]
        wants = span.wants
        every = wants.layers == self.layers
        chosen = slice(-1) if every else [self.layers.index(layer) for layer in wants.layers]
        return States(
            position=span.cache.position + len(span.ids) - span.wanted,
            layers=wants.layers,
            taps=read[chosen, part],
            final=read[-1, part] if wants.final else None,
            log_z=log_z,
            candidates=candidates,
        )

    def _arrived(self, read: Floats, final: Rows) -> Rows:
        """Return what the head is to read, with the final states of some spans as they arrive."""
        changed = [
            (self._parts[number], span.arrived)
            for number, span in enumerate(self._spans)
            if span.wanted and span.arrived is not None
        ]
        if not changed:
            return final
        states: Floats = read[-1].copy()
        for part, arrived in changed:
            states[part] = arrived(states[part])
        if isinstance(final, Tensor):
            return torch.from_numpy(states).to(final)
        return states

    def _through(self, head: ReadsRows[Rows], final: Rows) -> dict[int, "HeadAnswer"]:
        """Return what the head makes of each span; those that want the same go through it together."""
        alike: dict[tuple[bool, int], list[int]] = {}
        for number, span in enumerate(self._spans):
            if span.wanted:
                alike.setdefault((span.wants.log_z, span.wants.candidates), []).append(number)
        answers: dict[int, HeadAnswer] = {}
        for (log_z, count), numbers in alike.items():
            parts = [self._parts[number] for number in numbers]
            places = [np.arange(part.start, part.stop) for part in parts]
            rows = final[np.concatenate(places)] if len(alike) > 1 else final
            sums, candidates = head.read(rows, log_z, count)
            start = 0
            for number, part in zip(numbers, parts, strict=True):
                own = slice(start, start + part.stop - part.start)
                answers[number] = (
                    None if sums is None else sums[own],
                    None
                    if candidates is None
                    else Candidates(candidates.ids[own], candidates.logits[own]),
                )
                start = own.stop
        return answers


HeadAnswer = tuple[Floats | None, Candidates | None]
"""Log Z (T,) and candidates (T, C) of one span."""
