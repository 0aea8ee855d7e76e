"""
The file of a kit's frozen weights, and graphs that read it.

    file          holds
    frozen.bin    arrays one after another, each from a multiple of 64 on, little-endian

A graph is exported with its constants as inputs. Here they become external data; a matrix in codes
takes its products with it, which become ``MatMulNBits``.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper

from adapters.compression import BLOCK
from adapters.ports import Constant

NAME = "frozen.bin"
_ALIGNMENT = 64
_EXACT, _ROUNDED = 0, 4
"""Accuracy levels of MatMulNBits: states in float32, or rounded to 8 bits, block after block."""
_ELEMENTS = {"float32": TensorProto.FLOAT, "uint8": TensorProto.UINT8}


class FrozenFile:
    """Arrays by name, each written once, whichever graphs read it."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / NAME
        self._known: dict[str, TensorProto] = {}

    def add(self, name: str, array: NDArray[np.generic]) -> TensorProto:
        """Return the constant ``name`` of a graph in the same folder; the array is in the file."""
        if name not in self._known:
            with self._path.open("ab") as file:
                file.write(b"\0" * (-file.tell() % _ALIGNMENT))
                offset = file.tell()
                file.write(np.ascontiguousarray(array).tobytes())
            tensor = TensorProto(name=name, data_type=_ELEMENTS[str(array.dtype)], dims=array.shape)
            tensor.data_location = TensorProto.EXTERNAL
            places = {"location": NAME, "offset": str(offset), "length": str(array.nbytes)}
            for key, value in places.items():
                tensor.external_data.add(key=key, value=value)
            self._known[name] = tensor
        return self._known[name]


def freeze(model: onnx.ModelProto, constants: Sequence[Constant], file: FrozenFile) -> None:
    """Turn a model's last inputs, which are ``constants``, into constants; changes it in place."""
    body = model.graph
    by_name = {constant.name: constant for constant in constants}
    _multiply(body, by_name)
    if any(constant.codes is not None for constant in constants):
        model.opset_import.append(helper.make_opsetid("com.microsoft", 1))
    inputs = [port for port in body.input if port.name not in by_name]
    del body.input[:]
    body.input.extend(inputs)
    read = {name for node in body.node for name in node.input}
    for constant in constants:
        for name, array in _arrays(constant).items():
            if name in read:
                body.initializer.append(file.add(name, array))


def round_states(model: onnx.ModelProto) -> bool:
    """
    Have products with codes of 8 bits round states to 8 bits too; return whether there are any.

    Products with a single token are fast only like that. Frozen graphs are exact before, so that
    they can be compared with torch: rounding through many blocks can hide a mistake.
    """
    found = False
    for node in model.graph.node:
        numbers = {one.name: one for one in node.attribute}
        if node.op_type == "MatMulNBits" and numbers["bits"].i == 8:
            numbers["accuracy_level"].i = _ROUNDED
            found = True
    return found


def _arrays(constant: Constant) -> dict[str, NDArray[np.generic]]:
    if constant.codes is None:
        return {constant.name: constant.value.float().numpy()}
    codes = constant.codes
    return {
        f"{constant.name}.codes": codes.codes.numpy(),
        f"{constant.name}.scales": codes.scales.numpy(),
        f"{constant.name}.zeros": codes.zeros.numpy(),
    }


def _multiply(body: onnx.GraphProto, constants: Mapping[str, Constant]) -> None:
    """
    Replace products with a constant's transpose: by ``MatMulNBits`` for codes, else by ``Gemm``.

    Left alone, onnxruntime would keep the transpose beside the matrix that gradients go through.
    """
    turned = {
        node.output[0]: node.input[0]
        for node in body.node
        if node.op_type == "Transpose" and node.input[0] in constants
    }
    for node in body.node:
        if node.op_type == "MatMul" and node.input[1] in turned:
            node.CopyFrom(_product(node, constants[turned[node.input[1]]]))
    read = {name for node in body.node for name in node.input}
    unread = [node for node in body.node if node.output[0] in turned.keys() - read]
    for node in unread:
        body.node.remove(node)


def _product(node: onnx.NodeProto, constant: Constant) -> onnx.NodeProto:
    name, (outputs, inputs) = constant.name, constant.value.shape
    if constant.codes is None:
        return helper.make_node(
            "Gemm", [node.input[0], name], list(node.output), name=node.name, transB=1
        )
    return helper.make_node(
        "MatMulNBits",
        [node.input[0], f"{name}.codes", f"{name}.scales", f"{name}.zeros"],
        list(node.output),
        name=node.name,
        domain="com.microsoft",
        K=inputs,
        N=outputs,
        bits=constant.codes.bits,
        block_size=BLOCK,
        accuracy_level=_EXACT,
    )
