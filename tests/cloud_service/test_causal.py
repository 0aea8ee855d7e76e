import numpy as np
import pytest
import torch
from torch import nn
from transformers import LlamaConfig

from cloud_service.backbones import head as head_module
from cloud_service.backbones.causal import CausalBackbone
from cloud_service.backbones.families import family_named, layers_of
from cloud_service.backbones.head import Head
from cloud_service.backbones.kv import windows_of
from cloud_service.backbones.loading import load_model
from cloud_service.backbones.pages import PAGE, Cache
from cloud_service.errors import BackboneRefused
from tests.cloud_service.reading import KV_BYTES, alone, read
from tests.cloud_service.running import EVERYTHING, FINAL, ids_of


@pytest.fixture
def own_llama(pulled_of):
    """A model that a test may break."""
    pulled = pulled_of("llama")
    return CausalBackbone(
        load_model(pulled.folder, "f32"), pulled.record.facts(), kv_bytes=KV_BYTES
    )


def fail(*_):
    raise RuntimeError("out of memory")


def test_a_read_that_fails_halfway_leaves_the_cache_as_it_was(own_llama):
    ids = ids_of(12)
    cache, fresh = Cache(own_llama.pool), Cache(own_llama.pool)
    for one in (cache, fresh):
        read(own_llama, one, ids[:8], 1, FINAL)
    broken = own_llama.model.base_model.layers[2].register_forward_hook(fail)
    with pytest.raises(RuntimeError):
        read(own_llama, cache, ids[8:], 1, FINAL)
    broken.remove()
    assert (cache.position, cache.capacity) == (8, PAGE)
    np.testing.assert_array_equal(
        read(own_llama, cache, ids[8:], 4, FINAL).final,
        read(own_llama, fresh, ids[8:], 4, FINAL).final,
    )


def test_taps_of_one_read_are_not_kept_for_the_next(llama):
    first = alone(llama, ids_of(6), 6, EVERYTHING)
    kept = first.taps.copy()
    alone(llama, ids_of(6, seed=1), 6, EVERYTHING)
    np.testing.assert_array_equal(first.taps, kept)


def test_a_backbone_in_bf16_answers_in_float32_near_the_exact_states(pulled_of, llama):
    pulled = pulled_of("llama")
    rounded = CausalBackbone(
        load_model(pulled.folder, "bf16"), pulled.record.facts("bf16"), kv_bytes=KV_BYTES
    )
    ids = ids_of(20)
    exact, states = alone(llama, ids, 20, EVERYTHING), alone(rounded, ids, 20, EVERYTHING)
    assert states.final.dtype == np.float32
    assert np.abs(states.final - exact.final).max() < 0.1
    assert 0 < np.abs(states.log_z - exact.log_z).max() < 0.1


@pytest.mark.parametrize("softcap", [None, 5.0])
@pytest.mark.parametrize("bias", [True, False])
def test_the_head_in_pieces_is_the_head_in_one(monkeypatch, softcap, bias):
    monkeypatch.setattr(head_module, "LOGIT_BYTES", 4 * 50 * 7)  # seven rows at a time
    torch.manual_seed(0)
    projection, final = nn.Linear(16, 50, bias=bias), torch.randn(24, 16)
    with torch.no_grad():
        head = Head(projection, softcap)
        log_z, candidates = head.read(final, True, 3)
        logits = head.logits(final)
        expected = projection(final) if softcap is None else 5 * torch.tanh(projection(final) / 5)
    torch.testing.assert_close(logits, expected)
    np.testing.assert_allclose(log_z, logits.logsumexp(-1), rtol=1e-5)
    np.testing.assert_allclose(candidates.logits, logits.topk(3).values, rtol=1e-5)
    np.testing.assert_array_equal(candidates.ids, logits.topk(3).indices)


@pytest.mark.parametrize("vocabulary", [50, 64, 500])
def test_log_z_of_a_rounded_head_is_not_rounded(vocabulary):
    torch.manual_seed(0)
    projection = nn.Linear(16, vocabulary).to(torch.bfloat16)
    with torch.no_grad():
        projection.weight *= 16
    final = torch.randn(40, 16).to(torch.bfloat16)
    exact = final.float() @ projection.weight.detach().float().T + projection.bias.detach().float()
    with torch.no_grad():
        log_z, candidates = Head(projection, None).read(final, True, 1)
        rounded = projection(final).float().logsumexp(-1)
    errors = np.abs(log_z - exact.logsumexp(-1).numpy())
    assert errors.max() < 0.01
    assert errors.mean() < 0.2 * (rounded - exact.logsumexp(-1)).abs().mean()
    np.testing.assert_allclose(candidates.logits[:, 0], exact.amax(-1), rtol=1e-5)
    np.testing.assert_array_equal(candidates.ids[:, 0], exact.argmax(-1))


def test_a_layer_that_keeps_something_else_than_keys_and_values_is_refused():
    strange = LlamaConfig(layer_types=["linear_attention"] * 32)
    with pytest.raises(BackboneRefused, match="cannot be cropped"):
        windows_of(strange)


def test_a_family_that_is_not_in_the_table_is_refused_with_those_that_are():
    with pytest.raises(BackboneRefused, match="mamba") as refused:
        family_named("mamba")
    assert "llama" in refused.value.hint


def test_a_model_whose_layers_are_no_list_is_refused():
    model = nn.Module()
    model.layers = nn.Linear(2, 2)
    with pytest.raises(BackboneRefused, match="no list of layers"):
        layers_of(model, family_named("llama"))


def test_a_model_that_does_more_to_its_logits_is_refused(own_llama):
    own_llama.try_out()
    forward = own_llama.model.forward

    def doubled(*args, **kwargs):
        output = forward(*args, **kwargs)
        output.logits *= 2
        return output

    own_llama.model.forward = doubled
    with pytest.raises(BackboneRefused, match="logits"):
        own_llama.try_out()


def test_a_model_without_a_plain_head_is_refused(own_llama):
    own_llama.model.lm_head = nn.Identity()
    with pytest.raises(BackboneRefused, match="plain projection"):
        CausalBackbone(own_llama.model, own_llama.facts, kv_bytes=KV_BYTES)
