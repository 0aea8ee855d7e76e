import json

import numpy as np
import pytest

from device_agent.memory.gate import Evidence, Gate, Gates, apply, fit


def evidence(helpful, count=400, seed=0):
    """A memory that knows where its nearest state is near, or one that knows nothing."""
    rng = np.random.default_rng(seed)
    nearest = rng.uniform(0.2, 1, count).astype(np.float32)
    knows = rng.random(count) < (nearest if helpful else 0)
    recalled = np.where(knows, 0.8, 0.0)
    return Evidence(rng.uniform(0.5, 5, count), recalled, nearest, np.ones(count))


def test_the_mixture_is_that_of_probabilities():
    some, gate = evidence(True), Gate(-1.0, 4.0)
    weights = 1 / (1 + np.exp(1 + 4 * (1 - some.nearest.astype(np.float64))))
    expected = -np.log((1 - weights) * np.exp(-some.nll) + weights * some.recalled)
    np.testing.assert_allclose(some.mixed(gate), expected, rtol=1e-12)


GENERAL_TEXT = evidence(False, 50, 77)


def test_text_that_is_nobodys_own_makes_the_memory_more_careful():
    rng = np.random.default_rng(5)
    far = rng.uniform(0.2, 0.5, 300).astype(np.float32)
    foreign = Evidence(rng.uniform(0.5, 5, 300), np.zeros(300), far, np.ones(300))
    harmless = Evidence(foreign.nll, np.exp(-foreign.nll), far, foreign.scored)
    careful, careless = (fit(evidence(True), general).gate for general in (foreign, harmless))
    assert careful is not None
    assert careless is not None
    assert apply(foreign, careful).mean < apply(foreign, careless).mean


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("helpful", [True, False])
@pytest.mark.parametrize("count", [1, 3, 4, 17, 400])
def test_a_gate_never_hurts_on_what_it_was_fitted_on(helpful, seed, count):
    some = evidence(helpful, count, seed)
    found = fit(some, GENERAL_TEXT)
    assert apply(some, found.gate).mean <= some.nll.mean() + 1e-12
    assert found.mean <= some.nll.mean() + 1e-12


def test_a_memory_that_knows_nothing_gets_no_gate():
    some = evidence(False)
    assert fit(some, GENERAL_TEXT).gate is None
    assert fit(some, GENERAL_TEXT).mean == pytest.approx(some.nll.mean())


def test_a_memory_that_knows_is_believed_where_it_is_near():
    found = fit(evidence(True), GENERAL_TEXT)
    assert found.gate is not None
    near, far = found.gate.weights(np.array([0.99, 0.25]))
    assert near > 0.3
    assert far < near
    other = evidence(True, seed=1)
    assert apply(other, found.gate).mean < other.nll.mean() - 0.1, (
        "on text that it was not chosen on"
    )


def test_the_figure_is_of_gates_that_had_not_seen_the_token():
    some = evidence(True, 40, 3)
    found = fit(some, GENERAL_TEXT)
    assert found.gate is not None
    folds = np.arange(40) * 4 // 40
    crossed = np.concatenate(
        [some.at(folds == fold).mixed(fit_all(some.at(folds != fold))) for fold in range(4)]
    )
    assert found.mean == pytest.approx(crossed.mean())


def fit_all(some):
    """The best gate by trying each against the definition."""
    from device_agent.memory.gate import CERTAINTIES, SLOPES

    tried = [Gate(float(c), float(s)) for c in CERTAINTIES for s in SLOPES]
    return min(
        tried,
        key=lambda gate: some.mixed(gate).mean() + 0.5 * GENERAL_TEXT.mixed(gate).mean(),
    )


def test_tokens_without_weight_decide_nothing():
    some = evidence(True)
    silent = np.arange(len(some.nll)) % 2 == 0
    shouting = np.where(silent, 0, some.scored)
    changed = Evidence(np.where(silent, 50.0, some.nll), some.recalled, some.nearest, shouting)
    plain = Evidence(some.nll, some.recalled, some.nearest, shouting)
    first, second = (fit(one, GENERAL_TEXT) for one in (changed, plain))
    assert (first.gate, first.mean) == (second.gate, second.mean)


def test_gates_come_back_from_json():
    gates = Gates(None, Gate(-0.5, 8.0))
    assert Gates.from_json(json.loads(json.dumps(gates.to_json()))) == gates
    assert Gates.from_json({}) == Gates(None, None)


@pytest.mark.parametrize(
    "told",
    [{"plugin": 3}, {"plugin": {"slope": 1}}, {"plugin": {"slope": "1", "certainty": 0}},
     {"plugin": {"slope": float("nan"), "certainty": 0}}, {"alone": {"slope": 1, "certainty": 1, "x": 1}}],
)  # fmt: skip
def test_a_gate_that_is_none_is_refused(told):
    with pytest.raises(ValueError, match="gate"):
        Gates.from_json(told)
