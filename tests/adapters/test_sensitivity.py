"""Which blocks get more bits, against whole models in transformers."""

from dataclasses import replace

import pytest
import torch
from transformers import AutoModelForCausalLM

from adapters.compression import BLOCK, dequantise, quantise
from adapters.errors import RecipeRefused
from adapters.plan import make_plan
from adapters.recipe import Recipe
from adapters.sensitivity import FEW, MANY, bits_by_sensitivity, output_errors
from cloud_service.backbones.block_weights import block_weights
from tests.adapters.samples import tiny_facts
from tests.tiny import LAYERS, VOCABULARY, tiny_folder

TOKENS = 12
LUC = Recipe(
    name="luc",
    target="tail",
    taps=(),
    blocks=LAYERS,
    width=4,
    dropout=0.0,
    decay=0.0,
    compression="luc",
)
MATRICES = {
    "query": "self_attn.q_proj",
    "key": "self_attn.k_proj",
    "value": "self_attn.v_proj",
    "output": "self_attn.o_proj",
    "gate": "mlp.gate_proj",
    "up": "mlp.up_proj",
    "down": "mlp.down_proj",
}


def stored(matrix):
    return dequantise(quantise(matrix, FEW), matrix.shape[1])


@pytest.fixture
def model(tmp_path):
    folder = tiny_folder("llama", tmp_path / "llama")
    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()


@pytest.fixture
def texts():
    return torch.arange(3 * TOKENS).view(3, TOKENS) * 37 % VOCABULARY


def laid(model, folder, recipe=LUC, states=None):
    """The plan and the tail of a model as it is now."""
    model.save_pretrained(folder)
    facts = replace(tiny_facts(layers=LAYERS), vocabulary=VOCABULARY)
    return make_plan(recipe, facts, block_weights(folder), states)


def embedded(model, texts):
    return model.get_input_embeddings()(texts).detach()


@torch.no_grad()
def test_errors_are_those_of_the_whole_model_with_one_layer_in_few_bits(model, texts, tmp_path):
    states = embedded(model, texts)
    _, tail = laid(model, tmp_path / "it", replace(LUC, compression="none"))
    own = model.model(texts).last_hidden_state
    for layer, found in zip(model.model.layers, output_errors(tail, states), strict=True):
        kept = {name: layer.get_submodule(path).weight.clone() for name, path in MATRICES.items()}
        for path in MATRICES.values():
            weight = layer.get_submodule(path).weight
            weight.copy_(stored(weight))
        other = model.model(texts).last_hidden_state
        for name, path in MATRICES.items():
            layer.get_submodule(path).weight.copy_(kept[name])
        expected = (other - own).square().sum() / own.square().sum()
        assert found == pytest.approx(expected.item(), rel=1e-2)
        assert found > 0


@torch.no_grad()
def test_blocks_that_bear_few_bits_get_few_and_the_others_many(model, texts, tmp_path):
    for layer in model.model.layers[1:]:
        for path in MATRICES.values():
            weight = layer.get_submodule(path).weight
            # On a grid of 16 steps: 4 bits lose next to nothing of it.
            step = weight.abs().max() / 7
            weight.copy_((weight / step).round().clamp(-7, 7) * step)
            weight[:, ::BLOCK], weight[:, 1::BLOCK] = -7 * step, 8 * step
    states = embedded(model, texts)
    plan, tail = laid(model, tmp_path / "it", states=states)
    assert plan.bits == bits_by_sensitivity(tail, states)
    for place in range(LAYERS):
        expected = FEW if place else MANY
        assert {plan.bits[name] for name in tail.matrices(place)} == {expected}
    assert set(plan.bits) == {name for name, one in tail.frozen.items() if one.dim() == 2}


def test_without_text_such_a_compression_is_refused(model, tmp_path):
    with pytest.raises(RecipeRefused, match="public states"):
        laid(model, tmp_path / "it")
