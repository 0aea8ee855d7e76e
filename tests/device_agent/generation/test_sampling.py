import numpy as np
import pytest
from scipy import stats

from device_agent.generation.sampling import Sampling, choose
from device_agent.settings import BadSetting

LOGITS = np.array([2.0, 1.0, 0.5, 0.0, -1.0, -3.0], dtype=np.float32)


def softmax(logits):
    mass = np.exp(np.asarray(logits, dtype=np.float64))
    return mass / mass.sum()


def nucleus(probabilities, share):
    """The textbook's way: sort all, keep until the sum reaches the share."""
    kept = np.zeros_like(probabilities)
    total = 0.0
    for place in np.argsort(-probabilities):
        kept[place] = probabilities[place]
        total += probabilities[place]
        if total >= share:
            break
    return kept / kept.sum()


def top_k(probabilities, k):
    kept = np.where(probabilities >= np.sort(probabilities)[-k], probabilities, 0)
    return kept / kept.sum()


def drawn(logits, sampling, times=8_000, past=()):
    rng = sampling.generator()
    return np.bincount(
        [choose(logits, past, sampling, rng) for _ in range(times)], minlength=len(logits)
    )


@pytest.mark.parametrize(
    ("sampling", "expected"),
    [
        (Sampling(temperature=1), softmax(LOGITS)),
        (Sampling(temperature=0.5), softmax(LOGITS * 2)),
        (Sampling(temperature=2, seed=3), softmax(LOGITS / 2)),
        (Sampling(temperature=1, top_k=3), top_k(softmax(LOGITS), 3)),
        (Sampling(temperature=1, top_k=99), softmax(LOGITS)),
        (Sampling(temperature=1, top_p=0.8), nucleus(softmax(LOGITS), 0.8)),
        (Sampling(temperature=2, top_p=0.6), nucleus(softmax(LOGITS / 2), 0.6)),
        (Sampling(temperature=1, top_k=4, top_p=0.9), nucleus(top_k(softmax(LOGITS), 4), 0.9)),
    ],
    ids=str,
)
def test_tokens_are_drawn_as_often_as_they_are_likely(sampling, expected):
    seen = drawn(LOGITS, sampling)
    assert not seen[expected == 0].any()
    possible = expected > 0
    assert stats.chisquare(seen[possible], expected[possible] * seen.sum()).pvalue > 0.001


def test_a_nucleus_wider_than_the_first_look_is_found_whole():
    logits = np.random.default_rng(0).standard_normal(5000).astype(np.float32) * 0.1
    allowed = nucleus(softmax(logits), 0.5) > 0
    assert allowed.sum() > 1024
    seen = drawn(logits, Sampling(temperature=1, top_p=0.5), times=3000)
    assert not seen[~allowed].any()
    assert len(np.flatnonzero(seen)) > 1024


def test_temperature_0_takes_the_likeliest_and_asks_no_generator():
    assert choose(LOGITS, [], Sampling(), rng=None) == 0


def test_a_tiny_temperature_is_greedy():
    assert drawn(LOGITS, Sampling(temperature=1e-6), times=50)[0] == 50


def test_the_same_seed_draws_the_same_tokens():
    def run(seed):
        sampling = Sampling(temperature=1, seed=seed)
        rng = sampling.generator()
        return [choose(LOGITS, [], sampling, rng) for _ in range(30)]

    assert run(5) == run(5)
    assert run(5) != run(6)


def test_repetition_weakens_what_was_seen_as_transformers_does():
    import torch
    from transformers import RepetitionPenaltyLogitsProcessor

    past = [0, 4, 4, 2]
    reference = RepetitionPenaltyLogitsProcessor(1.7)(
        torch.tensor([past]), torch.from_numpy(LOGITS.copy())[None]
    )
    seen = drawn(LOGITS, Sampling(temperature=1, repetition=1.7), past=past)
    expected = softmax(reference[0].numpy()) * seen.sum()
    assert stats.chisquare(seen, expected).pvalue > 0.001


def test_the_logits_of_the_caller_stay_as_they_are():
    logits = LOGITS.copy()
    sampling = Sampling(temperature=1, top_k=2, top_p=0.5, repetition=2)
    choose(logits, [0, 1], sampling, sampling.generator())
    np.testing.assert_array_equal(logits, LOGITS)


@pytest.mark.parametrize(
    "wrong",
    [
        {"temperature": -1},
        {"temperature": float("nan")},
        {"temperature": float("inf")},
        {"top_k": -1},
        {"top_p": 0},
        {"top_p": 1.1},
        {"repetition": 0},
        {"seed": -1},
    ],
    ids=str,
)
def test_what_cannot_work_is_refused_by_name(wrong):
    with pytest.raises(BadSetting, match=next(iter(wrong))):
        Sampling(**wrong)
