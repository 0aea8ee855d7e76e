"""Which engine runs which backbone with which weights."""

import logging

import numpy as np
import pytest
import torch
from transformers import AutoConfig

from cloud_service.backbones import engines
from cloud_service.backbones.causal import CausalBackbone
from cloud_service.backbones.engines import Choice, choose, start
from cloud_service.backbones.lean import shape
from cloud_service.backbones.lean.engine import LeanBackbone
from cloud_service.backbones.lean.shape import obstacle
from cloud_service.errors import BadSetting
from tests import tiny
from tests.cloud_service.reading import KV_BYTES, alone
from tests.cloud_service.running import EVERYTHING, ids_of


@pytest.mark.parametrize("family", tiny.FAMILIES)
def test_the_lean_engine_runs_its_families_and_no_other(folder_of, family, caplog):
    caplog.set_level(logging.INFO)
    chosen = choose(folder_of(family), "auto", "f32")
    lean = family in shape.FAMILIES
    assert chosen == Choice("lean" if lean else "general", "f32")
    assert (f"the family {family} is not of the Llama shape" in caplog.text) == (not lean)


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"hidden_act": "gelu"}, "activation is gelu"),
        (
            {"rope_parameters": {"rope_type": "dynamic", "rope_theta": 1e4, "factor": 2.0}},
            "dynamic",
        ),
        ({"head_dim": 24}, "heads are 24 wide"),
        ({"intermediate_size": 100}, "one of its widths is 100"),
    ],
)
def test_what_the_kernels_do_not_know_is_refused(changed, said):
    config = AutoConfig.for_model("llama", **{**tiny.FAMILIES["llama"], **changed})
    assert said in (obstacle(config) or "")


def test_auto_takes_four_bits_only_where_they_lose_nothing(folder_of, tmp_path, monkeypatch):
    monkeypatch.setattr(engines, "HAS_INT8_DOT", True)
    assert choose(folder_of("llama"), "auto", "auto") == Choice("lean", "int8")
    from tests.cloud_service.test_quantisation import four_bit_weights

    folder = tiny.tiny_folder("llama", tmp_path / "four")
    model = engines.load_model(folder, "f32")
    rng = np.random.default_rng(0)
    for layer in model.base_model.layers:
        rows = four_bit_weights(rng, *layer.mlp.down_proj.weight.shape)
        layer.mlp.down_proj.weight.data = torch.from_numpy(rows)
    model.save_pretrained(folder)
    assert choose(folder, "auto", "auto") == Choice("lean", "int4")
    monkeypatch.setattr(engines, "HAS_INT8_DOT", False)
    assert choose(folder, "auto", "auto") == Choice("lean", "bf16")


def test_what_cannot_be_had_together_is_refused(folder_of):
    with pytest.raises(BadSetting, match="int4 weights need the lean engine"):
        choose(folder_of("llama"), "general", "int4")
    with pytest.raises(BadSetting, match="int8 weights need the lean engine: the family gpt2"):
        choose(folder_of("gpt2"), "auto", "int8")
    with pytest.raises(BadSetting, match="cannot run this backbone: the family gpt2"):
        choose(folder_of("gpt2"), "lean", "f32")


@pytest.mark.parametrize(("engine", "kind"), [("general", CausalBackbone), ("lean", LeanBackbone)])
def test_both_engines_give_the_same_answers(pulled_of, tmp_path, llama, engine, kind):
    pulled = pulled_of("llama")
    choice = choose(pulled.folder, engine, "f32")
    backbone = start(
        choice, pulled, pulled.record.facts(), cache=tmp_path, kv_bytes=KV_BYTES, threads=2
    )
    assert isinstance(backbone, kind)
    assert backbone.pool.used == 0
    ids = ids_of(30)
    one, other = (alone(each, ids, 30, EVERYTHING) for each in (backbone, llama))
    np.testing.assert_allclose(one.taps, other.taps, atol=1e-4)
    np.testing.assert_allclose(one.final, other.final, atol=1e-4)
    np.testing.assert_allclose(one.log_z, other.log_z, atol=1e-4)
