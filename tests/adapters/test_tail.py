"""The tail against whole models in transformers, PEFT, and its own graphs in onnxruntime."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM

from adapters.check import onnx_session
from adapters.compile import compile_kit
from adapters.compression import BLOCK, dequantise, quantise
from adapters.errors import RecipeRefused
from adapters.export import export
from adapters.frozen import FrozenFile, freeze, round_states
from adapters.graphs import infer_graph, train_graph
from adapters.head import HeadWeights
from adapters.plan import make_plan
from adapters.ports import Constant, Graph, Port
from adapters.recipe import Recipe
from adapters.targets.tail import ALPHA
from cloud_service.backbones.block_weights import block_weights
from cloud_service.backbones.taps import TapReader
from cloud_service.errors import BackboneRefused
from tests.adapters.samples import tiny_facts
from tests.tiny import LAYERS, VOCABULARY, tiny_folder

FAMILIES = ("llama", "qwen2", "qwen3", "gpt2")
RANK = 4
TAIL = Recipe(
    name="tiny-tail",
    target="tail",
    taps=(),
    blocks=2,
    width=RANK,
    dropout=0.0,
    decay=0.0,
    loss="full",
)
TOKENS = 11


class Whole:
    """A tiny model, and what goes in and out of its last ``blocks`` blocks for some text."""

    def __init__(self, family, folder):
        self.folder = tiny_folder(family, folder)
        self.model = AutoModelForCausalLM.from_pretrained(self.folder, dtype=torch.float32).eval()
        self.weights = block_weights(self.folder)
        self.ids = torch.arange(TOKENS) * 37 % VOCABULARY
        self.facts = replace(tiny_facts(layers=LAYERS), vocabulary=VOCABULARY, family=family)
        self.head = HeadWeights(self.model.get_output_embeddings().weight.detach(), None, None)
        base = self.model.base_model
        self.layers = base.h if family == "gpt2" else base.layers
        reader = TapReader(self.layers)
        with torch.no_grad(), reader.reading(range(LAYERS + 1), torch.arange(TOKENS), None) as seen:
            self.final = base(self.ids[None], use_cache=False).last_hidden_state[0]
            self.taps = dict(seen)

    def tail(self, blocks, **changed):
        return make_plan(replace(TAIL, blocks=blocks, **changed), self.facts, self.weights)


@pytest.fixture(scope="module")
def wholes(tmp_path_factory):
    made = {}

    def whole(family):
        if family not in made:
            made[family] = Whole(family, tmp_path_factory.mktemp("models") / family)
        return made[family]

    return whole


def causal(count):
    return torch.full((count, count), -1e9).triu(1)


def step_inputs(target, start, count, past):
    return {
        **target.frozen,
        "positions": torch.arange(start, start + count).float(),
        "reach": causal(count),
        "past": past,
    }


@pytest.mark.parametrize("blocks", [1, 3, LAYERS])
@pytest.mark.parametrize("family", FAMILIES)
def test_a_fresh_tail_gives_the_models_own_final_state(wholes, family, blocks):
    whole = wholes(family)
    plan, target = whole.tail(blocks)
    assert plan.layers == (LAYERS - blocks,)
    taps = whole.taps[plan.layers[0]][None]
    bound = target.bound(step_inputs(target, 0, TOKENS, torch.empty(0, *target.cache)))
    with torch.no_grad():
        found = bound(taps, taps[0], None)
    torch.testing.assert_close(found, whole.final, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("family", FAMILIES)
def test_token_by_token_gives_what_all_at_once_gives(wholes, family):
    whole = wholes(family)
    _, target = whole.tail(2)
    past, found = torch.empty(0, *target.cache), []
    for start, stop in ((0, 5), (5, 6), (6, TOKENS)):
        taps = whole.taps[LAYERS - 2][None, start:stop]
        bound = target.bound(step_inputs(target, start, stop - start, past))
        with torch.no_grad():
            state, fresh = bound.infer(taps, taps[0])
        past = torch.cat((past, fresh))
        found.append(state)
    torch.testing.assert_close(torch.cat(found), whole.final, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("family", ["gemma2", "phi", "opt", "mistral"])
def test_other_blocks_are_refused_with_a_reason(family, tmp_path):
    with pytest.raises(BackboneRefused, match="cannot be put on a device: "):
        block_weights(tiny_folder(family, tmp_path / family))


def random_lora(target, seed=3):
    generator = torch.Generator().manual_seed(seed)
    return {
        name: 0.1 * torch.randn(weight.shape, generator=generator)
        for name, weight in target.named_parameters()
    }


PROJECTIONS = {
    "query": "self_attn.q_proj",
    "key": "self_attn.k_proj",
    "value": "self_attn.v_proj",
    "output": "self_attn.o_proj",
    "gate": "mlp.gate_proj",
    "up": "mlp.up_proj",
    "down": "mlp.down_proj",
}


def peft_gradients(whole, blocks, weights):
    """Loss of the next tokens and its gradient at every low-rank matrix, by PEFT and autograd."""
    config = LoraConfig(
        r=RANK,
        lora_alpha=ALPHA * RANK,
        target_modules=list({name.split(".")[1] for name in PROJECTIONS.values()}),
        layers_to_transform=list(range(LAYERS - blocks, LAYERS)),
    )
    model = AutoModelForCausalLM.from_pretrained(whole.folder, dtype=torch.float32)
    adapted = get_peft_model(model, config).eval()
    lora = {}
    for place in range(blocks):
        layer = adapted.base_model.model.model.layers[LAYERS - blocks + place]
        for name, path in PROJECTIONS.items():
            module = layer.get_submodule(path)
            for side, half in (("down", "lora_A"), ("up", "lora_B")):
                matrix = getattr(module, half)["default"].weight
                matrix.data = weights[f"{name}_{side}"][place].T.contiguous()
                lora[f"{name}_{side}", place] = matrix
    logits = adapted(whole.ids[None]).logits[0, :-1]
    loss = torch.nn.functional.cross_entropy(logits, whole.ids[1:])
    loss.backward()
    found = {
        name: torch.stack([lora[name, place].grad.T for place in range(blocks)]) for name in weights
    }
    return loss.item(), found


def batch_of(whole, plan):
    rows, count = whole.head.rows, TOKENS - 1
    return {
        "taps": whole.taps[plan.layers[0]][None, :-1],
        "final": whole.final[:-1],
        "targets": whole.ids[1:],
        "scored": torch.ones(count),
        "positions": torch.arange(count).float(),
        "reach": causal(count),
        "rows": rows,
        "bias": torch.zeros(len(rows)),
    }


# peft asks transformers by an old name.
@pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing.*:FutureWarning")
@pytest.mark.parametrize("rule", ["backprop", "recompute"])
@pytest.mark.parametrize("blocks", [2, LAYERS])
def test_gradients_are_those_of_peft(wholes, rule, blocks):
    whole = wholes("qwen2")
    plan, target = whole.tail(blocks, rule=rule, clip=1e6)
    weights = random_lora(target)
    loss, expected = peft_gradients(whole, blocks, weights)
    feeds = dict(batch_of(whole, plan))
    graph = train_graph(plan, target)
    feeds |= {"rate": 0.0, "count": 1.0, "total": 10.0, "warmup": 0.0} | weights
    feeds = {name: torch.as_tensor(value) for name, value in feeds.items()}
    ports = [port.name for port in graph.inputs]
    zeros = {
        name: torch.zeros(p.shape)
        for name, p in zip(ports, graph.inputs, strict=True)
        if name not in feeds
    }
    values = [(feeds | zeros)[name] for name in ports]
    results = graph.run(*values, *(constant.value for constant in graph.constants))
    named = dict(zip((port.name for port in graph.outputs), results, strict=True))
    assert named["loss"].item() == pytest.approx(loss, rel=1e-5)
    for name, gradient in expected.items():
        # From zero, the first moment after a step is a tenth and less of the gradient.
        mine = named[f"next.first.{name}"] / (1 - plan.recipe.betas[0])
        torch.testing.assert_close(mine, gradient, rtol=1e-3, atol=1e-5)


@pytest.fixture(scope="module")
def kits(wholes, tmp_path_factory):
    made = {}

    def kit(**changed):
        key = tuple(sorted(changed.items()))
        if key not in made:
            whole, recipe = wholes("llama"), replace(TAIL, **changed)
            folder = tmp_path_factory.mktemp("kits") / "kit"
            manifest = compile_kit(
                recipe,
                whole.facts,
                whole.head,
                folder,
                lambda _: None,
                blocks=whole.weights,
                texts=lambda layer: whole.taps[layer][None],
            )
            made[key] = (folder, manifest)
        return made[key]

    return kit


def test_the_exported_tail_gives_the_models_own_final_state(wholes, tmp_path):
    whole = wholes("llama")
    plan, target = whole.tail(2)
    graph = infer_graph(plan, target)
    model = export(graph)
    freeze(model, graph.constants, FrozenFile(tmp_path))
    (tmp_path / graph.name).write_bytes(model.SerializeToString())
    session = onnx_session(tmp_path / graph.name)
    weights = {name: weight.detach().numpy() for name, weight in target.named_parameters()}
    past, found = np.empty((0, *target.cache), np.float32), []
    for start, stop in ((0, 7), (7, 8), (8, TOKENS)):
        feeds = {
            "taps": whole.taps[LAYERS - 2][None, start:stop].numpy(),
            "positions": np.arange(start, stop, dtype=np.float32),
            "reach": causal(stop - start).numpy(),
            "past": past,
        }
        state, fresh = session.run(["state", "fresh"], feeds | weights)
        past = np.concatenate((past, fresh))
        found.append(state)
    np.testing.assert_allclose(np.concatenate(found), whole.final, rtol=1e-3, atol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("rule", ["backprop", "recompute"])
@pytest.mark.parametrize("compression", ["none", "int8", "int4", "luc"])
def test_every_compression_compiles_and_is_what_torch_computes(kits, rule, compression):
    _folder, manifest = kits(rule=rule, compression=compression)
    assert set(manifest.files) >= {"frozen.bin", "train.onnx", "infer.onnx"}
    assert manifest.sequential
    assert manifest.cache == (2, 2, 2, 16)


def test_without_blocks_a_tail_is_refused():
    with pytest.raises(RecipeRefused, match="blocks"):
        make_plan(TAIL, tiny_facts())


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("taps", (0.5,)),
        ("rule", "pepita"),
        ("dropout", 0.1),
        ("blocks", 0),
        ("compression", "int2"),
    ],
)
def test_what_no_tail_can_be_made_of_is_refused(field, value):
    with pytest.raises(RecipeRefused, match=field):
        replace(TAIL, **{field: value})


@pytest.mark.parametrize("bits", [4, 8])
@pytest.mark.parametrize("inputs", [32, 64, 71])
def test_a_number_is_off_by_half_its_blocks_scale_at_most(bits, inputs):
    matrix = torch.randn(5, inputs, generator=torch.Generator().manual_seed(bits)) + 0.3
    matrix[2], matrix[3] = 0, matrix[3].abs()
    codes = quantise(matrix, bits)
    off = (dequantise(codes, inputs) - matrix).abs()
    scales = codes.scales.repeat_interleave(BLOCK, 1)[:, :inputs]
    # Where the code of zero was rounded, one end of the range is cut by half a step more.
    assert (off <= 1.01 * scales).all()
    assert off.mean() <= 0.3 * scales.mean()
    assert (dequantise(codes, inputs)[2] == 0).all()
    assert codes.codes.nbytes == 5 * len(codes.scales[0]) * BLOCK * bits // 8


@pytest.mark.parametrize(
    ("bits", "rounds", "allowed"), [(4, False, 1e-4), (8, False, 1e-4), (8, True, 2e-2)]
)
def test_the_runtime_multiplies_by_the_codes(bits, rounds, allowed, tmp_path):
    matrix = torch.randn(48, 71, generator=torch.Generator().manual_seed(0))
    codes = quantise(matrix, bits)
    constant = Constant("matrix", dequantise(codes, 71), codes)
    x = Port("x", ("T", 71))
    graph = Graph(
        "it.onnx", (x,), (Port("y", ("T", 48)),), lambda x, m: (torch.mm(x, m.t()),), (constant,)
    )
    model = export(graph)
    freeze(model, graph.constants, FrozenFile(tmp_path))
    if rounds:
        assert round_states(model)
    (tmp_path / "it.onnx").write_bytes(model.SerializeToString())
    assert [node.op_type for node in model.graph.node] == ["MatMulNBits"]
    states = torch.randn(9, 71, generator=torch.Generator().manual_seed(1))
    (found,) = onnx_session(tmp_path / "it.onnx").run(["y"], {"x": states.numpy()})
    expected = states @ constant.value.t()
    off = np.abs(found - expected.numpy()).max() / expected.abs().max()
    assert off <= allowed
    assert rounds == bool(off > 1e-4)
