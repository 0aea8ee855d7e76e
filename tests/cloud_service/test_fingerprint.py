import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoConfig, AutoModelForCausalLM

from cloud_service.backbones.fingerprint import architecture, fingerprint
from cloud_service.backbones.loading import load_model

GOLDEN = "88944ceabe66cab7a07a1da5e6ca57aa3249e5ff1c9c265e8efdbe820e7de7c2"


@pytest.fixture
def model(folder_of):
    return load_model(folder_of("llama"), "f32")


def test_it_does_not_depend_on_how_the_weights_are_cut_into_files(model, tmp_path):
    model.save_pretrained(tmp_path, max_shard_size="50KB")
    assert len(list(tmp_path.glob("*.safetensors"))) > 1
    assert fingerprint(load_model(tmp_path, "f32")) == fingerprint(model)


def test_it_does_not_depend_on_a_file_that_repeats_tied_weights(model, tmp_path):
    model.save_pretrained(tmp_path)
    weights = load_file(tmp_path / "model.safetensors")
    assert "lm_head.weight" not in weights
    weights["lm_head.weight"] = weights["model.embed_tokens.weight"].clone()
    save_file(weights, tmp_path / "model.safetensors", metadata={"format": "pt"})
    assert fingerprint(load_model(tmp_path, "f32")) == fingerprint(model)


def test_it_does_not_depend_on_the_dtype_that_holds_the_same_numbers(model, tmp_path):
    rounded = model.to(torch.bfloat16)
    rounded.save_pretrained(tmp_path)
    assert fingerprint(load_model(tmp_path, "f32")) == fingerprint(rounded)


def test_it_depends_on_every_weight(model):
    before = fingerprint(model)
    with torch.no_grad():
        model.model.norm.weight[0] += 1e-3
    assert fingerprint(model) != before


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("rms_norm_eps", 1e-3),
        ("num_key_value_heads", 4),
        ("rope_parameters", {"rope_theta": 5.0, "rope_type": "default"}),
    ],
)
def test_it_depends_on_the_architecture(model, name, value):
    before = fingerprint(model)
    setattr(model.config, name, value)
    assert fingerprint(model) != before


def test_it_does_not_depend_on_settings_of_training_or_of_generation(model):
    before = fingerprint(model)
    model.config.attention_dropout, model.config.eos_token_id = 0.5, 7
    assert fingerprint(model) == before


def test_a_field_that_is_not_set_does_not_count(model):
    assert "attn_logit_softcapping" not in architecture(model.config)
    assert architecture(model.config)["model_type"] == "llama"


def test_released_fingerprints_never_change():
    config = AutoConfig.for_model(
        "llama",
        hidden_size=8,
        intermediate_size=12,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=4,
        vocab_size=16,
        max_position_embeddings=32,
    )
    model = AutoModelForCausalLM.from_config(config)
    with torch.no_grad():
        for number, (_, weight) in enumerate(sorted(model.named_parameters())):
            weight.copy_(torch.arange(weight.numel()).view(weight.shape) % 7 + number)
    assert fingerprint(model) == GOLDEN
