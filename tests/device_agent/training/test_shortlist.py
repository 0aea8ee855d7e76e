import numpy as np
import pytest

from device_agent.runtime.head import Head
from device_agent.training.shortlist import Shortlist, choose_shortlist, share_of
from device_agent.training.vocabulary import log_sum_exp, mean_probability
from tests.device_agent.small_kit import HIDDEN, VOCABULARY, random_head, small_kit


def truth_of(head, states):
    logits = head.logits(states)
    return np.log(np.exp(logits - logits.max(1, keepdims=True)).sum(1)) + logits.max(1)


@pytest.fixture(params=[None, 3.0], ids=["plain", "capped"])
def headed(request, tmp_path):
    truth = random_head(softcap=request.param)
    states = np.random.default_rng(1).standard_normal((300, HIDDEN)).astype(np.float32)
    return truth, Head(small_kit(tmp_path, truth), threads=1), states


def test_the_sum_over_the_vocabulary_is_exact(headed):
    truth, head, states = headed
    ours = log_sum_exp(head, states, truth.softcap)
    np.testing.assert_allclose(ours, truth_of(truth, states), rtol=1e-5)


def test_the_sum_holds_where_exponentials_overflow(headed):
    truth, head, states = headed
    ours = log_sum_exp(head, states * 1000, truth.softcap)
    np.testing.assert_allclose(ours, truth_of(truth, states * 1000), rtol=1e-5)


def test_mean_probabilities_are_the_softmaxs(headed):
    truth, head, states = headed
    log_z = truth_of(truth, states)
    ours = mean_probability(head, states, log_z.astype(np.float32), truth.softcap)
    expected = np.exp(truth.logits(states) - log_z[:, None]).mean(0)
    np.testing.assert_allclose(ours, expected, rtol=1e-3)
    assert ours.sum() == pytest.approx(1, abs=1e-3)


def test_the_shortlist_is_what_person_and_backbone_write_most():
    counts = np.array([0, 3, 0, 0, 1, 0])
    favourites = np.array([0.1, 0.0, 0.4, 0.2, 0.0, 0.3], np.float32)
    assert choose_shortlist(counts, favourites, 3).tolist() == [1, 2, 5]
    assert choose_shortlist(counts, favourites, 4).tolist() == [1, 2, 4, 5]


def test_the_shortlist_is_never_larger_than_the_vocabulary():
    favourites = np.zeros(4, np.float32)
    assert choose_shortlist(np.zeros(4, int), favourites, 2).tolist() == [0, 1]
    assert choose_shortlist(np.array([1, 0, 0, 0]), favourites, 9).tolist() == [0, 1, 2, 3]


def test_shares_are_the_softmaxs(headed):
    truth, head, states = headed
    log_z = truth_of(truth, states)
    rows, bias = head.rows(np.arange(0, VOCABULARY, 3))
    ours = share_of(states, log_z.astype(np.float32), rows, bias, truth.softcap)
    expected = np.exp(truth.logits(states)[:, ::3] - log_z[:, None]).sum(1)
    np.testing.assert_allclose(ours, expected, rtol=1e-3)


TOKENS = np.array([3, 70, 12, 70, 71, 15], np.uint32)


def test_a_step_s_own_tokens_hold_its_targets_and_no_token_stands_twice(headed):
    _, head, _ = headed
    shortlist = Shortlist.of(head, np.arange(10, 40))
    sizes = shortlist.sizes(len(TOKENS), negatives=20)
    assert sizes == (6, 20)
    for seed in range(30):
        drawn = shortlist.sample(TOKENS, sizes, np.random.default_rng(seed))
        every = [*shortlist.ids, *drawn.own, *drawn.negatives]
        assert (len(drawn.own), len(drawn.negatives)) == sizes
        assert len(set(every)) == len(every)
        scored = np.concatenate([shortlist.ids, drawn.own])
        assert scored[drawn.targets].tolist() == TOKENS.tolist()


def test_what_is_drawn_is_drawn_uniformly_from_outside(headed):
    _, head, _ = headed
    shortlist = Shortlist.of(head, np.arange(10, 40))
    sizes = shortlist.sizes(len(TOKENS), negatives=20)
    samples = [shortlist.sample(TOKENS, sizes, np.random.default_rng(n)) for n in range(2000)]
    free = set(range(VOCABULARY)) - set(range(10, 40)) - {3, 70, 71}
    counts = np.bincount(np.concatenate([one.negatives for one in samples]), minlength=VOCABULARY)
    expected = 2000 * 20 / len(free)
    assert set(np.flatnonzero(counts)) == free
    assert np.abs(counts[sorted(free)] / expected - 1).max() < 0.15
    filled = np.bincount(np.concatenate([one.own for one in samples]), minlength=VOCABULARY)
    assert filled[[3, 70, 71]].tolist() == [2000] * 3
    assert np.abs(filled[sorted(free)] / (2000 * 3 / len(free)) - 1).max() < 0.5


@pytest.mark.parametrize("inside", [VOCABULARY, VOCABULARY - 1, VOCABULARY - 4, VOCABULARY - 8])
def test_when_little_or_nothing_is_outside_the_step_gets_rows_all_the_same(headed, inside):
    _, head, _ = headed
    shortlist = Shortlist.of(head, np.arange(inside))
    tokens = np.array([0, VOCABULARY - 1, VOCABULARY - 1, 2, 1], np.uint32)
    sizes = shortlist.sizes(len(tokens), negatives=20)
    drawn = shortlist.sample(tokens, sizes, np.random.default_rng(0))
    assert (len(drawn.own), len(drawn.negatives)) == sizes
    assert sizes.own == min(5, VOCABULARY - inside)
    assert sizes.negatives == max(1, VOCABULARY - inside - sizes.own)
    scored = np.concatenate([shortlist.ids, drawn.own])
    assert scored[drawn.targets].tolist() == tokens.tolist()
