"""Which node of a compiled step goes forward, backward, or moves weights, and what each part takes.

What the loss needs is forward; what the norm of all gradients needs beside that is backward; the rest waits for that
norm, and is the optimizer. Read from the graph as the runtime has rearranged it, with the runtime's own clock.
"""

import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Literal, NamedTuple

Part = Literal["forward", "backward", "optimizer"]
PARTS: tuple[Part, ...] = ("forward", "backward", "optimizer")

_TIMED = "_kernel_time"
_GRAPH, _NODE = 7, 1
"""Fields of ONNX's ModelProto and GraphProto."""
_INPUT, _OUTPUT, _NAME = 1, 2, 3
"""Fields of NodeProto."""
_VARINT, _EIGHT, _BYTES, _FOUR = 0, 1, 2, 5
"""Wire types of protobuf."""


class Node(NamedTuple):
    """One operator of a graph."""

    name: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]


def shares(graph: Path, profile: Path) -> dict[Part, float]:
    """What share of a step's time each part has.

    Args:
        graph: The optimized graph that ran, ONNX.
        profile: What onnxruntime wrote of its runs.

    Raises:
        ValueError: The files do not belong together, or are something else.
    """
    parts = parts_of(nodes_in(graph.read_bytes()))
    taken: dict[Part, float] = dict.fromkeys(PARTS, 0.0)
    for event in json.loads(profile.read_bytes()):
        name = str(event.get("name", ""))
        if event.get("cat") == "Node" and name.endswith(_TIMED):
            node = name.removesuffix(_TIMED)
            if node not in parts:
                raise ValueError(f"node {node} was timed, but is not in the graph")
            taken[parts[node]] += float(event["dur"])
    whole = sum(taken.values())
    if whole == 0:
        raise ValueError("no node was timed")
    return {part: seconds / whole for part, seconds in taken.items()}


def parts_of(nodes: Iterable[Node]) -> dict[str, Part]:
    """The part of each node, by name."""
    nodes = list(nodes)
    makers = {output: node for node in nodes for output in node.outputs}
    forward = _needed("loss", makers)
    backward = _needed("norm", makers) - forward
    told: dict[str, Part] = {}
    for node in nodes:
        name = node.name
        told[name] = (
            "forward" if name in forward else "backward" if name in backward else "optimizer"
        )
    return told


def nodes_in(model: bytes) -> Iterator[Node]:
    """The operators of an ONNX model, which takes no ONNX library: names are all that is read."""
    for number, graph in _fields(model):
        if number == _GRAPH:
            for inner, node in _fields(graph):
                if inner == _NODE:
                    yield _node(node)


def _needed(result: str, makers: Mapping[str, Node]) -> set[str]:
    """Names of the nodes that ``result`` depends on."""
    found: set[str] = set()
    wanted = [result]
    while wanted:
        node = makers.get(wanted.pop())
        if node is not None and node.name not in found:
            found.add(node.name)
            wanted.extend(node.inputs)
    return found


def _node(data: bytes) -> Node:
    held: dict[int, list[str]] = {_INPUT: [], _OUTPUT: [], _NAME: [""]}
    for number, value in _fields(data):
        if number in held:
            held[number].append(value.decode())
    return Node(held[_NAME][-1], tuple(held[_INPUT]), tuple(held[_OUTPUT]))


def _fields(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Number and bytes of each field of a protobuf message that has bytes; the others are passed over."""
    at = 0
    while at < len(data):
        key, at = _varint(data, at)
        kind = key & 7
        if kind == _VARINT:
            _, at = _varint(data, at)
        elif kind in (_EIGHT, _FOUR):
            at += 8 if kind == _EIGHT else 4
        elif kind == _BYTES:
            size, at = _varint(data, at)
            if at + size > len(data):
                raise ValueError("a field goes beyond its message")
            yield key >> 3, data[at : at + size]
            at += size
        else:
            raise ValueError(f"wire type {kind}")


def _varint(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        if at >= len(data) or shift > 63:
            raise ValueError("a number does not end")
        byte = data[at]
        value |= (byte & 0x7F) << shift
        at, shift = at + 1, shift + 7
        if byte < 0x80:
            return value, at
