import numpy as np
import pytest

from device_agent.generation.posterior import ROWS, averaged, is_foreign, log_likelihood
from device_agent.runtime.head import Head
from device_agent.runtime.side_plugin import SidePlugin
from tests.device_agent.small_kit import HIDDEN, random_head, small_kit
from tests.device_agent.teaching import states_of


def figures(seed, count=300):
    return np.random.default_rng(seed).uniform(0.01, 8, count)


def by_definition(personal, base):
    """Bayes' rule, token after token."""
    weight, found = 0.75, []
    for ours, theirs in zip(np.exp(-personal), np.exp(-base), strict=True):
        together = weight * ours + (1 - weight) * theirs
        found.append(-np.log(together))
        weight = weight * ours / together
    return np.array(found)


def test_it_is_bayes_rule():
    personal, base = figures(0, 40), figures(1, 40)
    found = averaged(personal, base, [0, 40])
    np.testing.assert_allclose(found, by_definition(personal, base), rtol=1e-9)


def test_each_text_is_doubted_anew():
    personal, base = figures(2, 40), figures(3, 40)
    found = averaged(personal, base, [0, 10, 11, 40])
    for start, stop in ((0, 10), (10, 11), (11, 40)):
        alone = by_definition(personal[start:stop], base[start:stop])
        np.testing.assert_allclose(found[start:stop], alone, rtol=1e-6)


@pytest.mark.parametrize("worse", [-3.0, -0.1, 0.0, 0.1, 3.0])
def test_a_text_costs_little_more_than_under_either(worse):
    personal, base = figures(4) + max(worse, 0), figures(4) - min(worse, 0)
    found = averaged(personal, base, [0, 300])
    assert found.sum() <= base.sum() + np.log(4) + 1e-9
    assert found.sum() <= personal.sum() + np.log(4 / 3) + 1e-9


def test_without_clear_evidence_a_text_is_the_persons():
    assert not is_foreign(-20.0, -20.0)
    assert not is_foreign(-21.0, -20.0)
    assert is_foreign(-21.2, -20.0), "one to three is not enough"


def test_where_nothing_differs_nothing_changes():
    personal = figures(5)
    np.testing.assert_allclose(averaged(personal, personal, [0, 300]), personal, rtol=1e-9)


@pytest.mark.parametrize("scale", [None, 0.3])
def test_the_likelihood_of_tokens_is_that_of_the_whole_vocabulary(tmp_path, scale):
    head = random_head()
    kit = small_kit(tmp_path, head)
    ids = np.random.default_rng(0).integers(0, 90, ROWS + 9).astype(np.uint32)
    states = states_of(ids, head)
    plugin, moved = None, states.final
    if scale is not None:
        plugin = SidePlugin(kit, {"scale": np.full(HIDDEN, scale, np.float32)}, 1)
        moved = states.final + scale * states.taps.sum(0)
    tokens = ((ids + 7) % 90).tolist()
    logits = head.logits(moved)
    expected = logits[np.arange(len(ids)), tokens] - np.log(np.exp(logits).sum(axis=1))
    found = log_likelihood(states, tokens, Head(kit, 1), plugin)
    # All but the highest logits of the head are rounded.
    assert found == pytest.approx(expected.sum(), abs=0.02 * len(ids))
