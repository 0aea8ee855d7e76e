"""The encoder against transformers, its steps against autograd and torch's own optimizer."""

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from transformers import BertConfig, BertModel, DistilBertConfig, DistilBertModel

from adapters.check import onnx_session
from adapters.encoder.convert import shape_of, weights_of
from adapters.encoder.graphs import BETAS, CLIP, DECAY, infer_graph, train_graph
from adapters.encoder.network import EncoderShape, loss_of, scores, undecayed
from adapters.encoder.selection import biases, chosen, drawn, everything, far, node_scores
from adapters.export import export

SHAPE = EncoderShape(1, 24, 40, 3, 50, 17, 2)
STEPS, RATE = 3, 1e-2

SELECTIONS = {
    "far": far(SHAPE, 0.1),
    "all nodes": far(SHAPE, 1.0),
    "full": everything(SHAPE),
    "biases": biases(SHAPE),
}


def random_weights(seed=0):
    generator = torch.Generator().manual_seed(seed)
    found = {}
    for name, size in SHAPE.weights().items():
        drawn_ = 0.2 * torch.randn(size, generator=generator)
        found[name] = 1 + drawn_ if name.endswith("_norm") else drawn_
    return found


def batch():
    """Three texts of six, four and two tokens."""
    ids = torch.tensor([[1, 2, 3, 4, 5, 2], [1, 6, 3, 7, 0, 0], [4, 4, 0, 0, 0, 0]])
    seen = (torch.arange(6) < torch.tensor([[6], [4], [2]])).float()
    distinct = torch.tensor([0, 9, 11, 13, 30, 31, 40, 49])
    labels = torch.tensor([0, 1, 1])
    return {"ids": ids, "seen": seen, "distinct": distinct, "order": torch.arange(6), "labels": labels}  # fmt: skip


def as_read(weights, given):
    return {
        **weights,
        "words": weights["words"][given["distinct"]],
        "places": weights["places"][given["order"]],
    }


def clock(count):
    return {"rate": RATE, "count": count, "total": 1e9, "warmup": 0}


def by_autograd(selection, rows):
    """The whole network's gradient, all that is frozen set to zero or left out of the optimizer."""
    weights = {n: w.clone().requires_grad_() for n, w in random_weights().items()}
    learning = [n for n in weights if n in selection.whole or n.removesuffix("_bias") in rows]
    plain = undecayed(weights)
    groups = [
        {"params": [weights[n] for n in learning if (n in plain) == bare], "weight_decay": decay}
        for bare, decay in ((True, 0.0), (False, DECAY))
    ]
    optimizer = torch.optim.AdamW(groups, lr=RATE, betas=BETAS)
    given, losses = batch(), []
    for _ in range(STEPS):
        before = {name: weight.detach().clone() for name, weight in weights.items()}
        optimizer.zero_grad()
        loss = loss_of(
            scores(SHAPE, as_read(weights, given), {}, given["ids"], given["seen"]), given["labels"]
        )
        loss.backward()
        frozen = {n: torch.ones(len(weights[n]), dtype=torch.bool) for n in learning}
        for name in learning:
            own = rows.get(name.removesuffix("_bias"))
            touched = {"words": given["distinct"], "places": given["order"]}.get(name, own)
            frozen[name][slice(None) if touched is None else touched] = False
            weights[name].grad[frozen[name]] = 0
        torch.nn.utils.clip_grad_norm_([weights[n] for n in learning], CLIP)
        optimizer.step()
        with torch.no_grad():  # decay reaches rows that have no gradient
            for name in learning:
                weights[name][frozen[name]] = before[name][frozen[name]]
        losses.append(loss.item())
    return {name: weight.detach() for name, weight in weights.items()}, losses


def initial_state(session, rows):
    known = random_weights()
    state = {}
    for port in session.get_inputs():
        if port.name in known:
            state[port.name] = known[port.name].numpy()
        elif port.name.startswith(("first.", "second.")):
            state[port.name] = np.zeros(port.shape, np.float32)
        elif port.name.startswith("rows."):
            state[port.name] = rows[port.name.removeprefix("rows.")].numpy()
    return state


def by_copying(session, rows):
    state, losses = initial_state(session, rows), []
    given = {name: tensor.numpy() for name, tensor in batch().items()}
    names = [port.name for port in session.get_outputs()]
    for count in range(1, STEPS + 1):
        now = {name: np.array(value, np.float32) for name, value in clock(count).items()}
        results = dict(zip(names, session.run(names, {**given, **now, **state}), strict=True))
        losses.append(float(results["loss"]))
        state |= {n.removeprefix("next."): a for n, a in results.items() if n.startswith("next.")}
    return state, losses


def in_place(session, rows):
    held = {n: np.array(a, order="C") for n, a in initial_state(session, rows).items()}
    held |= {name: tensor.numpy() for name, tensor in batch().items()}
    held |= {name: np.array(value, np.float32) for name, value in clock(0).items()}
    held |= {"loss": np.zeros((), np.float32), "norm": np.zeros((), np.float32)}
    values = {n: onnxruntime.OrtValue.ortvalue_from_numpy(a) for n, a in held.items()}
    binding = session.io_binding()
    for port in session.get_inputs():
        binding.bind_ortvalue_input(port.name, values[port.name])
    for port in session.get_outputs():
        binding.bind_ortvalue_output(port.name, values[port.name.removeprefix("next.")])
    for count in range(1, STEPS + 1):
        held["count"][...] = count
        session.run_with_iobinding(binding)
    return held


def rows_for(selection):
    return drawn(selection, SHAPE, seed=3)


@pytest.fixture(scope="module")
def graph(tmp_path_factory):
    """A step's graph by the name of its selection, exported when it is first asked for."""
    folder, made = tmp_path_factory.mktemp("graphs"), {}

    def of(name):
        if name not in made:
            made[name] = folder / f"{name}.onnx"
            model = export(train_graph(SHAPE, SELECTIONS[name]))
            made[name].write_bytes(model.SerializeToString())
        return made[name]

    return of


@pytest.mark.parametrize("kind", ["bert", "distilbert"])
def test_the_mean_state_is_that_of_transformers(kind):
    torch.manual_seed(0)
    if kind == "bert":
        sizes = {"num_hidden_layers": 2, "hidden_size": 24, "intermediate_size": 40}
        config = BertConfig(**sizes, num_attention_heads=3, vocab_size=50)
        model = BertModel(config, add_pooling_layer=False).eval()
    else:
        config = DistilBertConfig(n_layers=2, dim=24, hidden_dim=40, n_heads=3, vocab_size=50)
        model = DistilBertModel(config).eval()
    shape = shape_of(config.to_dict(), classes=24)
    weights = weights_of(shape, model.state_dict(), seed=0)
    assert {name: tuple(weight.shape) for name, weight in weights.items()} == shape.weights()
    weights["head"], given = torch.eye(24), batch()
    with torch.no_grad():
        ours = scores(shape, as_read(weights, given), {}, given["ids"], given["seen"])
        whole = given["distinct"][given["ids"]]
        theirs = model(whole, attention_mask=given["seen"]).last_hidden_state
    expected = (theirs * given["seen"][..., None]).sum(1) / given["seen"].sum(1, keepdim=True)
    assert torch.allclose(ours, expected, atol=1e-5)


@pytest.mark.parametrize(
    ("config", "message"),
    [({"model_type": "gpt2"}, "bert or distilbert"), ({"model_type": "bert", "hidden_act": "relu"}, "gelu")],
)  # fmt: skip
def test_another_model_is_refused_by_name(config, message):
    with pytest.raises(ValueError, match=message):
        shape_of(config, classes=2)


NAMES = ["far", *(pytest.param(n, marks=pytest.mark.slow) for n in SELECTIONS if n != "far")]


@pytest.mark.parametrize("name", NAMES)
def test_steps_are_those_of_autograd_and_torch_s_optimizer(graph, name):
    selection = SELECTIONS[name]
    rows = rows_for(selection)
    state, losses = by_copying(onnx_session(graph(name)), rows)
    expected, their_losses = by_autograd(selection, rows)
    assert losses == pytest.approx(their_losses, rel=1e-4)
    moved = random_weights()
    # No softmax sees a bias of all keys: its gradient is rounding alone.
    expected.pop("block0.key_bias")
    for weight, value in expected.items():
        ours = torch.from_numpy(state[weight])
        assert torch.allclose(ours, value, atol=2e-5), weight
        # What the reference leaves alone stays as it was to the last bit.
        still = value == moved[weight]
        assert torch.equal(ours[still], value[still]), weight


def test_learners_alone_have_moments_and_are_all_that_moves(graph):
    rows = rows_for(SELECTIONS["far"])
    state, _ = by_copying(onnx_session(graph("far")), rows)
    before = random_weights()
    for name, own in rows.items():
        assert state[f"first.{name}"].shape == (len(own), before[name].shape[1])
        assert state[f"second.{name}_bias"].shape == (len(own),)
        changed = (torch.from_numpy(state[name]) != before[name]).any(1)
        assert torch.equal(changed.nonzero().flatten(), own)


def test_no_array_of_a_step_has_the_size_of_a_frozen_linear(graph):
    """Neither a gradient nor anything the optimizer makes: only what is written back in place."""
    model = onnx.shape_inference.infer_shapes(onnx.load(graph("far")))
    large = {(SHAPE.inner, SHAPE.hidden), (SHAPE.hidden, SHAPE.inner)}
    known = [v for v in model.graph.value_info if v.type.tensor_type.HasField("shape")]
    shapes = {v.name: tuple(d.dim_value for d in v.type.tensor_type.shape.dim) for v in known}
    assert len(shapes) > len(model.graph.node) / 2
    assert [name for name, shape in shapes.items() if shape in large] == []
    makers = {out: node.op_type for node in model.graph.node for out in node.output}
    for name in SHAPE.feed_forward():
        assert makers[f"next.{name}"] == "ScatterND"


def test_writing_in_place_gives_the_same_bits_as_copying(graph):
    rows = rows_for(SELECTIONS["far"])
    session = onnx_session(graph("far"))
    copied, _ = by_copying(session, rows)
    held = in_place(session, rows)
    for name, value in copied.items():
        assert np.array_equal(held[name], value), name


def test_what_has_been_trained_is_inferred_as_any_weights(graph, tmp_path):
    """There is nothing to merge: learners that are put back by hand give the same bits."""
    rows = rows_for(SELECTIONS["far"])
    state, _ = by_copying(onnx_session(graph("far")), rows)
    path = tmp_path / "infer.onnx"
    path.write_bytes(export(infer_graph(SHAPE)).SerializeToString())
    session = onnx_session(path)
    trained = {name: state[name] for name in SHAPE.weights()}
    merged = dict(trained)
    for name, own in rows.items():
        for part in (name, f"{name}_bias"):
            whole = random_weights()[part].numpy().copy()
            whole[own] = state[part][own]
            merged[part] = whole
    given = {n: t.numpy() for n, t in batch().items() if n != "labels"}
    found = [session.run(None, {**given, **weights})[0] for weights in (trained, merged)]
    assert np.array_equal(*found)
    tensors = {name: torch.from_numpy(value) for name, value in trained.items()}
    expected = scores(SHAPE, as_read(tensors, batch()), {}, batch()["ids"], batch()["seen"])
    assert np.allclose(found[0], expected, atol=1e-5)


def test_the_nodes_that_moved_most_are_chosen():
    before = random_weights()
    after = {name: weight.clone() for name, weight in before.items()}
    after["block0.up"][[7, 31, 12, 0]] += torch.tensor([[0.3], [-0.5], [0.1], [0.2]])
    after["block0.down"][:, 5] += torch.linspace(1, 2, SHAPE.hidden)
    found = chosen(SELECTIONS["far"], node_scores(SHAPE, before, after))
    assert found["block0.up"].tolist() == [0, 7, 12, 31]
    assert found["block0.down"].tolist() == [21, 22, 23]


def test_drawn_nodes_are_as_many_and_another_seed_s_are_others():
    first, second = (drawn(SELECTIONS["far"], SHAPE, seed) for seed in (0, 1))
    assert {name: len(set(rows.tolist())) for name, rows in first.items()} == SELECTIONS["far"].learners  # fmt: skip
    assert any(first[name].tolist() != second[name].tolist() for name in first)


@pytest.mark.parametrize("share", [0.0, 1.1, float("nan")])
def test_a_share_that_cannot_be_is_refused(share):
    with pytest.raises(ValueError, match="above 0 and at most 1"):
        far(SHAPE, share)
