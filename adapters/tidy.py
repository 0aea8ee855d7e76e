"""Makes an exported model plain: our names, no traces of where it was made, no needless transposes."""

from collections import Counter
from collections.abc import Sequence

import onnx
import torch

from adapters.ports import Graph, Port, taken

_ELEMENTS = {torch.float32: onnx.TensorProto.FLOAT, torch.int64: onnx.TensorProto.INT64}


def tidy(model: onnx.ModelProto, graph: Graph) -> onnx.ModelProto:
    """Return the model, changed in place, with ``graph``'s ports as its only inputs and outputs."""
    body = model.graph
    body.name = graph.name.removesuffix(".onnx")
    # A target that does not read a state drops it from the trace; the device feeds it all the same.
    del body.input[:], body.output[:]
    body.input.extend(_values(taken(graph)))
    body.output.extend(_values(graph.outputs))
    _forget_origin(model)
    _fold_transposes(body)
    _move_to_end(body, graph.outputs[0].name)
    onnx.checker.check_model(model)
    return model


def _values(ports: Sequence[Port]) -> list[onnx.ValueInfoProto]:
    return [
        onnx.helper.make_tensor_value_info(port.name, _ELEMENTS[port.dtype], port.shape)
        for port in ports
    ]


def _forget_origin(model: onnx.ModelProto) -> None:
    """Drop what the exporter noted: source lines and paths of the machine that compiled."""
    body = model.graph
    # Without the shapes of what lies between, onnxruntime keeps a twentieth less memory: it lends
    # fewer freed arrays to results that come much later.
    del body.value_info[:]
    for part in (model, body, *body.node, *body.initializer):
        part.doc_string = ""
        del part.metadata_props[:]


def _fold_transposes(body: onnx.GraphProto) -> None:
    """
    Let Gemm read its second matrix sideways.

    onnxruntime does this for MatMul when it loads a graph, but not for every Gemm, and the
    shortlist's rows would be copied at each step.
    """
    transposes = {node.output[0]: node for node in body.node if _swaps(node)}
    for node in body.node:
        if node.op_type == "Gemm" and node.input[1] in transposes:
            node.input[1] = transposes[node.input[1]].input[0]
            flag = next(a for a in node.attribute if a.name == "transB")
            flag.i = 1 - flag.i
    used = Counter(name for node in body.node for name in node.input)
    for name, node in transposes.items():
        if not used[name]:
            body.node.remove(node)


def _move_to_end(body: onnx.GraphProto, output: str) -> None:
    """
    Let the node that makes ``output`` be the last one.

    onnxruntime begins its plan at the last node. From the loss it comes to the logits' largest
    value before it comes to their softmax, which may then overwrite them.
    """
    node = next(node for node in body.node if output in node.output)
    body.node.remove(node)
    body.node.append(node)


def _swaps(node: onnx.NodeProto) -> bool:
    """Whether the node transposes a matrix."""
    return node.op_type == "Transpose" and list(node.attribute[0].ints) == [1, 0]
