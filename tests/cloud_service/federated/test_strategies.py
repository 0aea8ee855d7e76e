"""What the strategies compute, against the formulas, and what they remember over an end."""

from collections import deque

import numpy as np
import pytest

pytest.importorskip("flwr")

from flwr.app import Array, ArrayRecord, ConfigRecord, Message, MetricRecord, RecordDict
from flwr.serverapp.exception import PrivacyBudgetExhausted
from flwr.supercore.task_identity import TaskIdentity
from scipy.optimize import brentq
from scipy.stats import norm

from cloud_service.federated.plan import SERVER_RATES, Plan
from cloud_service.federated.strategies import (
    BETAS,
    TAU,
    accounting,
    build,
    epsilon,
    moments,
    restore,
    restore_accounting,
)
from protocol.federation import ARRAYS, EXAMPLES, METRICS

NAMES = ("a", "b")


class Present:
    """Devices that are there; a strategy asks a grid for no more than that."""

    def __init__(self, count=3):
        self.count = count

    def get_node_ids(self):
        return list(range(1, self.count + 1))


@pytest.fixture(autouse=True)
def identity():
    TaskIdentity.run_id, TaskIdentity.task_id, TaskIdentity.node_id = 1, 1, 1


def weights(seed):
    rng = np.random.default_rng(seed)
    return {name: rng.normal(size=(2, 3)).astype(np.float32) for name in NAMES}


def record(arrays):
    return ArrayRecord({name: Array(array) for name, array in arrays.items()})


def answers(asked, sets, tokens):
    return [
        Message(
            RecordDict({ARRAYS: record(one), METRICS: MetricRecord({EXAMPLES: count})}),
            reply_to=message,
        )
        for message, one, count in zip(asked, sets, tokens, strict=True)
    ]


def a_round(strategy, number, current, sets, tokens):
    asked = list(
        strategy.configure_train(number, record(current), ConfigRecord(), Present(len(sets)))
    )
    new, _ = strategy.aggregate_train(number, answers(asked, sets, tokens))
    return {name: array.numpy() for name, array in new.items()}


def mean(sets, tokens):
    share = np.array(tokens) / sum(tokens)
    return {name: sum(p * one[name] for p, one in zip(share, sets, strict=True)) for name in NAMES}


def plan(strategy, **changed):
    return Plan(strategy=strategy, devices=3, least=3, **changed)


def rounds(strategy, count):
    """Weights after some rounds, and the averages that led there."""
    current, seen = weights(0), []
    for number in range(1, count + 1):
        sets = [weights(10 * number + i) for i in range(3)]
        new = a_round(strategy, number, current, sets, [1, 2, 5])
        seen.append((current, mean(sets, [1, 2, 5]), new))
        current = new
    return seen


@pytest.mark.parametrize("name", ["fedavg", "fedprox"])
def test_the_average_is_weighted_by_tokens(name):
    for _, average, new in rounds(build(plan(name)), 2):
        for key in NAMES:
            np.testing.assert_allclose(new[key], average[key], rtol=1e-5, atol=1e-7)


def test_fedprox_tells_the_devices_its_weight():
    strategy = build(plan("fedprox", proximal=0.3))
    (message, *_) = strategy.configure_train(1, record(weights(0)), ConfigRecord(), Present())
    assert message.content["config"]["proximal-mu"] == 0.3


def test_fedavgm_keeps_a_momentum():
    held = {name: 0.0 for name in NAMES}
    for current, average, new in rounds(build(plan("fedavgm", momentum=0.8)), 3):
        for key in NAMES:
            held[key] = 0.8 * held[key] + current[key] - average[key]
            np.testing.assert_allclose(new[key], current[key] - held[key], rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(("name", "decay"), [("fedadam", 0.0), ("fedadamw", 0.2)])
def test_fedadam_and_fedadamw_are_the_papers(name, decay):
    rate = 0.01
    first, second = ({key: 0.0 for key in NAMES} for _ in range(2))
    strategy = build(plan(name, server_rate=rate, weight_decay=decay))
    for number, (current, average, new) in enumerate(rounds(strategy, 3), start=1):
        pace = np.sqrt(1 - BETAS[1] ** (number + 1)) / (1 - BETAS[0] ** (number + 1))
        for key in NAMES:
            step = average[key] - current[key]
            first[key] = BETAS[0] * first[key] + (1 - BETAS[0]) * step
            second[key] = BETAS[1] * second[key] + (1 - BETAS[1]) * step**2
            moved = current[key] + rate * pace * first[key] / (np.sqrt(second[key]) + TAU)
            expected = moved - rate * decay * current[key]
            np.testing.assert_allclose(new[key], expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("name", SERVER_RATES)
def test_a_strategy_goes_on_where_it_was(name):
    whole, first, second = (build(plan(name)) for _ in range(3))
    expected = rounds(whole, 3)[-1][2]
    current = rounds(first, 2)[-1][2]
    # A file gives weights back in an order of its own.
    current = {key: current[key] for key in reversed(NAMES)}
    restore(second, moments(first), current)
    sets = [{key: weights(30 + i)[key] for key in current} for i in range(3)]
    found = a_round(second, 3, current, sets, [1, 2, 5])
    for key in NAMES:
        np.testing.assert_allclose(found[key], expected[key], rtol=1e-5, atol=1e-6)


NOISY = {"strategy": "fedavg", "devices": 3, "least": 3, "noise": 2.0, "clip": 0.5}


def gaussian_epsilon(multiplier, releases, delta):
    """Of that many Gaussian releases, exactly (Balle and Wang, arXiv 1805.06530, theorem 8)."""
    mu = np.sqrt(releases) / multiplier

    def excess(eps):
        return norm.cdf(mu / 2 - eps / mu) - np.exp(eps) * norm.cdf(-mu / 2 - eps / mu) - delta

    return brentq(excess, 0, 100)


def private_round(strategy, number, current, sets):
    return a_round(strategy, number, current, sets, [1] * len(sets))


def test_the_budget_bounds_the_exact_one_closely_and_outlives_an_end():
    strategy, again = build(Plan(**NOISY)), build(Plan(**NOISY))
    for number in (1, 2, 3):
        private_round(strategy, number, weights(0), [weights(50 + i) for i in range(3)])
        exact = gaussian_epsilon(2.0, number, 1e-5)
        assert exact < epsilon(strategy) < 1.2 * exact
    restore_accounting(again, accounting(strategy))
    assert epsilon(again) == epsilon(strategy)


def test_updates_are_clipped_and_the_noise_has_the_size_that_is_accounted_for():
    strategy = build(Plan(**NOISY))
    zero = {name: np.zeros((200, 200), np.float32) for name in NAMES}
    far = {name: np.full((200, 200), 5.0, np.float32) for name in NAMES}
    new = private_round(strategy, 1, zero, [far, far, far])
    noise = np.concatenate([new[name].ravel() for name in NAMES])
    # All three were clipped to one vector of norm 0.5, so each number is 0.5 / sqrt(80000) and noise.
    assert noise.mean() == pytest.approx(0.5 / np.sqrt(noise.size), abs=0.006)
    assert noise.std() == pytest.approx(2.0 * 0.5 / 3, rel=0.02)


def test_a_round_beyond_the_budget_is_not_run():
    strategy = build(Plan(**NOISY, most_epsilon=4.0))
    sets = [weights(50 + i) for i in range(3)]
    exact = [gaussian_epsilon(2.0, number, 1e-5) for number in range(1, 20)]
    with pytest.raises(PrivacyBudgetExhausted):
        # Far more rounds than even the exact budget allows.
        deque(private_round(strategy, n, weights(0), sets) for n in range(1, 20))
    assert exact[-1] > 4.0
    assert 0 < epsilon(strategy) <= 4.0


def test_a_private_round_that_somebody_left_releases_nothing():
    strategy = build(Plan(**NOISY))
    asked = list(strategy.configure_train(1, record(weights(0)), ConfigRecord(), Present()))
    arrays, _ = strategy.aggregate_train(1, answers(asked[:2], [weights(1), weights(2)], [1, 1]))
    assert arrays is None
    assert epsilon(strategy) == 0
