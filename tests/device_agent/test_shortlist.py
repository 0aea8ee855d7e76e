import numpy as np
import pytest

from device_agent.head import Head
from device_agent.shortlist import Shortlist, choose_shortlist, rest_mass
from device_agent.vocabulary import log_sum_exp, mean_probability
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


def test_the_shortlist_has_every_target_and_then_the_favourites():
    counts = np.array([0, 3, 0, 0, 1, 0])
    favourites = np.array([0.1, 0.0, 0.4, 0.2, 0.0, 0.3], np.float32)
    assert choose_shortlist(counts, favourites, 4).tolist() == [1, 2, 4, 5]


def test_the_shortlist_grows_for_targets_and_never_beyond_the_vocabulary():
    favourites = np.zeros(4, np.float32)
    assert choose_shortlist(np.array([1, 1, 0, 1]), favourites, 1).tolist() == [0, 1, 3]
    assert choose_shortlist(np.array([1, 0, 0, 0]), favourites, 9).tolist() == [0, 1, 2, 3]


def test_rest_and_shortlist_are_everything(headed):
    truth, head, states = headed
    ids = np.arange(0, VOCABULARY, 3)
    shortlist = Shortlist.of(head, ids)
    log_z = truth_of(truth, states)
    rest = rest_mass(
        states, log_z.astype(np.float32), shortlist.rows, shortlist.bias, truth.softcap
    )
    outside = np.setdiff1d(np.arange(VOCABULARY), ids)
    expected = np.log(np.exp(truth.logits(states)[:, outside]).sum(1))
    np.testing.assert_allclose(rest, expected, atol=2e-3)


def test_a_shortlist_of_everything_leaves_a_ten_thousandth(headed):
    truth, head, states = headed
    whole = Shortlist.of(head, np.arange(VOCABULARY))
    log_z = truth_of(truth, states).astype(np.float32)
    rest = rest_mass(states, log_z, whole.rows, whole.bias, truth.softcap)
    np.testing.assert_allclose(rest, log_z + np.log(1e-4), atol=0.01)


def test_negatives_come_from_outside_each_once(headed):
    _, head, _ = headed
    shortlist = Shortlist.of(head, np.arange(10, 40))
    seen = [shortlist.negatives(20, np.random.default_rng(seed)) for seed in range(50)]
    assert all(len(set(drawn.tolist())) == 20 for drawn in seen)
    everything = set(np.concatenate(seen).tolist())
    assert everything == set(range(VOCABULARY)) - set(range(10, 40))


def test_when_little_or_nothing_is_outside_the_step_gets_rows_all_the_same(headed):
    _, head, _ = headed
    rng = np.random.default_rng(0)
    assert Shortlist.of(head, np.arange(1, VOCABULARY)).negatives(20, rng).tolist() == [0]
    assert len(Shortlist.of(head, np.arange(VOCABULARY)).negatives(20, rng)) == 1


def test_places_are_where_the_tokens_stand(headed):
    _, head, _ = headed
    shortlist = Shortlist.of(head, np.array([2, 5, 9]))
    assert shortlist.places(np.array([9, 2, 2, 5], np.uint32)).tolist() == [2, 0, 0, 1]
