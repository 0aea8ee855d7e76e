"""Every family of the table against transformers itself."""

import numpy as np
import pytest
import torch

from cloud_service.backbones.families import FAMILIES
from cloud_service.backbones.pages import Cache
from protocol.messages import Wants
from tests import tiny
from tests.cloud_service.reading import alone, read
from tests.cloud_service.running import EVERYTHING, FINAL, ids_of

LAYERS = tuple(range(tiny.LAYERS + 1))
ALL_TAPS = Wants(layers=LAYERS, final=True, log_z=True, candidates=5, codec="f32")
WINDOW = 24
"""Of the tiny models with a sliding window."""


def batch(ids):
    return torch.from_numpy(ids.astype(np.int64))[None]


def close(got, expected):
    np.testing.assert_allclose(got, expected, atol=2e-5, rtol=1e-4)


def same(one, other):
    """Two answers for the same tokens, bit for bit."""
    np.testing.assert_array_equal(one.taps, other.taps)
    np.testing.assert_array_equal(one.final, other.final)
    np.testing.assert_array_equal(one.log_z, other.log_z)


def test_every_family_has_a_tiny_model_to_be_tested_with():
    assert set(FAMILIES) == set(tiny.FAMILIES)


def test_taps_are_the_hidden_states_of_transformers(backbone, reference):
    ids = ids_of(40)
    states = alone(backbone, ids, 40, ALL_TAPS)
    with torch.no_grad():
        expected = reference.base_model(batch(ids), output_hidden_states=True)
    # Its last entry is the final state, not what leaves the last layer.
    for layer in LAYERS[:-1]:
        close(states.taps[layer], expected.hidden_states[layer][0])
    close(states.final, expected.last_hidden_state[0])


def test_the_last_tap_is_not_normed_yet(backbone):
    states = alone(backbone, ids_of(9), 9, ALL_TAPS)
    assert np.abs(states.taps[-1] - states.final).max() > 1e-2


def test_log_z_and_candidates_are_those_of_the_whole_model(backbone, reference):
    ids = ids_of(40)
    states = alone(backbone, ids, 40, EVERYTHING)
    with torch.no_grad():
        logits = reference(batch(ids)).logits[0]
    close(states.log_z, logits.logsumexp(-1))
    best = logits.topk(5)
    close(states.candidates.logits, best.values)
    np.testing.assert_array_equal(states.candidates.ids, best.indices)


def test_decode_gives_the_same_states_as_prefill(backbone):
    ids = ids_of(WINDOW + 12)
    whole = alone(backbone, ids, len(ids), ALL_TAPS)
    context = Cache(backbone.pool)
    for row in range(len(ids)):
        states = read(backbone, context, ids[row : row + 1], 1, ALL_TAPS)
        assert states.position == row
        close(states.taps[:, 0], whole.taps[:, row])
        close(states.final[0], whole.final[row])
        close(states.log_z[0], whole.log_z[row])


def test_two_chunks_give_the_same_states_as_one(backbone):
    ids = ids_of(2 * WINDOW + 5)
    whole = alone(backbone, ids, len(ids), ALL_TAPS)
    context = Cache(backbone.pool)
    for start, stop in ((0, 30), (30, len(ids))):
        states = read(backbone, context, ids[start:stop], stop - start, ALL_TAPS)
        close(states.taps, whole.taps[:, start:stop])
        close(states.final, whole.final[start:stop])


def test_greedy_over_a_session_is_what_generate_writes(backbone, reference):
    ids = ids_of(20)
    with torch.no_grad():
        expected = reference.generate(
            batch(ids),
            attention_mask=torch.ones(1, 20, dtype=torch.long),
            max_new_tokens=WINDOW,
            min_new_tokens=WINDOW,
            do_sample=False,
            eos_token_id=None,
            pad_token_id=0,
        )[0, 20:]
    context = Cache(backbone.pool)
    best = Wants(layers=(), final=False, log_z=False, candidates=1, codec="f32")
    written, new = [], ids
    for _ in expected:
        new = read(backbone, context, new, 1, best).candidates.ids[0]
        written.append(int(new[0]))
    assert written == expected.tolist()


@pytest.mark.parametrize("cropped", [3, WINDOW - 1, WINDOW + 8, 47])
def test_a_cropped_session_goes_on_like_a_fresh_one(backbone, cropped):
    ids, other = ids_of(48), ids_of(20, seed=1)
    kept = Cache(backbone.pool)
    read(backbone, kept, ids[:cropped], 1, FINAL)
    read(backbone, kept, ids[cropped:], 1, FINAL)
    kept.crop(cropped)
    fresh = Cache(backbone.pool)
    read(backbone, fresh, ids[:cropped], 1, FINAL)
    for chunk in (other[:1], other[1:]):
        same(
            read(backbone, kept, chunk, len(chunk), ALL_TAPS),
            read(backbone, fresh, chunk, len(chunk), ALL_TAPS),
        )


def test_states_come_back_for_the_last_wanted_tokens_only(backbone):
    ids = ids_of(30)
    whole = alone(backbone, ids, 30, ALL_TAPS)
    states = alone(backbone, ids, 4, ALL_TAPS)
    assert states.position == 26
    assert states.taps.shape == (len(LAYERS), 4, tiny.HIDDEN)
    close(states.taps, whole.taps[:, 26:])
    close(states.log_z, whole.log_z[26:])


def test_what_is_not_wanted_is_not_there(backbone):
    states = alone(backbone, ids_of(5), 5, Wants((), False, False, 0, "f32"))
    assert states.taps.shape == (0, 5, tiny.HIDDEN)
    assert states.final is None
    assert states.log_z is None
    assert states.candidates is None
