"""
The LM head as the device keeps it: int8 codes in blocks of 32, and a graph that multiplies by them.

    file         holds
    head.codes   uint8 (V, B, 32), code = 128 + round(weight / scale); B = ceil(H / 32)
    head.scales  float32 (V * B)
    head.bias    float32 (V), zeros when the head has none
    head.onnx    state (T, H) -> logits (T, V), reading the three above as external data

Numbers are little-endian. The last block of a row is filled up with zeros.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import torch
from onnx import TensorProto, helper
from torch import Tensor

BLOCK = 32
ZERO = 128
"""The code of a zero: what MatMulNBits assumes for 8 bits."""
_LARGEST = 127
_ROWS_AT_ONCE = 4096
"""Keeps the temporaries of a large vocabulary small."""

_OPSET = 20
_IR = 10
_INT8 = 4
"""MatMulNBits' accuracy level that multiplies int8 by int8, the fast one."""


@dataclass(frozen=True, slots=True)
class HeadWeights:
    """
    The backbone's head.

    Attributes:
        rows: One a token, (V, H).
        bias: (V,), or None.
        softcap: ``cap`` of ``cap * tanh(logits / cap)``, or None.
    """

    rows: Tensor
    bias: Tensor | None
    softcap: float | None

    def logits(self, states: Tensor) -> Tensor:
        """Return the logits (T, V) of states (T, H)."""
        logits = states @ self.rows.detach().float().t()
        if self.bias is not None:
            logits = logits + self.bias.detach().float()
        if self.softcap is not None:
            logits = self.softcap * torch.tanh(logits / self.softcap)
        return logits


def quantise(rows: Tensor) -> tuple[Tensor, Tensor]:
    """
    Return codes, uint8 (V, B, 32), and scales, float32 (V, B), of ``rows`` (V, H).

    A weight is off by half its block's scale at most. Rows that were such blocks before lose
    nothing: the largest of a block gives its old scale back.
    """
    vocabulary, hidden = rows.shape
    blocks = -(-hidden // BLOCK)
    filled = torch.nn.functional.pad(rows.float(), (0, blocks * BLOCK - hidden))
    grouped = filled.view(vocabulary, blocks, BLOCK)
    scales = grouped.abs().amax(2) / _LARGEST  # (V, B)
    # A block of zeros would divide by zero; any scale maps it to zeros.
    scales = torch.where(scales > 0, scales, torch.ones_like(scales))
    codes = torch.round(grouped / scales.unsqueeze(2)) + ZERO
    return codes.to(torch.uint8), scales


def dequantise(codes: Tensor, scales: Tensor, hidden: int) -> Tensor:
    """Return the rows that codes and scales stand for, float32 (V, H)."""
    values = (codes.float() - ZERO) * scales.unsqueeze(2)
    return values.flatten(1)[:, :hidden]


def write_head(folder: Path, head: HeadWeights) -> None:
    """Write the head's four files into ``folder``."""
    vocabulary = len(head.rows)
    with (folder / "head.codes").open("wb") as codes, (folder / "head.scales").open("wb") as scales:
        for part in _parts(head.rows):
            code, scale = quantise(part)
            codes.write(code.numpy().tobytes())
            scales.write(scale.numpy().astype("<f4").tobytes())
    bias = torch.zeros(vocabulary) if head.bias is None else head.bias.float()
    (folder / "head.bias").write_bytes(bias.numpy().astype("<f4").tobytes())
    (folder / "head.onnx").write_bytes(head_model(head).SerializeToString())


def head_model(head: HeadWeights) -> onnx.ModelProto:
    """Return the graph state (T, H) -> logits (T, V)."""
    vocabulary, hidden = head.rows.shape
    blocks = -(-hidden // BLOCK)
    constants = [
        _external("head.codes", TensorProto.UINT8, (vocabulary, blocks, BLOCK), 1),
        _external("head.scales", TensorProto.FLOAT, (vocabulary * blocks,), 4),
    ]
    nodes = [
        helper.make_node(
            "MatMulNBits",
            ["state", "head.codes", "head.scales"],
            ["product"],
            domain="com.microsoft",
            K=hidden,
            N=vocabulary,
            bits=8,
            block_size=BLOCK,
            accuracy_level=_INT8,
        )
    ]
    if head.bias is not None:
        constants.append(_external("head.bias", TensorProto.FLOAT, (vocabulary,), 4))
        nodes.append(helper.make_node("Add", ["product", "head.bias"], ["biased"]))
    if head.softcap is not None:
        constants.append(onnx.numpy_helper.from_array(np.array(head.softcap, np.float32), "cap"))
        nodes += _cap(nodes[-1].output[0])
    nodes[-1].output[0] = "logits"
    graph = helper.make_graph(
        nodes,
        "head",
        [helper.make_tensor_value_info("state", TensorProto.FLOAT, ("T", hidden))],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ("T", vocabulary))],
        constants,
    )
    opsets = [helper.make_opsetid("", _OPSET), helper.make_opsetid("com.microsoft", 1)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=_IR)


def _cap(logits: str) -> Iterable[onnx.NodeProto]:
    yield helper.make_node("Div", [logits, "cap"], ["shrunk"])
    yield helper.make_node("Tanh", ["shrunk"], ["bent"])
    yield helper.make_node("Mul", ["bent", "cap"], ["capped"])


def _parts(rows: Tensor) -> Iterator[Tensor]:
    for start in range(0, len(rows), _ROWS_AT_ONCE):
        yield rows[start : start + _ROWS_AT_ONCE].detach()


def _external(name: str, element: int, shape: tuple[int, ...], bytes_each: int) -> TensorProto:
    """Return a constant whose bytes are the whole of the file of the same name."""
    tensor = TensorProto(name=name, data_type=element, dims=shape)
    tensor.data_location = TensorProto.EXTERNAL
    size = bytes_each * int(np.prod(shape, dtype=np.int64))
    for key, value in (("location", name), ("offset", "0"), ("length", str(size))):
        tensor.external_data.add(key=key, value=value)
    return tensor
