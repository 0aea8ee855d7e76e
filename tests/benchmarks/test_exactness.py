import math

import numpy as np
import pytest

from benchmarks.exactness import mean_divergence
from benchmarks.prompts import PROMPTS


def test_divergence_of_two_coins():
    fair, bent = np.log([[0.5, 0.5]]), np.log([[0.9, 0.1]])
    expected = 0.5 * math.log(0.5 / 0.9) + 0.5 * math.log(0.5 / 0.1)
    assert mean_divergence(fair, bent) == pytest.approx(expected)


def test_divergence_is_a_mean_over_positions():
    fair, bent = np.log([[0.5, 0.5]] * 2), np.log([[0.5, 0.5], [0.9, 0.1]])
    assert mean_divergence(fair, bent) == pytest.approx(mean_divergence(fair[1:], bent[1:]) / 2)


def test_a_distribution_does_not_diverge_from_itself():
    rows = np.random.default_rng(0).normal(size=(5, 300))
    rows -= np.log(np.exp(rows).sum(axis=1, keepdims=True))
    assert mean_divergence(rows, rows) == 0


def test_there_are_twenty_different_prompts_half_of_them_chats():
    assert len({prompt.text for prompt in PROMPTS}) == 20
    assert sum(prompt.chat for prompt in PROMPTS) == 10
