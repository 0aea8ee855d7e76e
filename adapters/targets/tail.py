"""
The backbone's last k blocks, frozen, with a low-rank path beside every matrix (LoRA, arXiv 2106.09685).

    y = W x + b + 2 (x down) up        down (in, R), up (R, out)

``up`` begins at zero: a fresh tail says what the backbone says. The blocks read the state that
enters the first of them, and the head reads what the backbone's last norm makes of the last one.
"""

from collections.abc import Mapping, Sequence
from copy import copy
from dataclasses import dataclass, field
from functools import partial
from typing import ClassVar, Self

import torch
from torch import Tensor
from torch.nn import functional

from adapters.blocks import LINEARS, BlockShape, BlockWeights
from adapters.ports import Axis
from adapters.targets.base import uniform, zeros
from adapters.targets.chain import Block, Chain, Stage, Stages, Weights

ALPHA = 2.0
"""What the low-rank path is multiplied by: alpha over rank, as alpha 16 at rank 8."""


@dataclass(frozen=True, slots=True)
class Sight:
    """What T tokens see of one another and of P earlier ones, the same in every block."""

    reach: Tensor
    """Added to the scores: 0 where a token (row) sees another, a large negative number elsewhere, (T, T)."""

    turns: tuple[Tensor, Tensor] | None
    """Cosine and sine of the rotary angles, each (T, width)."""

    past: Tensor | None = None
    """Keys and values of the earlier tokens, all of which are seen, (P, k, 2, kv, width)."""

    fresh: list[Tensor] = field(default_factory=list)
    """Filled: keys and values of these tokens, a block after another, each (T, 2, kv, width)."""


class Tail(Chain):
    """Blocks L - k to L of a backbone."""

    undecayed = frozenset[str]()
    reads: ClassVar[Mapping[str, tuple[Axis, ...]]] = {"positions": ("T",), "reach": ("T", "T")}

    def __init__(self, weights: BlockWeights, first: int, rank: int, generator: torch.Generator):
        """
        Take the blocks from ``first`` on, counted from 0.

        Args:
            weights: All blocks of the backbone.
            first: The first one that is resident.
            rank: R.
            generator: For ``down``.

        """
        super().__init__()
        self.shape = weights.shape
        blocks = weights.blocks[first:]
        self.count = len(blocks)
        self.mask = (1, 1)  # no dropout has a place here
        shape = self.shape
        self.cache = (self.count, 2, shape.kv, shape.width)
        self.frozen = {
            f"block{place}.{name}": one
            for place, block in enumerate(blocks)
            for name, one in block.items()
        } | dict(weights.norm)
        if shape.frequencies is not None:
            self.frozen["frequencies"] = shape.frequencies
        for name in LINEARS:
            if name in blocks[0]:
                outputs, inputs = blocks[0][name].shape
                self.register_parameter(
                    f"{name}_down", uniform((self.count, inputs, rank), inputs, generator)
                )
                self.register_parameter(f"{name}_up", zeros(self.count, rank, outputs))
        self._inputs: Mapping[str, Tensor] = {}

    def matrices(self, place: int) -> tuple[str, ...]:
        """Return the names of a resident block's frozen matrices."""
        names = (f"block{place}.{name}" for name in LINEARS)
        return tuple(name for name in names if name in self.frozen)

    def bound(self, inputs: Mapping[str, Tensor]) -> Self:
        """Return the same tail over ``inputs``: those of ``reads``, frozen weights, and the past."""
        other = copy(self)
        other._inputs = inputs
        return other

    def forward(self, taps: Tensor, final: Tensor, mask: Tensor | None) -> Tensor:
        """Return what the head reads, (T, H); each token sees the others within its reach."""
        return self._through(self._sight(None), taps[0])

    def infer(self, taps: Tensor, final: Tensor) -> tuple[Tensor, ...]:
        """Return what the head reads, (T, H), and the tokens' keys and values, (T, k, 2, kv, width)."""
        sight = self._sight(self._inputs["past"])
        state = self._through(sight, taps[0])
        return state, torch.stack(sight.fresh, 1)

    def _through(self, sight: Sight, state: Tensor) -> Tensor:
        # Taken apart at once: the gradient is then put together at once, not scattered k times.
        apart = {name: weight.unbind(0) for name, weight in self.named_parameters()}
        for place, block in enumerate(self._blocks(sight)):
            state = block.output({name: slices[place] for name, slices in apart.items()}, state)
        return state

    def entry(self, taps: Tensor, final: Tensor) -> Tensor:
        """Return what enters the first block: the only tap."""
        return taps[0]

    def blocks(
        self, taps: Tensor, final: Tensor, mask: Tensor | None, modulation: Tensor | None
    ) -> Sequence[Block]:
        """Return the resident blocks; the last one ends with the norm before the head."""
        return self._blocks(self._sight(None))

    def _blocks(self, sight: Sight) -> Sequence[Block]:
        names = [name for name, _ in self.named_parameters()]
        frozen = self._inputs
        blocks = []
        for place in range(self.count):
            prefix = f"block{place}."
            own = {n.removeprefix(prefix): t for n, t in frozen.items() if n.startswith(prefix)}
            last = place == self.count - 1
            past = None if sight.past is None else sight.past[:, place]
            run = partial(_block, self.shape, own, frozen if last else None, sight, past)
            blocks.append(Block(dict.fromkeys(names, place), run))
        return blocks

    def _sight(self, past: Tensor | None) -> Sight:
        turns = None
        if "frequencies" in self._inputs:
            angles = self._inputs["positions"].unsqueeze(1) * self._inputs["frequencies"]
            angles = torch.cat((angles, angles), 1)  # (T, width)
            scale = self.shape.rotary_scale
            turns = (torch.cos(angles) * scale, torch.sin(angles) * scale)
        return Sight(self._inputs["reach"], turns, past)


def _block(
    shape: BlockShape,
    frozen: Weights,
    norm: Weights | None,
    sight: Sight,
    past: Tensor | None,
    own: Weights,
    state: Tensor,
) -> Stages:
    """Return the state behind one block, (T, H); behind the norm before the head too, if given."""
    normed = _norm(shape, state, frozen, "attention_norm")
    query = yield _linear(frozen, "query", normed)
    key = yield _linear(frozen, "key", normed)
    value = yield _linear(frozen, "value", normed)
    heads = _heads(shape, frozen, sight, past, query, key, value)
    state = state + (yield _linear(frozen, "output", heads))
    normed = _norm(shape, state, frozen, "mlp_norm")
    spread = yield _linear(frozen, "up", normed)
    if "gate" in frozen:
        spread = _active(shape, (yield _linear(frozen, "gate", normed))) * spread
    else:
        spread = _active(shape, spread)
    state = state + (yield _linear(frozen, "down", spread))
    return state if norm is None else _norm(shape, state, norm, "final_norm")


def _linear(frozen: Weights, name: str, x: Tensor) -> Stage:
    """Return the frozen product with the low-rank path beside it."""

    def compute(own: Weights, x: Tensor) -> Tensor:
        out = through(x, frozen[name], frozen.get(f"{name}.back"))
        if f"{name}_bias" in frozen:
            out = out + frozen[f"{name}_bias"]
        return out + torch.mm(torch.mm(x, own[f"{name}_down"]), own[f"{name}_up"]) * ALPHA

    return Stage((f"{name}_down", f"{name}_up"), compute, x)


def _heads(
    shape: BlockShape,
    frozen: Weights,
    sight: Sight,
    past: Tensor | None,
    query: Tensor,
    key: Tensor,
    value: Tensor,
) -> Tensor:
    """Return what the heads read of all that the tokens see, (T, heads * width)."""
    query = query.view(-1, shape.heads, shape.width)
    key, value = (one.view(-1, shape.kv, shape.width) for one in (key, value))
    if "query_norm" in frozen:
        query = _norm(shape, query, frozen, "query_norm")
        key = _norm(shape, key, frozen, "key_norm")
    if sight.turns is not None:
        query, key = (_turned(one, *sight.turns) for one in (query, key))
    sight.fresh.append(torch.stack((key, value), 1))
    # Each key head answers its group of asking heads in one product: (kv, group * T, width).
    group = shape.heads // shape.kv
    asked = query.view(-1, shape.kv, group, shape.width).permute(1, 2, 0, 3)
    asked = asked.reshape(shape.kv, -1, shape.width) * shape.width**-0.5
    seen, read = (one.transpose(0, 1) for one in (key, value))  # (kv, T, width)
    scores = torch.bmm(asked, seen.transpose(1, 2)) + sight.reach.repeat(group, 1)
    if past is not None:
        earlier = past.permute(1, 2, 0, 3)  # (2, kv, P, width)
        scores = torch.cat((torch.bmm(asked, earlier[0].transpose(1, 2)), scores), 2)
        read = torch.cat((earlier[1], read), 1)  # (kv, P + T, width)
    out = torch.bmm(torch.softmax(scores, 2), read).view(shape.kv, group, -1, shape.width)
    return out.permute(2, 0, 1, 3).reshape(-1, shape.heads * shape.width)


def _turned(states: Tensor, cosine: Tensor, sine: Tensor) -> Tensor:
    """Return ``states`` (T, heads, width) turned by their positions, halves against each other."""
    low, high = states.chunk(2, 2)
    crossed = torch.cat((-high, low), 2)
    return states * cosine.unsqueeze(1) + crossed * sine.unsqueeze(1)


def _norm(shape: BlockShape, state: Tensor, frozen: Weights, name: str) -> Tensor:
    if shape.centred:
        state = state - state.mean(-1, keepdim=True)
    normed = state * torch.rsqrt((state * state).mean(-1, keepdim=True) + shape.epsilon)
    normed = normed * frozen[name]
    shift = frozen.get(f"{name}_bias")
    return normed if shift is None else normed + shift


def _active(shape: BlockShape, state: Tensor) -> Tensor:
    if shape.activation == "silu":
        return functional.silu(state)
    return functional.gelu(state, approximate="tanh")


class _Through(torch.autograd.Function):
    """A product with a frozen matrix whose way back has a rounded copy of its own."""

    @staticmethod
    def forward(x: Tensor, matrix: Tensor, back: Tensor) -> Tensor:
        return torch.mm(x, matrix.t())

    @staticmethod
    def setup_context(ctx: object, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        ctx.save_for_backward(inputs[2])  # type: ignore[attr-defined]

    @staticmethod
    def backward(ctx: object, slope: Tensor) -> tuple[Tensor, None, None]:
        (back,) = ctx.saved_tensors  # type: ignore[attr-defined]
        return torch.mm(slope, back.t()), None, None


def through(x: Tensor, matrix: Tensor, back: Tensor | None) -> Tensor:
    """
    Return ``x`` (T, in) times a frozen matrix (out, in).

    Args:
        x: What comes in.
        matrix: Never moved.
        back: Its transpose (in, out) as the gradient goes through it; None for the matrix itself.

    """
    if back is None:
        return torch.mm(x, matrix.t())
    product: Tensor = _Through.apply(x, matrix, back)
    return product
