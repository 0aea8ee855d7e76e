"""What is trained and how, in one frozen row. Knows no backbone and no tensors."""

import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from functools import partial
from typing import Any, cast

from adapters.errors import RecipeRefused

CHOICES: Mapping[str, tuple[str, ...]] = {
    "target": ("ladder", "sparse_ladder", "spa", "classifier", "tail"),
    "mlp": ("expand", "narrow"),
    "selection": ("all",),
    "rule": ("backprop", "recompute", "pepita", "mempepita", "zeroth_order"),
    "compression": ("none", "int8", "int4", "luc"),
    "loss": ("full", "shortlist"),
    "gate": ("none", "mix", "errors"),
}
"""What the fields that name something may say."""

_LARGE = 2**31 - 1

_RANGES: Mapping[str, tuple[float, float]] = {
    "width": (1, 65536),
    "coordinates": (0, 65535),
    "blocks": (1, 4096),
    "shortlist": (1, _LARGE),
    "negatives": (1, _LARGE),
    "gate_cost": (0, 10),
    "modulation": (1e-6, 1e3),
    "queries": (1, 1024),
    "epsilon": (1e-6, 1),
    "dropout": (0, 0.99),
    "decay": (0, 1),
    "clip": (1e-6, 1e6),
    "seed": (0, _LARGE),
    "rate": (1e-9, 10),
    "warmup": (0, 1),
    "epochs": (1, _LARGE),
    "batch_tokens": (1, _LARGE),
    "segment": (1, _LARGE),
    "patience": (1, _LARGE),
    "answers": (1, _LARGE),
}
"""Smallest and largest value of the fields that are one number."""

_NAME = re.compile(r"[a-z0-9][a-z0-9-]*")


@dataclass(frozen=True, slots=True)
class Recipe:
    """Five choices (target, selection, rule, compression, loss) and their numbers."""

    name: str
    """Lower-case letters, digits and dashes."""

    target: str = "ladder"
    """What is trained: a row of ``adapters.targets.TARGETS``."""

    taps: tuple[float, ...] = (0.27, 0.5, 0.7, 0.9)
    """Where the backbone is read, as shares of its depth, rising; empty: before and after every layer."""

    width: int = 128
    """Width R of the side network; of ``tail``, the rank of what is added to each matrix."""

    blocks: int = 8
    """``tail`` only: how many of the backbone's last blocks the device has; all, where there are no more."""

    coordinates: int = 0
    """Numbers in which the taps of a token travel together, by a public basis; 0: states travel whole."""

    mlp: str = "expand"
    """``spa`` only: the inner MLP is as wide as the backbone (as released), or half as wide as the side."""

    selection: str = "all"
    """Which part of the target moves."""

    rule: str = "backprop"
    """How it moves: a row of ``adapters.rules.RULES``."""

    modulation: float = 0.05
    """``pepita`` and ``mempepita`` only: how strongly the error is added to the input."""

    queries: int = 4
    """``zeroth_order`` only: perturbations that a step tries, each with both signs."""

    epsilon: float = 1e-2
    """``zeroth_order`` only: their size."""

    compression: str = "none"
    """``tail`` only: how its frozen matrices are stored; ``luc``: each block in 8 or 4 bits, as it bears them."""

    loss: str = "shortlist"
    """A row of ``adapters.losses.LOSSES``."""

    shortlist: int = 2048
    """Tokens that every step of the shortlist loss scores exactly, besides as many of its own as it foresees."""

    negatives: int = 512
    """Further tokens, drawn for each step, that show how the rest of the vocabulary moves."""

    gate: str = "none"
    """How the classifier is trained that says which tokens need the device: a row of ``adapters.gates.GATES``."""

    gate_cost: float = 0.1
    """``mix`` only: nats that it costs to let the device speak."""

    dropout: float = 0.1
    """Share of the side network's inputs that a training step leaves out."""

    decay: float = 0.01
    """Decoupled weight decay; gates, norm scales and biases have none."""

    clip: float = 1.0
    """Largest norm of all gradients together."""

    betas: tuple[float, ...] = (0.9, 0.98)
    """How much of the first and second moment a step keeps."""

    seed: int = 0
    """Seed of the initial weights."""

    rate: float = 1e-3
    """Peak learning rate."""

    warmup: float = 0.05
    """Share of the steps in which the rate rises; it then falls to a tenth of the peak."""

    epochs: int = 2
    """Times the texts are read; the rate falls over all of them."""

    batch_tokens: int = 512
    """Scored tokens a step, T."""

    segment: int = 64
    """Tokens in a row that stay together when the text is shuffled."""

    patience: int = 2
    """Epochs without a better validation loss before training stops."""

    answers: int = 12
    """Times an epoch reads what was said in conversations: they are short and have to be remembered."""

    def __post_init__(self) -> None:
        if not _NAME.fullmatch(self.name):
            raise RecipeRefused("name", "be lower-case letters, digits and dashes", self.name)
        for field, known in CHOICES.items():
            if getattr(self, field) not in known:
                raise RecipeRefused(field, f"be one of {', '.join(known)}", getattr(self, field))
        for field, (low, high) in _RANGES.items():
            # Written so that NaN is refused too.
            if not low <= getattr(self, field) <= high:
                raise RecipeRefused(field, f"be from {low:g} to {high:g}", getattr(self, field))
        if len(self.betas) != 2 or not all(0 <= beta < 1 for beta in self.betas):
            raise RecipeRefused("betas", "be two numbers from 0 to less than 1", self.betas)
        self._check_taps()
        self._check_tail()
        if self.gate != "none" and (
            self.target not in ("ladder", "spa") or self.rule != "backprop"
        ):
            raise RecipeRefused("gate", "be none but for ladder and spa, by backprop", self.gate)

    def _check_taps(self) -> None:
        inside = all(0 <= share <= 1 for share in self.taps)
        if not inside or any(b <= a for a, b in zip(self.taps, self.taps[1:], strict=False)):
            raise RecipeRefused("taps", "rise from 0 to at most 1", self.taps)
        if self.target == "spa" and self.taps:
            raise RecipeRefused("taps", "be empty for spa, which reads every layer", self.taps)
        if self.target in ("spa", "sparse_ladder") and self.rule != "backprop":
            raise RecipeRefused(
                "rule", f"be backprop for {self.target}, which is no chain", self.rule
            )

    def _check_tail(self) -> None:
        if self.target != "tail":
            if self.compression != "none":
                raise RecipeRefused(
                    "compression", "be none: only tail has a frozen part", self.compression
                )
            return
        if self.taps:
            raise RecipeRefused(
                "taps", "be empty for tail, which reads below its blocks", self.taps
            )
        if self.rule not in ("backprop", "recompute"):
            raise RecipeRefused("rule", "be backprop or recompute for tail", self.rule)
        for name in ("dropout", "coordinates"):
            if getattr(self, name):
                raise RecipeRefused(name, "be 0 for tail", getattr(self, name))

    def layers(self, depth: int) -> tuple[int, ...]:
        """
        Return the layers that are tapped in a backbone of ``depth`` layers.

        Layer 0 is what enters the first one. In a shallow backbone neighbouring
        shares fall together; each layer is read once.
        """
        if self.target == "tail":
            return (max(0, depth - self.blocks),)
        if not self.taps:
            return tuple(range(depth + 1))
        return tuple(sorted({round(share * depth) for share in self.taps}))

    def to_json(self) -> dict[str, object]:
        """Return plain JSON values, every field."""
        return {
            name: list(value) if isinstance(value, tuple) else value
            for name, value in asdict(self).items()
        }

    @classmethod
    def from_json(cls, data: object) -> "Recipe":
        """
        Read what ``to_json`` wrote; absent fields take their defaults.

        Raises:
            RecipeRefused: A field is unknown, of a wrong type, or holds what no kit can be made of.

        """
        if not isinstance(data, dict) or "name" not in data:
            raise RecipeRefused("recipe", "be an object with a name", data)
        kinds = {field.name: cast(type, field.type) for field in fields(cls)}
        unknown = sorted(str(name) for name in data.keys() - kinds.keys())
        if unknown:
            raise RecipeRefused("recipe", f"have no field {unknown[0]}", unknown[0])
        return cls(**{name: _typed(name, kinds[name], value) for name, value in data.items()})


def _typed(name: str, kind: object, value: object) -> Any:
    if kind is str and isinstance(value, str):
        return value
    if kind is int and type(value) is int:
        return value
    if kind is float and _is_number(value):
        return float(cast(float, value))
    if kind == tuple[float, ...] and isinstance(value, list) and all(map(_is_number, value)):
        return tuple(float(number) for number in value)
    raise RecipeRefused(name, "be of another type", value)


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


_ladder = partial(Recipe, coordinates=128)
# Width, rate and dropout of the released module; one epoch there, more where texts are short.
_spa = partial(Recipe, target="spa", taps=(), width=32, rate=2e-4)
_TAIL = Recipe(name="tail", target="tail", taps=(), width=8, dropout=0.0, decay=0.0)

RECIPES: Mapping[str, Recipe] = {
    recipe.name: recipe
    for recipe in (
        _ladder(name="ladder"),
        _ladder(name="ladder-full", loss="full"),
        _ladder(name="ladder-recompute", rule="recompute"),
        _ladder(name="ladder-pepita", rule="pepita"),
        _ladder(name="ladder-mempepita", rule="mempepita"),
        _ladder(name="ladder-thresholds", target="sparse_ladder"),
        # Every token is read 2 x queries times: fewer of them a step, as MobiZO keeps the product.
        _ladder(name="ladder-zeroth-order", rule="zeroth_order", batch_tokens=128, dropout=0.0),
        _ladder(name="ladder-gate-mix", gate="mix"),
        _ladder(name="ladder-gate-errors", gate="errors"),
        _spa(name="spa"),
        _spa(name="spa-narrow", mlp="narrow"),
        _spa(name="spa-gate-mix", gate="mix"),
        _spa(name="spa-gate-errors", gate="errors"),
        _TAIL,
        replace(_TAIL, name="tail-recompute", rule="recompute"),
        replace(_TAIL, name="tail-int8", compression="int8"),
        replace(_TAIL, name="tail-int4", compression="int4"),
        replace(_TAIL, name="tail-luc", compression="luc"),
        replace(_TAIL, name="tail-16", blocks=16),
        replace(_TAIL, name="tail-all", blocks=4096, rule="recompute"),
    )
}
"""The recipes that have a name. To add one: a row."""
