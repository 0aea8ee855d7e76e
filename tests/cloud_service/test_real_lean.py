"""The lean engine on the default backbone: its four bits, its head, its states."""

import logging
import os

import numpy as np
import pytest
import torch

from cloud_service.backbones.engines import Choice, choose, start
from cloud_service.backbones.lean.quantisation import is_lossless
from cloud_service.backbones.lean.simd import HAS_INT8_DOT
from cloud_service.backbones.loading import load_model
from cloud_service.pull import pull
from cloud_service.registry import Registry
from cloud_service.settings import load
from protocol.messages import Wants
from tests.cloud_service.reading import alone

pytestmark = pytest.mark.slow

TEXT = np.arange(1000, 1200, dtype=np.uint32)
WANTS = Wants((0, 9, 27), True, True, 5, "f32")
MATRICES = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")


@pytest.fixture(scope="module")
def cached():
    return load({}, os.environ).cache


@pytest.fixture(scope="module")
def pulled(cached):
    return pull("smollm2-135m-instruct", Registry(cached), logging.debug)


@pytest.fixture(scope="module")
def model(pulled):
    return load_model(pulled.folder, "f32").eval()


@pytest.fixture(scope="module")
def states(pulled, cached):
    def read(weights):
        backbone = start(
            Choice("lean", weights),
            pulled,
            pulled.record.facts(weights),
            cache=cached,
            kv_bytes=2**28,
            threads=2,
        )
        return alone(backbone, TEXT, len(TEXT), WANTS)

    return read


def test_every_weight_of_every_layer_keeps_its_value_in_four_bits(model, pulled):
    matrices = [w for name, w in model.named_parameters() if name.split(".")[-2] in MATRICES]
    assert len(matrices) == 30 * len(MATRICES)
    assert all(is_lossless(matrix.detach().numpy()) for matrix in matrices)
    if HAS_INT8_DOT:
        assert choose(pulled.folder, "auto", "auto") == Choice("lean", "int4")


def test_in_f32_states_are_those_of_transformers(model, states):
    got = states("f32")
    with torch.no_grad():
        ids = torch.from_numpy(TEXT.astype(np.int64))[None]
        expected = model.base_model(ids, output_hidden_states=True)
        log_z = model(ids).logits[0].logsumexp(-1)
    for tap, layer in zip(got.taps, WANTS.layers, strict=True):
        reference = expected.hidden_states[layer][0].numpy()
        # A few channels are a thousand times larger than the others.
        np.testing.assert_allclose(tap, reference, atol=1e-5 * np.abs(reference).max())
    np.testing.assert_allclose(got.final, expected.last_hidden_state[0], atol=2e-3)
    np.testing.assert_allclose(got.log_z, log_z, atol=2e-3)


@pytest.mark.parametrize("weights", ["f32", "bf16", "int8", "int4"])
def test_log_z_is_that_of_the_state_beside_it(model, states, weights):
    got = states(weights)
    with torch.no_grad():
        logits = torch.from_numpy(got.final).double() @ model.lm_head.weight.double().T
    np.testing.assert_allclose(got.log_z, logits.logsumexp(-1), atol=1e-4)
    np.testing.assert_allclose(got.candidates.logits, logits.topk(5).values, atol=1e-3)
