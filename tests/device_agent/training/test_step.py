import numpy as np
import pytest

from device_agent.runtime.head import Head
from device_agent.training.shortlist import Shortlist, Sizes
from device_agent.training.step import TrainingStep
from tests.device_agent.small_kit import HIDDEN, random_head
from tests.device_agent.teaching import NEGATIVES, teaching_kit

TOKENS, RATE = 12, 0.25


class Reference:
    """The same step in float64, from the formulas."""

    def __init__(self, inputs, ids):
        truth = random_head()
        self.rows, self.bias = truth.rows[ids].astype(float), truth.bias[ids].astype(float)
        self.inputs = {name: array.astype(float) for name, array in inputs.items()}
        self.targets = inputs["targets"]
        self.scale, self.first, self.second = (np.zeros(HIDDEN) for _ in range(3))

    def run(self):
        given = self.inputs
        moved = given["taps"].sum(0) * given["mask"][0]
        state = given["final"] + moved * self.scale
        logits = state @ self.rows.T + self.bias
        beyond = [s @ given["outside"].T + given["outside_bias"] for s in (state, given["final"])]
        ratio = np.subtract(*(np.log(np.exp(one).sum(1)) for one in beyond))
        total = np.log(np.exp(logits).sum(1) + np.exp(given["rest"] + ratio))
        share = given["scored"] / given["scored"].sum()
        picked = np.arange(TOKENS), self.targets
        loss = (share * (total - logits[picked])).sum()
        pull = np.exp(logits - total[:, None]) @ self.rows - self.rows[self.targets]
        slope = (share[:, None] * pull * moved).sum(0)
        self.first = 0.9 * self.first + 0.1 * slope
        self.second = self.second + slope**2
        self.scale = self.scale - RATE * self.first
        return loss, np.linalg.norm(slope)


@pytest.fixture
def step(tmp_path):
    kit = teaching_kit(tmp_path)
    shared, own = np.arange(0, 80, 2), np.arange(1, 11, 2)
    head = Head(kit, 1)
    schedule = {"rate": RATE, "total": 9, "warmup": 1}
    sizes = Sizes(own=len(own), negatives=NEGATIVES)
    made = TrainingStep(kit, Shortlist.of(head, shared), TOKENS, sizes, schedule, 1)
    made.own_rows[:], made.own_bias[:] = head.rows(own)
    ids = np.concatenate([shared, own])
    made.load(kit.initial())
    rng = np.random.default_rng(3)
    for name, array in made.inputs.items():
        array[...] = rng.uniform(0, 1, array.shape) if name != "targets" else 0
    made.inputs["targets"][:] = rng.integers(0, len(ids), TOKENS)
    made.inputs["rest"][:] = rng.normal(2, 1, TOKENS)
    return made, Reference(made.inputs, ids)


def test_steps_in_turn_are_the_formulas(step):
    ours, truth = step
    for count in range(1, 6):
        loss, norm = ours.run(count)
        expected, slope = truth.run()
        assert loss == pytest.approx(expected, rel=1e-5)
        assert norm == pytest.approx(slope, rel=1e-4)
    np.testing.assert_allclose(ours.weights()["scale"], truth.scale, rtol=1e-4, atol=1e-7)
    np.testing.assert_allclose(ours.state()["first.scale"], truth.first, rtol=1e-4, atol=1e-7)
    np.testing.assert_allclose(ours.state()["second.scale"], truth.second, rtol=1e-4, atol=1e-9)


def test_what_is_loaded_goes_on_bit_for_bit(step):
    ours, _ = step
    for count in range(1, 4):
        ours.run(count)
    kept = {name: array.copy() for name, array in ours.state().items()}
    ours.run(4)
    once = ours.weights()["scale"].copy()
    ours.load(kept, kept)
    ours.run(4)
    assert (ours.weights()["scale"] == once).all()


def test_loading_weights_alone_forgets_the_moments(step):
    ours, _ = step
    ours.run(1)
    ours.load({"scale": np.ones(HIDDEN, np.float32)})
    assert ours.weights()["scale"].tolist() == [1] * HIDDEN
    assert not ours.state()["first.scale"].any()


def test_weights_outlive_the_steps(step):
    made, _ = step
    made.run(1)
    before = {name: array.copy() for name, array in made.weights().items()}
    made.end()
    assert all(np.array_equal(made.weights()[name], before[name]) for name in before)
    assert set(made.state()) == {prefix + name for prefix in ("", "first.", "second.") for name in before}  # fmt: skip
