"""The compiled graphs against torch: autograd on the plain formulas, torch's own optimizer."""

import json
import math
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch

from adapters.check import onnx_session
from adapters.graphs import infer_graph, train_graph
from tests.adapters import reference

GRAPHS = ["infer.onnx", "train.onnx"]


def random_batch(kit, tokens, rows, outside, generator):
    """What the device feeds, for the head's first ``rows`` rows as the shortlist."""
    head = kit.head.rows
    bias = torch.zeros(len(head)) if kit.head.bias is None else kit.head.bias

    def normal(*shape):
        return torch.randn(shape, generator=generator)

    batch = {
        "taps": 3 * normal(len(kit.plan.layers), tokens, kit.plan.hidden),
        "final": normal(tokens, kit.plan.hidden),
        "targets": torch.randint(0, rows, (tokens,), generator=generator),
        "scored": (torch.arange(tokens) % 4 != 3).float(),
        "rows": head[:rows],
        "bias": bias[:rows],
    }
    if kit.plan.loss == "shortlist":
        base = reference.logits(batch["final"], head, bias, kit.plan.softcap)
        batch["rest"] = base[:, rows:].logsumexp(1)
        batch["outside"], batch["outside_bias"] = head[-outside:], bias[-outside:]
    if kit.plan.mask:
        places, width = kit.plan.mask
        kept = (torch.rand(places, tokens, width, generator=generator) > 0.1).float()
        batch["mask"] = kept / 0.9
    return batch


def shaken(kit):
    """Weights as they are in the middle of a training."""
    generator = torch.Generator().manual_seed(7)
    return {
        name: weight.detach() + 0.05 * torch.randn(weight.shape, generator=generator)
        for name, weight in kit.target.named_parameters()
    }


def reference_loss(kit, weights, batch):
    target = reference.TARGETS[kit.recipe.target]
    state = target(weights, batch["taps"], batch["final"], batch.get("mask"))
    return reference.LOSSES[kit.plan.loss](state, batch, kit.plan.softcap)


class Device:
    """Feeds the training graph as a device does: what comes out goes in again."""

    def __init__(self, kit, weights):
        self.session = onnx_session(kit.folder / "train.onnx")
        self.state = {name: weight.numpy() for name, weight in weights.items()}
        for moment in ("first", "second"):
            self.state |= {f"{moment}.{name}": np.zeros_like(weights[name]) for name in weights}

    def step(self, batch, count, *, rate=1e-2, total=20, warmup=4):
        scalars = {"rate": rate, "count": count, "total": total, "warmup": warmup}
        feeds = {name: tensor.numpy() for name, tensor in batch.items()}
        feeds |= {name: np.array(value, np.float32) for name, value in scalars.items()}
        names = [output.name for output in self.session.get_outputs()]
        results = dict(zip(names, self.session.run(names, feeds | self.state), strict=True))
        self.state = {name: results[f"next.{name}"] for name in self.state}
        return results["loss"], results["norm"]


@pytest.mark.parametrize("tokens", [1, 2, 9])
def test_infer_is_the_target(kit, tokens):
    weights = shaken(kit)
    batch = random_batch(kit, tokens, 10, 5, torch.Generator().manual_seed(tokens))
    feeds = {name: batch[name].numpy() for name in ("taps", "final")}
    feeds |= {name: weight.numpy() for name, weight in weights.items()}
    (state,) = onnx_session(kit.folder / "infer.onnx").run(["state"], feeds)
    target = reference.TARGETS[kit.recipe.target]
    expected = target(weights, batch["taps"], batch["final"], None)
    np.testing.assert_allclose(state, expected, rtol=1e-4, atol=1e-4)


def test_a_fresh_ladder_s_graph_returns_the_final_state_bit_by_bit(ladder_kit):
    batch = random_batch(ladder_kit, 6, 10, 5, torch.Generator().manual_seed(0))
    feeds = {name: batch[name].numpy() for name in ("taps", "final")}
    feeds |= {n: w.detach().numpy() for n, w in ladder_kit.target.named_parameters()}
    (state,) = onnx_session(ladder_kit.folder / "infer.onnx").run(["state"], feeds)
    assert state.tobytes() == feeds["final"].tobytes()


@pytest.mark.parametrize(("tokens", "rows", "outside"), [(1, 2, 1), (5, 40, 3), (17, 120, 60)])
def test_one_step_s_loss_norm_and_gradients_are_autograd_s(kit, tokens, rows, outside):
    weights = shaken(kit)
    batch = random_batch(kit, tokens, rows, outside, torch.Generator().manual_seed(1))
    leaves = {name: weight.clone().requires_grad_() for name, weight in weights.items()}
    expected = reference_loss(kit, leaves, batch)
    expected.backward()
    norm = torch.nn.utils.clip_grad_norm_(leaves.values(), kit.recipe.clip)
    device = Device(kit, weights)
    loss, our_norm = device.step(batch, 1)
    assert loss.item() == pytest.approx(expected.item(), rel=1e-4)
    assert our_norm.item() == pytest.approx(norm.item(), rel=1e-4)
    for name, leaf in leaves.items():
        # Moments began at zero: the first one is a tenth of the clipped gradient.
        gradient = device.state[f"first.{name}"] / (1 - kit.recipe.betas[0])
        size = leaf.grad.abs().max().item()
        np.testing.assert_allclose(gradient, leaf.grad, rtol=0, atol=1e-3 * size)


@pytest.mark.parametrize("fresh", [True, False])
def test_twenty_steps_are_torch_s(kit, fresh):
    weights = shaken(kit)
    if fresh:
        weights = {name: w.detach().clone() for name, w in kit.target.named_parameters()}
    leaves = {name: weight.clone().requires_grad_() for name, weight in weights.items()}
    undecayed = kit.target.undecayed
    optimizer = torch.optim.AdamW(
        [
            {
                "params": [leaf for name, leaf in leaves.items() if name not in undecayed],
                "weight_decay": kit.recipe.decay,
            },
            {"params": [leaves[name] for name in undecayed], "weight_decay": 0.0},
        ],
        lr=1e-2,
        betas=kit.recipe.betas,
    )

    def rate(done):
        """Up in four steps, then half a turn of the cosine down to a tenth."""
        return min((done + 1) / 4, 0.55 + 0.45 * math.cos(math.pi * max(0, done - 3) / 16))

    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, rate)
    device = Device(kit, weights)
    generator = torch.Generator().manual_seed(2)
    for count in range(1, 21):
        batch = random_batch(kit, 20 + count % 3, 100 + count, 30 + count, generator)
        loss, _ = device.step(batch, count)
        optimizer.zero_grad()
        expected = reference_loss(kit, leaves, batch)
        expected.backward()
        torch.nn.utils.clip_grad_norm_(leaves.values(), kit.recipe.clip)
        optimizer.step()
        schedule.step()
        assert loss.item() == pytest.approx(expected.item(), rel=1e-3)
    for name, leaf in leaves.items():
        way = (leaf.detach() - weights[name]).norm().item()
        apart = np.linalg.norm(device.state[name] - leaf.detach().numpy())
        assert apart < 1e-2 * way, name


def test_twenty_steps_on_one_text_learn_it(kit):
    batch = random_batch(kit, 30, 120, 40, torch.Generator().manual_seed(3))
    device = Device(kit, {n: w.detach() for n, w in kit.target.named_parameters()})
    losses = [device.step(batch, count, rate=3e-2)[0] for count in range(1, 21)]
    assert losses[-1] < 0.8 * losses[0]


@pytest.mark.parametrize("name", GRAPHS)
def test_the_graph_s_ports_are_as_agreed(kit, name):
    made = infer_graph if name == "infer.onnx" else train_graph
    graph = made(kit.plan, kit.target)
    model = onnx.load(kit.folder / name).graph
    for ports, values in ((graph.inputs, model.input), (graph.outputs, model.output)):
        shapes = {
            value.name: tuple(d.dim_param or d.dim_value for d in value.type.tensor_type.shape.dim)
            for value in values
        }
        assert shapes == {port.name: port.shape for port in ports}


def test_the_names_of_the_training_ports_never_change(ladder_kit):
    graph = train_graph(ladder_kit.plan, ladder_kit.target)
    names = [port.name for port in graph.inputs]
    weights = [weight.name for weight in ladder_kit.manifest.weights]
    batch = "taps final targets scored rest outside outside_bias rows bias mask".split()
    moments = [f"{moment}.{name}" for moment in ("first", "second") for name in weights]
    assert names == [*batch, "rate", "count", "total", "warmup", *weights, *moments]
    outputs = [port.name for port in graph.outputs]
    assert outputs == ["loss", "norm", *(f"next.{name}" for name in [*weights, *moments])]


@pytest.mark.parametrize("name", GRAPHS)
def test_the_graph_is_plain_onnx(kit, name):
    model = onnx.load(kit.folder / name)
    assert {node.domain for node in model.graph.node} == {""}
    assert [(entry.domain, entry.version) for entry in model.opset_import] == [("", 20)]
    assert model.ir_version <= 10
    assert not model.functions


@pytest.mark.parametrize("name", GRAPHS)
def test_the_graph_does_not_tell_where_it_was_compiled(kit, name):
    data = (kit.folder / name).read_bytes()
    assert b".py" not in data
    assert b"stack_trace" not in data


def test_the_rows_of_the_shortlist_are_not_copied(kit):
    model = onnx.load(kit.folder / "train.onnx").graph
    moved = {node.input[0] for node in model.node if node.op_type == "Transpose"}
    assert not moved & {"rows", "outside"}


def test_the_logits_are_read_before_their_softmax_overwrites_them(kit, tmp_path):
    """Or the largest array of the step would be there twice."""
    options = onnxruntime.SessionOptions()
    options.enable_profiling = True
    options.profile_file_prefix = str(tmp_path / "profile")
    session = onnxruntime.InferenceSession(kit.folder / "train.onnx", options)
    batch = random_batch(kit, 4, 100, 20, torch.Generator().manual_seed(0))
    device = Device(kit, shaken(kit))
    device.session = session
    device.step(batch, 1)
    events = json.loads(Path(session.end_profiling()).read_text(encoding="utf-8"))
    ran = [e["name"].removesuffix("_kernel_time") for e in events if e.get("cat") == "Node"]
    model = onnx.load(kit.folder / "train.onnx").graph
    readers = {node.input[0]: node for node in model.node if node.op_type == "ReduceMax"}
    softmaxes = [node for node in model.node if node.op_type == "Softmax"]
    assert len(softmaxes) == (3 if kit.plan.loss == "shortlist" else 1)
    for softmax in softmaxes:
        assert ran.index(readers[softmax.input[0]].name) < ran.index(softmax.name)
