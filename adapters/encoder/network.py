"""
The encoder of BERT and DistilBERT with a classifier on the mean of its last states.

    state = norm(words + places)
    state = norm(state + output(heads(query, key, value)))          each block
    state = norm(state + down(gelu(up(state))))
    scores = head(mean of the states of a text's tokens)

Every matrix is (out, in). ``up`` and ``down`` are the two linears of a block's feed-forward layer.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

Weights = Mapping[str, Tensor]

LINEARS = ("query", "key", "value", "output", "up", "down")
FEED_FORWARD = ("up", "down")
NORMS = ("attention_norm", "mlp_norm")

TABLES: Mapping[str, str] = {"words": "distinct", "places": "order"}
"""Tables of which a step reads some rows, and the input that says which."""


@dataclass(frozen=True, slots=True)
class EncoderShape:
    """
    The sizes of an encoder.

    Attributes:
        blocks: How many.
        hidden: H, width of a state.
        inner: F, width inside a feed-forward layer.
        heads: Each H / heads wide.
        vocabulary: Rows of ``words``.
        places: Rows of ``places``: the longest text.
        classes: C.
        epsilon: Of the norms.
    """

    blocks: int
    hidden: int
    inner: int
    heads: int
    vocabulary: int
    places: int
    classes: int
    epsilon: float = 1e-12

    def weights(self) -> dict[str, tuple[int, ...]]:
        """Return the shape of every weight by its name, in the order of the graphs' inputs."""
        hidden, inner = self.hidden, self.inner
        shapes: dict[str, tuple[int, ...]] = {
            "words": (self.vocabulary, hidden),
            "places": (self.places, hidden),
            "entry_norm": (hidden,),
            "entry_norm_bias": (hidden,),
        }
        matrices = dict.fromkeys(LINEARS, (hidden, hidden))
        matrices |= {"up": (inner, hidden), "down": (hidden, inner)}
        for place in range(self.blocks):
            for name, (out, into) in matrices.items():
                shapes[f"block{place}.{name}"] = (out, into)
                shapes[f"block{place}.{name}_bias"] = (out,)
            for name in NORMS:
                shapes[f"block{place}.{name}"] = (hidden,)
                shapes[f"block{place}.{name}_bias"] = (hidden,)
        return {**shapes, "head": (self.classes, hidden), "head_bias": (self.classes,)}

    def feed_forward(self) -> tuple[str, ...]:
        """Return the names of the feed-forward linears, two a block."""
        return tuple(
            f"block{place}.{name}" for place in range(self.blocks) for name in FEED_FORWARD
        )


def undecayed(names: Mapping[str, object]) -> frozenset[str]:
    """Return those of ``names`` that weight decay leaves alone: biases and norm scales."""
    return frozenset(name for name in names if name.endswith(("_bias", "_norm")))


@dataclass(frozen=True, slots=True)
class Learners:
    """Rows of a linear that learn while the others stay; n of them."""

    matrix: Tensor
    """(n, in)."""

    bias: Tensor
    """(n,)."""

    rows: Tensor
    """Which they are, int64 (n,)."""


def scores(
    shape: EncoderShape,
    weights: Weights,
    learners: Mapping[str, Learners],
    ids: Tensor,
    seen: Tensor,
) -> Tensor:
    """
    Return the classes' scores, (B, C).

    Args:
        shape: The encoder's.
        weights: All of them; ``words`` (U, H) and ``places`` (N, H) hold the rows that are read.
        learners: By linear: gradients go to these instead of to the whole linear.
        ids: Rows of ``words``, int64 (B, N).
        seen: 1 for a token, 0 for what only fills a text up, (B, N).

    """
    texts, tokens = ids.shape
    state = weights["words"].index_select(0, ids.reshape(-1)).view(texts, tokens, -1)
    state = _norm(shape, weights, "entry_norm", (state + weights["places"]).flatten(0, 1))
    reach = ((seen - 1) * -torch.finfo(seen.dtype).min)[:, None, None]  # (B, 1, 1, N)
    for place in range(shape.blocks):
        state = _block(shape, weights, learners, f"block{place}.", reach, state)
    kept = seen / seen.sum(1, keepdim=True)  # (B, N)
    mean = torch.bmm(kept.unsqueeze(1), state.view(texts, tokens, -1)).squeeze(1)  # (B, H)
    return torch.addmm(weights["head_bias"], mean, weights["head"].t())


def loss_of(scores: Tensor, labels: Tensor) -> Tensor:
    """Return the mean cross-entropy of ``scores`` (B, C) at ``labels`` (B,), ()."""
    chances = torch.log_softmax(scores, 1)
    return -chances.gather(1, labels.unsqueeze(1)).mean()


def _block(
    shape: EncoderShape,
    weights: Weights,
    learners: Mapping[str, Learners],
    prefix: str,
    reach: Tensor,
    state: Tensor,
) -> Tensor:
    """Return the states behind a block, (B N, H)."""
    texts, tokens = reach.shape[0], reach.shape[3]

    def linear(name: str, x: Tensor) -> Tensor:
        matrix, bias = weights[prefix + name], weights[f"{prefix}{name}_bias"]
        own = learners.get(prefix + name)
        if own is None:
            return torch.addmm(bias, x, matrix.t())
        moving: Tensor = _Moving.apply(x, matrix, bias, own.matrix, own.bias, own.rows)
        return moving

    def heads(name: str) -> Tensor:
        return linear(name, state).view(texts, tokens, shape.heads, -1).transpose(1, 2)

    query, key, value = heads("query"), heads("key"), heads("value")  # (B, heads, N, width)
    asked = torch.matmul(query * query.shape[-1] ** -0.5, key.transpose(2, 3)) + reach
    found = torch.matmul(torch.softmax(asked, 3), value)
    found = found.transpose(1, 2).reshape(texts * tokens, -1)
    state = _norm(shape, weights, f"{prefix}attention_norm", state + linear("output", found))
    inner = functional.gelu(linear("up", state))  # (B N, F)
    return _norm(shape, weights, f"{prefix}mlp_norm", state + linear("down", inner))


def _norm(shape: EncoderShape, weights: Weights, name: str, state: Tensor) -> Tensor:
    scale, shift = weights[name], weights[f"{name}_bias"]
    return functional.layer_norm(state, (shape.hidden,), scale, shift, shape.epsilon)


class _Moving(torch.autograd.Function):
    """
    A whole linear whose gradient is that of its learner rows.

    The product stays one, forward and backward: only what frozen rows would have had of their own,
    their part of the weights' gradient, is never computed.
    """

    @staticmethod
    def forward(
        x: Tensor, matrix: Tensor, bias: Tensor, learners: Tensor, biases: Tensor, rows: Tensor
    ) -> Tensor:
        return torch.addmm(bias, x, matrix.t())

    @staticmethod
    def setup_context(ctx: object, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        ctx.save_for_backward(inputs[0], inputs[1], inputs[5])  # type: ignore[attr-defined]

    @staticmethod
    def backward(ctx: object, slope: Tensor) -> tuple[Tensor, None, None, Tensor, Tensor, None]:
        x, matrix, rows = ctx.saved_tensors  # type: ignore[attr-defined]
        own = slope.index_select(1, rows)  # (B N, n)
        return torch.mm(slope, matrix), None, None, torch.mm(own.t(), x), own.sum(0), None
