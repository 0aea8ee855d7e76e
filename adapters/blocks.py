"""The backbone's blocks as plain tensors, for targets that compute them on the device."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from torch import Tensor

LINEARS = ("query", "key", "value", "output", "gate", "up", "down")
"""A block's matrices, each (out, in); a block without a gate has an MLP of two."""


@dataclass(frozen=True, slots=True)
class BlockShape:
    """
    What all blocks of a backbone have in common.

    Attributes:
        heads: Heads that ask.
        kv: Heads that are asked; each answers ``heads / kv`` of them.
        width: Of a head.
        centred: Whether norms subtract the mean (LayerNorm), or not (RMSNorm).
        epsilon: Of the norms.
        activation: "silu" or "gelu_tanh", of the MLP.
        frequencies: Rotary angle a position of each pair of a head's numbers, (width / 2,); None
            where positions enter below the first block.
        rotary_scale: What the rotary embedding multiplies states by.
    """

    heads: int
    kv: int
    width: int
    centred: bool
    epsilon: float
    activation: str
    frequencies: Tensor | None = None
    rotary_scale: float = 1.0


@dataclass(frozen=True, slots=True)
class BlockWeights:
    """
    A backbone's blocks, float32.

    Attributes:
        shape: Of each.
        blocks: One mapping a block, from the first to the last: the matrices of ``LINEARS``,
            ``attention_norm`` and ``mlp_norm``, where there are such ``query_norm`` and
            ``key_norm`` (of single heads), and the biases of all these as ``<name>_bias``.
        norm: ``final_norm``, and where there is one ``final_norm_bias``, of the norm before the head.
    """

    shape: BlockShape
    blocks: Sequence[Mapping[str, Tensor]]
    norm: Mapping[str, Tensor]
