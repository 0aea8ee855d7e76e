"""How well the next token is foreseen, over the whole vocabulary."""

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from device_agent.generation.posterior import averaged
from device_agent.memory.file import MemoryFile
from device_agent.memory.gate import NO_GATES, Evidence, Gates, apply, fit
from device_agent.memory.recall import recall
from device_agent.runtime.head import Head
from device_agent.runtime.plugin_kinds import Plugin
from device_agent.training.batches import FeatureRows, Run
from device_agent.training.vocabulary import log_sum_exp, soft_capped
from protocol.kit import KitManifest
from protocol.messages import States

TOKENS = 512
"""States at a time that pass through the vocabulary."""

READ = 256
"""Rows of features at a time."""

Floats = NDArray[np.float32]
Numbers = NDArray[np.float64]


Part = Literal["prefix", "memory", "plugin", "whole"]
"""What may speak: the frozen backbone behind the prefix, with the memory, with the plugin, with both."""

PARTS: tuple[Part, ...] = ("prefix", "memory", "plugin", "whole")


@dataclass(frozen=True, slots=True)
class Evaluation:
    """Mean negative log-likelihoods per scored token, natural logarithm; None for parts that are not there."""

    tokens: int
    base: float
    """Of the frozen backbone."""
    plugin: float | None = None
    """Of the plugin, behind the personal prefix where there is one."""
    prefix: float | None = None
    """Of the frozen backbone behind the personal prefix."""
    memory: float | None = None
    """Of the memory and the frozen backbone, without the plugin."""
    whole: float | None = None
    """Of everything together."""
    unprefixed: float | None = None
    """Of everything but the prefix: what is left when it is switched off without training anew."""

    def of(self, part: Part) -> float | None:
        """The figure of one part."""
        return {
            "prefix": self.prefix,
            "memory": self.memory,
            "plugin": self.plugin,
            "whole": self.whole,
        }[part]

    @property
    def best(self) -> Part:
        """What foresees best; of equals the one that takes least."""
        found = [(nll, part) for part in PARTS if (nll := self.of(part)) is not None]
        return min(found, key=lambda one: one[0])[1] if found else "plugin"

    def to_json(self) -> dict[str, object]:
        """``{"tokens", "base": {"nll", "perplexity"}, "prefix": {…}, …}``, what there is."""
        told: dict[str, object] = {"tokens": self.tokens}
        parts = ("base", "prefix", "memory", "plugin", "whole", "unprefixed")
        found = {name: getattr(self, name) for name in parts}
        return told | {name: _told(nll) for name, nll in found.items() if nll is not None}


@dataclass(frozen=True, slots=True)
class Scores:
    """Negative log-likelihoods of n tokens that were to be foreseen."""

    scored: Numbers
    """Weight of each, (n,)."""
    base: Numbers
    """Of the frozen backbone, (n,)."""
    plugin: Numbers | None
    """Of the plugin, (n,)."""
    recalled: Numbers | None
    """Probability that the memory gives each, (n,); None without a memory."""
    nearest: Floats | None
    """Cosine of the memory's nearest state, (n,)."""

    def mean(self, nll: Numbers) -> float:
        """Over all tokens by weight."""
        return float(self.scored @ nll / self.scored.sum())

    def evidence(self) -> tuple[Evidence, Evidence]:
        """What gates are chosen on: for the frozen backbone, and for the plugin."""
        if self.recalled is None or self.nearest is None or self.plugin is None:
            raise ValueError("scored without a memory or without a plugin")
        alone = Evidence(self.base, self.recalled, self.nearest, self.scored)
        return alone, replace(alone, nll=self.plugin)


def score(
    manifest: KitManifest,
    head: Head,
    plugin: Plugin | None,
    rows: FeatureRows,
    memory: MemoryFile | None = None,
) -> Scores:
    """Score every row.

    The backbone's own figure needs no pass over the vocabulary: its log Z came with the features.

    Args:
        manifest: Of the kit whose features are read.
        head: Of the same backbone.
        plugin: Whose corrections are judged; None for the backbone alone.
        rows: What is foreseen from what.
        memory: Asked for every row; None for none.
    """
    base, moved, recalled, nearest = [], [], [], []
    for start in range(0, len(rows), TOKENS):
        stop = min(start + TOKENS, len(rows))
        finals, states, log_z = _states(manifest, plugin, rows, start, stop)
        tokens = rows.tokens[start:stop]
        targets, bias = head.rows(tokens)  # (T, H), (T,)
        base.append(log_z - _logits(finals, targets, bias, manifest.softcap))
        if states is not None:
            moved_z = log_sum_exp(head, states, manifest.softcap)
            moved.append(moved_z - _logits(states, targets, bias, manifest.softcap))
        if memory is not None:
            found = recall(memory, finals)
            recalled.append(found.probability(tokens))
            nearest.append(found.nearest)
    return Scores(
        rows.scored.astype(np.float64),
        np.concatenate(base).astype(np.float64),
        np.concatenate(moved) if moved else None,
        np.concatenate(recalled) if recalled else None,
        np.concatenate(nearest) if nearest else None,
    )


def evaluate(
    manifest: KitManifest, head: Head, plugin: Plugin | None, rows: FeatureRows
) -> Evaluation:
    """The means of ``score``, without a memory."""
    scores = score(manifest, head, plugin, rows)
    plugin_nll = None if scores.plugin is None else scores.mean(scores.plugin)
    return Evaluation(len(rows), scores.mean(scores.base), plugin_nll)


def compare(
    manifest: KitManifest,
    head: Head,
    plugin: Plugin,
    bare: FeatureRows,
    behind: FeatureRows,
    memory: MemoryFile | None = None,
    gates: Gates = NO_GATES,
) -> Evaluation:
    """
    What each part gives on the same rows: frozen backbone, personal prefix, memory, plugin, and all.

    In documents each of them is averaged with the frozen backbone, as it speaks: see ``posterior``.

    Args:
        manifest: Of the kit whose features are read.
        head: Of the same backbone.
        plugin: Whose corrections are judged.
        bare: Rows of windows that stand alone.
        behind: Rows of the same windows behind the prefix, which may be empty.
        memory: None for none.
        gates: How much the memory is believed.
    """
    found = score(manifest, head, plugin, behind, memory)
    recalled: tuple[Numbers, ...] = ()
    if memory is not None:
        pairs = zip(found.evidence(), gates, strict=True)
        recalled = tuple(apply(evidence, gate).nll for evidence, gate in pairs)
    return _evaluation(score(manifest, head, None, bare), found, behind, recalled)


def weigh(
    manifest: KitManifest,
    head: Head,
    plugin: Plugin,
    bare: FeatureRows,
    behind: FeatureRows,
    memory: MemoryFile,
    general: FeatureRows,
) -> tuple[Evaluation, Gates]:
    """
    Like ``compare``, with gates that are chosen on these very rows.

    The figures are honest all the same: each row is foreseen by a gate that was chosen on others.

    Args:
        manifest, head, plugin, bare, behind, memory: As for ``compare``.
        general: Rows of text that is nobody's own, behind the same prefix.
    """
    found = score(manifest, head, plugin, behind, memory)
    of_general = score(manifest, head, plugin, general, memory).evidence()
    alone, whole = (fit(*pair) for pair in zip(found.evidence(), of_general, strict=True))
    recalled = (alone.nll, whole.nll)
    evaluation = _evaluation(score(manifest, head, None, bare), found, behind, recalled)
    return evaluation, Gates(alone.gate, whole.gate)


def unprefixed(
    manifest: KitManifest,
    head: Head,
    plugin: Plugin,
    bare: FeatureRows,
    memory: MemoryFile | None = None,
    gates: Gates = NO_GATES,
) -> float:
    """What plugin and memory, which learned behind a prefix, give without it; arguments as for ``compare``."""
    found = score(manifest, head, plugin, bare, memory)
    nll = found.plugin if memory is None else apply(found.evidence()[1], gates.plugin).nll
    if nll is None:
        raise ValueError("scored without a plugin")
    return found.mean(_doubted(nll, found.base, bare))


def _evaluation(
    bare: Scores, found: Scores, behind: FeatureRows, recalled: tuple[Numbers, ...]
) -> Evaluation:
    """The means of every part; ``recalled`` is with the memory: without and with the plugin, (n,) each."""
    parts = {"prefix": found.base if behind.prefixed else None, "plugin": found.plugin}
    parts |= dict(zip(("memory", "whole"), recalled, strict=False))
    means = {
        part: found.mean(_doubted(nll, bare.base, behind))
        for part, nll in parts.items()
        if nll is not None
    }
    return Evaluation(len(behind), bare.mean(bare.base), **means)


def _doubted(personal: Numbers, base: Numbers, rows: FeatureRows) -> Numbers:
    """Documents as a speaker continues them; in conversations what is personal speaks undoubted."""
    documents = np.repeat(rows.documents, np.diff(rows.starts))
    return np.where(documents, averaged(personal, base, rows.starts.tolist()), personal)


def _states(
    manifest: KitManifest, plugin: Plugin | None, rows: FeatureRows, start: int, stop: int
) -> tuple[Floats, Floats | None, Floats]:
    """Base states (T, H), the plugin's (T, H), and log Z (T,)."""
    finals = np.empty((stop - start, manifest.hidden), np.float32)
    if plugin is None:
        return finals, None, rows.read([*rows.cut(start, stop)], None, finals)
    states, log_z = np.empty_like(finals), np.empty(len(finals), np.float32)
    for part, runs in _pieces(rows, start, stop, plugin.sequential):
        taps = np.empty((len(manifest.taps), part.stop - part.start, manifest.hidden), np.float32)
        log_z[part] = rows.read(runs, taps, finals[part])
        position = rows.position(runs[0])
        states[part] = plugin.state(States(position, manifest.taps, taps, final=finals[part]))
    return finals, states, log_z


def _pieces(
    rows: FeatureRows, start: int, stop: int, apart: bool
) -> Iterator[tuple[slice, list[Run]]]:
    """Rows ``start`` to ``stop``, at most ``READ`` at a time, each piece of one text where ``apart``.

    Gives where in ``start`` to ``stop`` a piece is, and its runs.
    """
    bounds = [range(run.start, run.stop) for run in rows.cut(start, stop)]
    for bound in bounds if apart else [range(start, stop)]:
        for first in bound[::READ]:
            last = min(first + READ, bound.stop)
            yield slice(first - start, last - start), [*rows.cut(first, last)]


def _logits(states: Floats, rows: Floats, bias: Floats, cap: float | None) -> Floats:
    """Each state's logit of its own token, (T,)."""
    return soft_capped(np.einsum("th,th->t", states, rows) + bias, cap)


def _told(nll: float) -> dict[str, float]:
    return {"nll": nll, "perplexity": math.exp(min(nll, 700.0))}
