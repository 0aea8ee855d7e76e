"""What must not be served is refused before anything of it is kept."""

import json

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoConfig, AutoModelForCausalLM

from cloud_service.backbones.head_weights import head_weights
from cloud_service.backbones.loading import load_model
from cloud_service.backbones.tokens import end_of_turn, load_tokenizer, stop_tokens
from cloud_service.errors import BackboneRefused
from tests.tiny import FAMILIES, tiny_folder, tiny_tokenizer


@pytest.fixture
def folder(tmp_path):
    return tiny_folder("llama", tmp_path / "llama")


def change_config(folder, **fields):
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | fields))


def test_pickled_weights_are_refused_unread(folder):
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    with pytest.raises(BackboneRefused, match=r"pickled \(pytorch_model.bin\)"):
        load_model(folder, "f32")


def test_pickles_beside_safetensors_are_not_looked_at(folder):
    (folder / "pytorch_model.bin").write_bytes(b"not a pickle")
    load_model(folder, "f32")


def test_a_folder_without_weights_is_refused(folder):
    (folder / "model.safetensors").unlink()
    with pytest.raises(BackboneRefused, match="no safetensors"):
        load_model(folder, "f32")


def test_a_folder_without_a_model_is_refused(tmp_path):
    with pytest.raises(BackboneRefused, match="holds no model"):
        load_model(tmp_path, "f32")


def test_a_family_that_is_not_in_the_table_is_refused(folder):
    change_config(folder, model_type="bert")
    with pytest.raises(BackboneRefused, match="bert"):
        load_model(folder, "f32")


def test_a_quantised_model_is_refused(folder):
    change_config(folder, quantization_config={"quant_method": "gptq", "bits": 4})
    with pytest.raises(BackboneRefused, match="quantised"):
        load_model(folder, "f32")


def test_missing_weights_are_not_made_up(folder):
    weights = load_file(folder / "model.safetensors")
    del weights["model.norm.weight"]
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(BackboneRefused, match=r"model\.norm\.weight"):
        load_model(folder, "f32")


def test_broken_weights_are_refused(folder):
    (folder / "model.safetensors").write_bytes(b"\x08" + bytes(20))
    with pytest.raises(BackboneRefused, match="cannot be read"):
        load_model(folder, "f32")


def test_a_folder_without_a_tokenizer_is_refused(folder):
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (folder / name).unlink()
    with pytest.raises(BackboneRefused, match="tokenizer"):
        load_tokenizer(folder)


@pytest.mark.parametrize("family", FAMILIES)
def test_the_head_alone_is_the_head_of_the_model(family, folder_of):
    folder = folder_of(family)
    model = AutoModelForCausalLM.from_pretrained(folder)
    head, whole = head_weights(folder), model.get_output_embeddings()
    assert torch.equal(head.rows, whole.weight)
    assert (head.bias is None) == (whole.bias is None)
    if head.bias is not None:
        assert torch.equal(head.bias, whole.bias)
    assert head.softcap == getattr(model.config, "final_logit_softcapping", None)


def test_an_answer_ends_where_model_tokenizer_or_chat_template_say_so(folder):
    model, tokenizer = load_model(folder, "f32"), load_tokenizer(folder)
    assert stop_tokens(model, tokenizer, 512) == (2,)
    model.generation_config.eos_token_id = [0, 7, 100_000]
    assert stop_tokens(model, tokenizer, 512) == (0, 2, 7)


@pytest.mark.parametrize(
    ("template", "token"),
    [
        ("{% for m in messages %}<|im_start|>{{ m.content }}<|im_end|>\n{% endfor %}", 2),
        ("{% for m in messages %}{{ m.content }}\n<|endoftext|>{% endfor %}", 0),
        ("{% for m in messages %}{{ m.content }}\n{% endfor %}", None),
        ({"default": "{% for m in messages %}{{ m.content }}<|im_end|>{% endfor %}"}, 2),
        ("{{ raise_exception('only one turn') }}", None),
        (None, None),
    ],
)
def test_the_end_of_a_turn_is_read_from_the_chat_template(template, token):
    tokenizer = tiny_tokenizer()
    tokenizer.chat_template = template
    assert end_of_turn(tokenizer) == token


def test_a_model_that_projects_its_states_before_the_head_is_refused(tmp_path, pull_into):
    config = AutoConfig.for_model("opt", **FAMILIES["opt"] | {"word_embed_proj_dim": 32})
    AutoModelForCausalLM.from_config(config).save_pretrained(tmp_path / "opt")
    tiny_tokenizer().save_pretrained(tmp_path / "opt")
    with pytest.raises(BackboneRefused, match="32 wide, the layers make them 64 wide"):
        pull_into(tmp_path / "opt")
