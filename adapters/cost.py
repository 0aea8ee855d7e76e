"""
What a training step of a transformer costs by each rule: two ways to count, side by side.

*As published*: the cost model of the MEMPEPITA study (Electronics 13(2):402), in multiply-adds, an
element of activations a byte. M tokens, d width, f FFN width, h heads, V vocabulary:

    block       forward F        backward B               update U     kept by backprop
    attention   4Md² + 2M²d      4Md² + 4M²d + M³h        4Md²         5Md + M²
    FFN         2Mdf             2Mdf                     2Mdf         Md + Mf
    layer norm  0                Md²                      Md           2Md
    head        MdV              MdV                      MdV          2Md
    embedding   MdV              0                        0            0

    backprop F + B + U    pepita 2F + MVd + U, keeps as much less M² a layer
    mempepita 3F + MVd + U, keeps MV + 2Md

The publication also prints operations, by a count of its own that is not known; here an operation
is a multiplication or an addition, two in a multiply-add.

*As frameworks compute*: embeddings are looked up, a softmax has no cubic backward pass, a norm's
cost is its M d elements, and an activation is a float of 4 bytes. Recomputation, the fair rival of
MEMPEPITA, is in this column alone.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

RULES = ("backprop", "recompute", "pepita", "mempepita")

MEGABYTE = 1e6


@dataclass(frozen=True, slots=True)
class Shape:
    """
    The sizes of a transformer.

    ``layers`` read themselves; ``crossed`` of them, a decoder's, read an encoder too.
    """

    name: str
    layers: int
    hidden: int
    inner: int
    heads: int
    vocabulary: int
    norms: int
    crossed: int = 0
    inputs: int = 1
    """Embedded inputs: two for an encoder and a decoder."""

    @property
    def attentions(self) -> int:
        return self.layers + self.crossed

    @property
    def weights(self) -> int:
        """Matrices, biases and norms; head and embedding are one matrix, positions are left out."""
        d, f = self.hidden, self.inner
        matrices = self.attentions * 4 * d * d + self.layers * 2 * d * f + self.vocabulary * d
        return matrices + self.attentions * 4 * d + self.layers * (f + d) + self.norms * 2 * d


SHAPES: Mapping[str, Shape] = {
    shape.name: shape
    for shape in (
        # Two norms a layer and one behind the embedding.
        Shape("distilbert", 6, 768, 3072, 12, 30522, norms=13),
        # The width is a slip of the publication's for 768; its figures come out with it alone.
        Shape("gpt3-small", 12, 784, 3072, 12, 50257, norms=24),
        # 46 encoder and 32 decoder layers. The model has 32 heads; the published figures come out
        # with 16 in the cubic term, and with both embeddings counted.
        Shape("alexatm", 78, 4096, 16384, 16, 150000, norms=188, crossed=32, inputs=2),
    )
}
"""The published configurations. To add one: a row."""


@dataclass(frozen=True, slots=True)
class Cost:
    """One rule's step."""

    macs: int
    activations: int
    """Bytes at their highest."""

    @property
    def flops(self) -> int:
        """A multiplication and an addition each."""
        return 2 * self.macs


def published(shape: Shape, tokens: int) -> dict[str, Cost]:
    """Return each rule's cost by the published model; there is no row for recomputation."""
    m, d, f, v = tokens, shape.hidden, shape.inner, shape.vocabulary
    matrices = shape.attentions * 4 * m * d * d + shape.layers * 2 * m * d * f + m * d * v
    quadratic = shape.attentions * m * m * d
    embedded = shape.inputs * m * d * v
    forward = matrices + 2 * quadratic + embedded
    cubic = shape.attentions * m**3 * shape.heads
    backward = matrices + 4 * quadratic + cubic + shape.norms * m * d * d
    update = matrices + shape.norms * m * d
    modulation = m * d * v
    # Two norms a layer, wherever it stands in the model.
    kept = shape.attentions * 5 * m * d + shape.layers * m * (d + f + 4 * d) + 2 * m * d
    return {
        "backprop": Cost(forward + backward + update, kept + shape.attentions * m * m),
        "pepita": Cost(2 * forward + modulation + update, kept),
        "mempepita": Cost(3 * forward + modulation + update, shape.inputs * m * v + 2 * m * d),
    }


def computed(shape: Shape, tokens: int, element: int = 4) -> dict[str, Cost]:
    """Return each rule's cost as frameworks compute it; an activation has ``element`` bytes."""
    m, d, f, v = tokens, shape.hidden, shape.inner, shape.vocabulary
    matrices = shape.attentions * 4 * m * d * d + shape.layers * 2 * m * d * f + m * d * v
    quadratic = shape.attentions * m * m * d
    norms = shape.norms * m * d
    forward = matrices + 2 * quadratic + norms
    backward = matrices + 4 * quadratic + norms
    update = matrices + norms
    modulation = m * d * v
    # Attention of every head keeps its probabilities. Of a layer: inputs of the products, queries, keys, values, probabilities, both sides of the
    # activation function, and the two norms' inputs.
    layer = m * (8 * d + 2 * f) + m * m * shape.heads
    crossed = m * 5 * d + m * m * shape.heads
    head = m * (d + v)
    outputs = shape.attentions * 4 * m * d + shape.layers * m * (f + d)
    return {
        "backprop": Cost(
            forward + backward + update,
            element * (shape.layers * layer + shape.crossed * crossed + head),
        ),
        "recompute": Cost(
            2 * forward + backward + update,
            element * (shape.layers * m * d + max(layer + crossed * bool(shape.crossed), head)),
        ),
        "pepita": Cost(2 * forward + modulation + update, element * (outputs + head)),
        "mempepita": Cost(
            3 * forward + modulation + update,
            element * max(2 * (layer + crossed * bool(shape.crossed)), head + m * d),
        ),
    }


def break_even(shape: Shape) -> float:
    """
    Return the tokens from which PEPITA computes less than backprop, as frameworks compute.

    The error's way to the input, M V d, against the second half of attention's backward pass,
    2 M² d a layer: V / (2 L).
    """
    return shape.vocabulary / (2 * shape.attentions)


COUNTS: Mapping[str, Callable[[Shape, int], dict[str, Cost]]] = {
    "as published": published,
    "as frameworks compute": computed,
}

_NAMES: Mapping[str, tuple[str, ...]] = {
    "layers": ("num_hidden_layers", "n_layer", "n_layers", "num_layers"),
    "hidden": ("hidden_size", "n_embd", "d_model", "dim"),
    "inner": ("intermediate_size", "n_inner", "d_ff", "ffn_dim", "hidden_dim", "encoder_ffn_dim"),
    "heads": ("num_attention_heads", "n_head", "n_heads", "num_heads", "encoder_attention_heads"),
    "vocabulary": ("vocab_size",),
}
"""What configurations of Hugging Face call the sizes."""


def shape_of(name: str, config: Mapping[str, Any]) -> Shape:
    """
    Return the sizes that a Hugging Face ``config.json`` gives.

    The counted FFN has two matrices: a gated one, with three, counts as one half wider. Shared keys
    and values count as if every head had its own.

    Raises:
        KeyError: A size has none of the names that are known.

    """
    found = {size: _first(config, names) for size, names in _NAMES.items() if size != "inner"}
    inner = _first(config, _NAMES["inner"], 4 * found["hidden"])
    gated = config.get("hidden_act") == "silu" or config.get("is_gated_act", False)
    inner = inner * 3 // 2 if gated else inner
    decoder = config.get("num_decoder_layers", 0) if config.get("is_encoder_decoder") else 0
    layers = found.pop("layers") + decoder
    norms = 2 * layers + 1 + decoder
    inputs = 2 if decoder else 1
    return Shape(name, layers, inner=inner, norms=norms, crossed=decoder, inputs=inputs, **found)


def _first(config: Mapping[str, Any], names: tuple[str, ...], otherwise: int | None = None) -> int:
    for name in names:
        if config.get(name) is not None:
            return int(config[name])
    if otherwise is None:
        raise KeyError(names[0])
    return otherwise


def compare(shape: Shape, tokens: int, megabytes: float | None = None) -> dict[str, Any]:
    """
    Return both counts as plain values; ``fits`` where the device's memory is given.

    A device holds the weights once, an element as large as an activation's.
    """
    element = {"as published": 1, "as frameworks compute": 4}
    answer: dict[str, Any] = {
        "model": shape.name,
        "tokens": tokens,
        "weights": shape.weights,
        "break_even_tokens": break_even(shape),
    }
    for count, costs in COUNTS.items():
        rows = {}
        for rule, cost in costs(shape, tokens).items():
            memory = cost.activations + element[count] * shape.weights
            rows[rule] = {
                "macs": cost.macs,
                "flops": cost.flops,
                "activation_bytes": cost.activations,
                "memory_bytes": memory,
            }
            if megabytes is not None:
                rows[rule]["fits"] = memory <= megabytes * MEGABYTE
        answer[count] = rows
    return answer
