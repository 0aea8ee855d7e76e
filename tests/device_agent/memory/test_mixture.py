"""What the memory recalls and how it is mixed, against the same in float64 over the whole vocabulary."""

import numpy as np
import pytest

from device_agent.generation.sampling import Sampling, choose
from device_agent.memory.basis import SCALE
from device_agent.memory.gate import Gate
from device_agent.memory.mixture import GatedMemory
from device_agent.memory.recall import BLOCK, NEIGHBOURS, SHARPNESS, recall
from tests.device_agent.memory.samples import BASIS, VOCABULARY, opened, states_of, write

GATE = Gate(0.5, 3.0)


def softmax(values):
    powers = np.exp(values - values.max())
    return powers / powers.sum()


def dense(memory, state):
    """The memory's distribution (V,) for one state, and the best cosine, by sorting everything."""
    key = BASIS.keys(state[None])[0].astype(np.float64)
    cosines = memory.keys.astype(np.float64) @ key / SCALE
    order = np.argsort(-cosines, kind="stable")[:NEIGHBOURS]
    found = np.zeros(VOCABULARY)
    np.add.at(found, memory.tokens[order], softmax(SHARPNESS * cosines[order]))
    return found, cosines[order[0]]


@pytest.fixture(params=[3, 40, 3000], ids=["few", "fewer than neighbours", "several blocks"])
def memory(request, tmp_path):
    return opened(write(tmp_path / "memory.bin", 1, 2, rows=request.param))


def test_recall_is_what_sorting_everything_gives(memory):
    assert BLOCK < 6000
    states = states_of(70, 11)
    found = recall(memory, states)
    for row, state in enumerate(states):
        expected, best = dense(memory, state)
        given = np.bincount(found.tokens[row], found.shares[row], minlength=VOCABULARY)
        np.testing.assert_allclose(given, expected, atol=2e-5)
        assert found.nearest[row] == pytest.approx(best, abs=1e-5)
    tokens = np.random.default_rng(12).integers(0, VOCABULARY, len(states)).astype(np.uint32)
    each = [dense(memory, state)[0][token] for state, token in zip(states, tokens, strict=True)]
    np.testing.assert_allclose(found.probability(tokens), each, atol=2e-5)


def test_the_state_that_was_remembered_is_the_nearest(memory):
    found = recall(memory, states_of(len(memory.tokens) // 2, 1)[:1])
    assert found.nearest[0] == pytest.approx(1, abs=0.02)


def test_mixed_logits_are_the_mixture_over_the_whole_vocabulary(memory):
    rng = np.random.default_rng(13)
    for state in states_of(20, 14):
        logits = rng.normal(0, 4, VOCABULARY).astype(np.float32)
        (mixed,) = GatedMemory(memory, GATE).mixed(logits[None], state[None])
        of_memory, best = dense(memory, state)
        weight = GATE.weights(np.array([best]))[0]
        expected = (1 - weight) * softmax(logits.astype(np.float64)) + weight * of_memory
        np.testing.assert_allclose(softmax(mixed.astype(np.float64)), expected, atol=3e-6)
        log_sums = [np.log(np.exp(some.astype(np.float64)).sum()) for some in (mixed, logits)]
        assert log_sums[0] == pytest.approx(log_sums[1], abs=1e-5)


def test_rows_that_are_mixed_together_are_as_each_by_itself(memory):
    logits = np.random.default_rng(22).normal(0, 4, (5, VOCABULARY)).astype(np.float32)
    states, gated = states_of(5, 23), GatedMemory(memory, GATE)
    each = [gated.mixed(logits[[row]], states[[row]])[0] for row in range(5)]
    np.testing.assert_allclose(gated.mixed(logits, states), each, atol=1e-5)


def test_the_greedy_choice_is_the_likeliest_of_the_mixture(memory):
    rng = np.random.default_rng(15)
    for state in states_of(40, 16):
        logits = rng.normal(0, 2, VOCABULARY).astype(np.float32)
        of_memory, best = dense(memory, state)
        weight = GATE.weights(np.array([best]))[0]
        expected = (1 - weight) * softmax(logits.astype(np.float64)) + weight * of_memory
        (mixed,) = GatedMemory(memory, GATE).mixed(logits[None], state[None])
        chosen = choose(mixed, [], Sampling(), np.random.default_rng(0))
        assert chosen == expected.argmax()


def test_what_is_drawn_follows_the_mixture(memory):
    from scipy.stats import chisquare

    rng = np.random.default_rng(17)
    logits, state = rng.normal(0, 1, VOCABULARY).astype(np.float32), states_of(1, 18)[0]
    of_memory, best = dense(memory, state)
    weight = GATE.weights(np.array([best]))[0]
    expected = (1 - weight) * softmax(logits.astype(np.float64)) + weight * of_memory
    (mixed,) = GatedMemory(memory, GATE).mixed(logits[None], state[None])
    sampling = Sampling(temperature=1.0)
    drawn = [choose(mixed, [], sampling, rng) for _ in range(20_000)]
    counts = np.bincount(drawn, minlength=VOCABULARY)
    assert chisquare(counts, expected * counts.sum()).pvalue > 1e-4


def test_a_weight_of_next_to_nothing_changes_next_to_nothing(memory):
    logits = np.random.default_rng(19).normal(0, 4, (1, VOCABULARY)).astype(np.float32)
    mixed = GatedMemory(memory, Gate(-40.0, 0.0)).mixed(logits, states_of(1, 20))
    np.testing.assert_allclose(mixed, logits, atol=1e-6)


def test_logits_given_stay_as_they_are(memory):
    logits = np.zeros((1, VOCABULARY), np.float32)
    GatedMemory(memory, GATE).mixed(logits, states_of(1, 21))
    assert not logits.any()
