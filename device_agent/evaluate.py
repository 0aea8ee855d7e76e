"""How well the next token is foreseen, over the whole vocabulary."""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from device_agent.batches import FeatureRows
from device_agent.head import Head
from device_agent.side_plugin import SidePlugin
from device_agent.vocabulary import log_sum_exp, soft_capped
from protocol.kit import KitManifest
from protocol.messages import States

TOKENS = 512
"""States at a time that pass through the vocabulary."""

READ = 256
"""Rows of features at a time."""

Floats = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Evaluation:
    """Mean negative log-likelihoods per scored token, natural logarithm."""

    tokens: int
    base: float
    """Of the frozen backbone."""
    plugin: float | None
    """Of the plugin; None when there was none to ask."""
    prefix: float | None = None
    """Of the frozen backbone behind the personal prefix; None without one."""

    def to_json(self) -> dict[str, object]:
        """``{"tokens", "base": {"nll", "perplexity"}, "prefix": {…}, "plugin": {…}}``, what there is."""
        told: dict[str, object] = {"tokens": self.tokens, "base": _told(self.base)}
        if self.prefix is not None:
            told["prefix"] = _told(self.prefix)
        if self.plugin is not None:
            told["plugin"] = _told(self.plugin)
        return told


def evaluate(
    manifest: KitManifest, head: Head, plugin: SidePlugin | None, rows: FeatureRows
) -> Evaluation:
    """Score every row.

    The backbone's own figure needs no pass over the vocabulary: its log Z came with the features.

    Args:
        manifest: Of the kit whose features are read.
        head: Of the same backbone.
        plugin: Whose corrections are judged; None for the backbone alone.
        rows: What is foreseen from what.
    """
    base = total = weight = 0.0
    for start in range(0, len(rows), TOKENS):
        stop = min(start + TOKENS, len(rows))
        finals, states, log_z = _states(manifest, plugin, rows, start, stop)
        scored = rows.scored[start:stop].astype(np.float64)
        targets, bias = head.rows(rows.tokens[start:stop])  # (T, H), (T,)
        weight += float(scored.sum())
        base += float(scored @ (log_z - _logits(finals, targets, bias, manifest.softcap)))
        if states is not None:
            moved_z = log_sum_exp(head, states, manifest.softcap)
            total += float(scored @ (moved_z - _logits(states, targets, bias, manifest.softcap)))
    return Evaluation(len(rows), base / weight, None if plugin is None else total / weight)


def compare(
    manifest: KitManifest, head: Head, plugin: SidePlugin, bare: FeatureRows, behind: FeatureRows
) -> Evaluation:
    """
    Score the same rows by the frozen backbone, behind the personal prefix, and with the plugin there.

    Args:
        manifest: Of the kit whose features are read.
        head: Of the same backbone.
        plugin: Whose corrections are judged.
        bare: Rows of windows that stand alone.
        behind: Rows of the same windows behind the prefix, which may be empty.
    """
    alone = evaluate(manifest, head, None, bare)
    found = evaluate(manifest, head, plugin, behind)
    prefix = found.base if behind.prefixed else None
    return Evaluation(found.tokens, alone.base, found.plugin, prefix)


def _states(
    manifest: KitManifest, plugin: SidePlugin | None, rows: FeatureRows, start: int, stop: int
) -> tuple[Floats, Floats | None, Floats]:
    """Base states (T, H), the plugin's (T, H), and log Z (T,)."""
    finals = np.empty((stop - start, manifest.hidden), np.float32)
    if plugin is None:
        return finals, None, rows.read([*rows.cut(start, stop)], None, finals)
    states, log_z = np.empty_like(finals), np.empty(len(finals), np.float32)
    for first in range(0, len(finals), READ):
        part = slice(first, min(first + READ, len(finals)))
        taps = np.empty((len(manifest.taps), part.stop - first, manifest.hidden), np.float32)
        runs = [*rows.cut(start + first, start + part.stop)]
        log_z[part] = rows.read(runs, taps, finals[part])
        states[part] = plugin.state(
            States(position=0, layers=manifest.taps, taps=taps, final=finals[part])
        )
    return finals, states, log_z


def _logits(states: Floats, rows: Floats, bias: Floats, cap: float | None) -> Floats:
    """Each state's logit of its own token, (T,)."""
    return soft_capped(np.einsum("th,th->t", states, rows) + bias, cap)


def _told(nll: float) -> dict[str, float]:
    return {"nll": nll, "perplexity": math.exp(min(nll, 700.0))}
