"""Which part of a step each node belongs to."""

import json

import onnx
import pytest

from device_agent.hardware.parts import nodes_in, parts_of, shares
from tests.device_agent.teaching import teaching_kit


@pytest.fixture
def graph(tmp_path):
    return teaching_kit(tmp_path / "kit").path("train.onnx")


def test_nodes_are_read_as_onnx_reads_them(graph):
    nodes = list(nodes_in(graph.read_bytes()))
    expected = onnx.load(graph).graph.node
    assert [(list(one.inputs), list(one.outputs)) for one in nodes] == [
        (list(one.input), list(one.output)) for one in expected
    ]
    assert [one.name for one in nodes] == [one.name for one in expected]


def named(tmp_path, model):
    for place, node in enumerate(model.graph.node):
        node.name = f"n{place}"
    path = tmp_path / "graph.onnx"
    onnx.save(model, path)
    return path


def test_forward_is_what_the_loss_needs_and_the_optimizer_what_waits_for_the_norm(tmp_path, graph):
    model = onnx.load(graph)
    path = named(tmp_path, model)
    parts = parts_of(nodes_in(path.read_bytes()))
    by_output = {output: node for node in model.graph.node for output in node.output}
    assert parts[by_output["loss"].name] == "forward"
    assert parts[by_output["norm"].name] == "backward"
    assert parts[by_output["next.scale"].name] == "optimizer"
    # Only the loss's own extractor may say what it needs.
    alone = tmp_path / "loss.onnx"
    inputs = [one.name for one in model.graph.input]
    onnx.utils.extract_model(path, alone, inputs, ["loss"], check_model=False)
    forward = {node.name for node in onnx.load(alone).graph.node}
    assert {name for name, part in parts.items() if part == "forward"} == forward
    assert set(parts.values()) == {"forward", "backward", "optimizer"}


def event(name, duration, kind="Node"):
    return {"cat": kind, "name": f"{name}_kernel_time", "dur": duration}


def test_shares_are_of_the_nodes_own_times(tmp_path, graph):
    model = onnx.load(graph)
    path = named(tmp_path, model)
    by_output = {output: node.name for node in model.graph.node for output in node.output}
    profile = tmp_path / "profile.json"
    times = {"loss": 30, "norm": 50, "next.scale": 20}
    events = [event(by_output[output], time) for output, time in times.items()]
    events.append(event("session", 1000, kind="Session"))
    profile.write_text(json.dumps(events))
    found = shares(path, profile)
    assert found == pytest.approx({"forward": 0.3, "backward": 0.5, "optimizer": 0.2})


@pytest.mark.parametrize("events", [[], [event("somebody else's", 1)]])
def test_times_of_something_else_are_refused(tmp_path, graph, events):
    profile = tmp_path / "profile.json"
    profile.write_text(json.dumps(events))
    with pytest.raises(ValueError, match="node"):
        shares(graph, profile)


@pytest.mark.parametrize("data", [b"\x3a", b"\x3a\x05ab", b"\xff" * 12, b"\x0b"])
def test_what_is_no_model_is_refused(data):
    with pytest.raises(ValueError, match=r"number|field|wire"):
        list(nodes_in(data))
