"""A model's weights as the kernels read them: made once of what transformers loads."""

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from transformers import PreTrainedModel

from cloud_service.backbones.lean.forward import Layers
from cloud_service.backbones.lean.matrices import (
    BLOCK,
    PANEL,
    BlockMatrix,
    ByteMatrix,
    Matrix,
    PlainMatrix,
    code_panels,
    panels,
)
from cloud_service.backbones.lean.quantisation import as_bytes, quantise
from cloud_service.backbones.lean.shape import Shape
from cloud_service.backbones.lean.simd import LANES
from protocol.messages import Floats, Ids

WEIGHTS = ("f32", "bf16", "int8", "int4")
"""What weights can be kept in: floats, or codes in blocks; see ``quantisation``."""
NEVER = -1e30
"""Bias of the rows that fill the head up to whole panels."""
_BITS = {"int8": 8, "int4": 4}

Arrays = Mapping[str, NDArray[Any]]


def pack(model: PreTrainedModel, weights: str) -> dict[str, NDArray[Any]]:
    """
    Return a model of the Llama shape as arrays by name, its layers' matrices kept as ``weights``.

    Norms and biases stay float32: they are few. Head and embeddings become bytes only where that
    loses nothing: log Z is to be exact.

    Args:
        model: In float32.
        weights: One of ``WEIGHTS``.

    """
    base: Any = model.base_model
    layers = list(base.layers)
    attention = [layer.self_attn for layer in layers]
    mlps = [layer.mlp for layer in layers]
    packed: dict[str, NDArray[Any]] = {}
    matrices = {
        "qkv": [_stacked(part.q_proj, part.k_proj, part.v_proj) for part in attention],
        "output": [_stacked(part.o_proj) for part in attention],
        "gate_up": [_interleaved(mlp.gate_proj, mlp.up_proj) for mlp in mlps],
        "down": [_stacked(mlp.down_proj) for mlp in mlps],
    }
    for name, parts in matrices.items():
        packed |= {f"{name}.{key}": array for key, array in _matrix(parts, weights).items()}
    packed["input_norms"] = _joined(layer.input_layernorm.weight for layer in layers)
    packed["middle_norms"] = _joined(layer.post_attention_layernorm.weight for layer in layers)
    packed["final_norm"] = _joined([base.norm.weight])
    if hasattr(attention[0], "q_norm"):
        packed["query_norms"] = _joined(part.q_norm.weight for part in attention)
        packed["key_norms"] = _joined(part.k_norm.weight for part in attention)
    rotary = base.rotary_emb
    packed["frequencies"] = _numbers(rotary.inv_freq)
    packed["rotary_scale"] = np.array([rotary.attention_scaling], np.float32)
    return packed | _ends(model)


def layers_in(arrays: Arrays, shape: Shape) -> Layers:
    """Return the layers of a packed model."""
    qkv = (shape.queries + 2 * shape.kv) * shape.width
    none = np.empty(0, np.float32)
    return Layers(
        qkv=_matrix_in(arrays, "qkv", qkv, shape.hidden),
        output=_matrix_in(arrays, "output", shape.hidden, shape.queries * shape.width),
        gate_up=_matrix_in(arrays, "gate_up", 2 * shape.inner, shape.hidden),
        down=_matrix_in(arrays, "down", shape.hidden, shape.inner),
        input_norms=arrays["input_norms"],
        middle_norms=arrays["middle_norms"],
        final_norm=arrays["final_norm"],
        query_norms=arrays.get("query_norms", none),
        key_norms=arrays.get("key_norms", none),
        epsilon=np.float32(shape.epsilon),
        windows=np.array(shape.windows, np.int64),
    )


def head_in(arrays: Arrays, shape: Shape) -> PlainMatrix | ByteMatrix:
    """Return the head of a packed model, its rows filled up to whole panels."""
    measures = (_whole(shape.vocabulary), shape.hidden)
    if "head.codes" not in arrays:
        return PlainMatrix(*measures, arrays["head.weights"], arrays["head.bias"])
    return ByteMatrix(*measures, arrays["head.codes"], arrays["head.scales"], arrays["head.bias"])


def embedded(arrays: Arrays, shape: Shape, ids: Ids) -> Floats:
    """Return what token ids (T,) become, (T, H)."""
    name = "embeddings" if "embeddings.bias" in arrays else "head"
    panel, row = ids // PANEL, ids % PANEL

    def rows(key: str, columns: int) -> NDArray[Any]:
        picked: NDArray[Any] = arrays[f"{name}.{key}"].reshape(-1, columns, PANEL)[panel, :, row]
        return picked

    if f"{name}.codes" not in arrays:
        return rows("weights", shape.hidden)
    scales = rows("scales", shape.hidden // BLOCK).view(np.float16).astype(np.float32)
    return rows("codes", shape.hidden) * scales.repeat(BLOCK, axis=1)


def _matrix_in(arrays: Arrays, name: str, rows: int, columns: int) -> Matrix:
    bias = arrays[f"{name}.bias"]
    if f"{name}.codes" not in arrays:
        return PlainMatrix(rows, columns, arrays[f"{name}.weights"], bias)
    codes, scales, lows = (arrays[f"{name}.{key}"] for key in ("codes", "scales", "lows"))
    return BlockMatrix(rows, columns, codes, scales, lows, bias)


def _matrix(parts: list[tuple[Tensor, Tensor]], weights: str) -> dict[str, NDArray[Any]]:
    """Return the arrays of a matrix of all layers, of which each has rows and a bias."""
    made = [_kept(_numbers(rows), weights) for rows, _ in parts]
    packed = {key: np.concatenate([one[key] for one in made]) for key in made[0]}
    return packed | {"bias": _joined(bias for _, bias in parts)}


def _kept(rows: Floats, weights: str) -> dict[str, NDArray[Any]]:
    if weights == "f32":
        return {"weights": panels(rows[None])}
    if weights == "bf16":
        rounded = torch.from_numpy(rows).bfloat16().view(torch.int16).numpy()
        return {"weights": panels(rounded.view(np.uint16)[None])}
    blocks = quantise(rows, _BITS[weights])
    return {
        "codes": code_panels(blocks.codes[None], _BITS[weights]),
        "scales": panels(blocks.scales.view(np.int16)[None]),
        "lows": panels(blocks.lows.view(np.int16)[None]),
    }


def _ends(model: PreTrainedModel) -> dict[str, NDArray[Any]]:
    """Return the head, and the embeddings where they are not the same."""
    head: Any = model.get_output_embeddings()
    ends = _end("head", head.weight, head.bias)
    embeddings: Any = model.get_input_embeddings().weight
    if embeddings is not head.weight:
        ends |= _end("embeddings", embeddings, None)
    return ends


def _end(name: str, weights: Tensor, bias: Tensor | None) -> dict[str, NDArray[Any]]:
    """Return rows (V, H) filled up to whole panels: as bytes if they lose nothing, else as floats."""
    count = len(weights)
    rows = np.zeros((_whole(count), weights.shape[1]), np.float32)
    rows[:count] = _numbers(weights)
    biases = np.full(len(rows), NEVER, np.float32)
    biases[:count] = 0 if bias is None else _numbers(bias)
    made: dict[str, NDArray[Any]] = {f"{name}.bias": biases}
    held = as_bytes(rows)
    if held is None:
        return made | {f"{name}.weights": panels(rows[None])}
    codes, scales = held
    scales = scales.view(np.int16)
    return made | {f"{name}.codes": panels(codes[None]), f"{name}.scales": panels(scales[None])}


def _whole(rows: int) -> int:
    return -(-rows // PANEL) * PANEL


def _stacked(*projections: nn.Linear) -> tuple[Tensor, Tensor]:
    """Return the weights and biases of projections of the same input, below one another."""
    biases: list[Tensor] = [
        torch.zeros(one.out_features) if one.bias is None else one.bias for one in projections
    ]
    return torch.cat([one.weight.detach() for one in projections]), torch.cat(biases)


def _interleaved(gate: nn.Linear, up: nn.Linear) -> tuple[Tensor, Tensor]:
    """Return the rows of both in turn, by panels: 16 of gate, 16 of up."""
    rows, bias = _stacked(gate, up)
    halves = torch.arange(len(rows)).view(2, -1, LANES)
    order = halves.transpose(0, 1).flatten()
    return rows[order], bias[order]


def _joined(parts: Iterator[Tensor] | list[Tensor]) -> Floats:
    return np.concatenate([_numbers(part).ravel() for part in parts])


def _numbers(values: Tensor) -> Floats:
    numbers: Floats = values.detach().float().contiguous().numpy()
    return numbers
