from dataclasses import replace

import numpy as np
import pytest

from device_agent.data.examples import Encoded
from device_agent.runtime.head import Head
from device_agent.runtime.kits import Kit
from device_agent.runtime.side_plugin import SidePlugin
from device_agent.settings import BadSetting
from device_agent.training import checkpoint
from device_agent.training.batches import FeatureRows
from device_agent.training.evaluate import evaluate
from device_agent.training.options import TrainingOptions
from device_agent.training.trainer import Diverged, Trainer, fill_mask
from tests.device_agent.small_kit import random_head
from tests.device_agent.teaching import SCHEDULE, filled_cache, teaching_kit


def alphabet(first, count=20):
    ids = (np.arange(first, first + count) % 26).astype(np.uint32)
    return Encoded(ids, np.ones(count - 1, np.float32))


TRAINING = [alphabet(first) for first in range(0, 24, 2)]
VALIDATION = [alphabet(first) for first in (1, 7)]
NO_ALPHABET = [Encoded(np.full(20, 50, np.uint32), np.ones(19, np.float32))]
"""Training draws the backbone away from it, towards the letters."""


class World:
    def __init__(self, folder):
        self.folder = folder
        self.kit: Kit = teaching_kit(folder / "kit")
        self.cache = filled_cache(
            folder / "features", self.kit, TRAINING + VALIDATION + NO_ALPHABET
        )

    def trainer(self, validation=VALIDATION, run="run", **chosen):
        options = TrainingOptions.of(SCHEDULE, chosen)
        return Trainer(
            self.kit,
            Head(self.kit, 1),
            FeatureRows(self.cache, TRAINING),
            FeatureRows(self.cache, validation),
            options,
            run,
            self.folder / "runs" / "point",
        )

    def nll(self, weights, texts):
        plugin = SidePlugin(self.kit, weights, 1)
        rows = FeatureRows(self.cache, texts)
        return evaluate(self.kit.manifest, Head(self.kit, 1), plugin, rows).plugin


@pytest.fixture
def world(tmp_path):
    return World(tmp_path)


def stop_after(steps):
    left = iter(range(steps))
    return lambda: next(left, None) is None


def test_training_makes_the_loss_and_the_held_out_loss_smaller(world):
    told = []
    trained = world.trainer().train(told.append)
    losses = [entry["loss"] for entry in trained.course.history]
    held_out = [entry["validation"] for entry in trained.course.history]
    assert losses == sorted(losses, reverse=True)
    assert held_out[-1] < held_out[0] < world.nll({"scale": np.zeros(64, np.float32)}, VALIDATION)
    assert trained.course.best == min(held_out)
    assert world.nll(trained.weights, VALIDATION) == pytest.approx(min(held_out))
    assert (trained.ending, trained.course.epoch) == ("finished", 3)
    assert [p.validation for p in told if p.validation] == held_out
    steps = [p.step for p in told if p.validation is None]
    assert steps == list(range(1, trained.steps + 1))
    assert told[-1].seconds_left == 0


@pytest.mark.parametrize("seed", [0, 1])
def test_before_anything_is_learned_the_loss_is_the_backbone_s_whatever_is_drawn(world, seed):
    told = []
    world.trainer(batch_tokens=10_000, seed=seed).train(told.append, stop_after(1))
    rows = FeatureRows(world.cache, TRAINING)
    alone = evaluate(world.kit.manifest, Head(world.kit, 1), None, rows)
    assert told[0].loss == pytest.approx(alone.base, rel=1e-4)


def test_early_stopping_keeps_the_best(world):
    trained = world.trainer(validation=NO_ALPHABET, epochs=10, patience=2, rate=0.05).train()
    held_out = [entry["validation"] for entry in trained.course.history]
    assert held_out == sorted(held_out)
    assert (trained.ending, trained.course.epoch, trained.course.best_epoch) == ("patience", 3, 1)
    assert world.nll(trained.weights, NO_ALPHABET) == pytest.approx(held_out[0])


def test_without_patience_all_epochs_are_trained(world):
    trained = world.trainer(validation=NO_ALPHABET, epochs=4, patience=0).train()
    assert (trained.ending, trained.course.epoch) == ("finished", 4)


@pytest.mark.parametrize("steps", [1, 5, 8, 13])
def test_a_run_that_was_stopped_goes_on_as_if_it_had_not_been(tmp_path, steps):
    whole = World(tmp_path / "whole").trainer(checkpoint_seconds=0).train()
    broken = World(tmp_path / "broken")
    first = broken.trainer(checkpoint_seconds=0).train(stop=stop_after(steps))
    assert (first.ending, first.steps) == ("stopped", steps)
    second = broken.trainer(checkpoint_seconds=0).train()
    assert second.resumed
    assert not first.resumed
    assert (second.weights["scale"] == whole.weights["scale"]).all()
    for entry, expected in zip(second.course.history, whole.course.history, strict=True):
        assert entry["loss"] == expected["loss"]
        assert entry["validation"] == expected["validation"]


def test_stopping_keeps_what_was_learned_so_far(world):
    trained = world.trainer().train(stop=stop_after(4))
    assert trained.weights["scale"].any()
    assert trained.course.history[-1]["epoch"] < 1
    fresh = {"scale": np.zeros(64, np.float32)}
    assert world.nll(trained.weights, VALIDATION) < world.nll(fresh, VALIDATION)


def test_stopping_before_the_first_step_learns_nothing(world):
    trained = world.trainer().train(stop=lambda: True)
    assert (trained.steps, trained.ending) == (0, "stopped")
    assert not trained.weights["scale"].any()


def test_time_may_be_limited(world):
    trained = world.trainer(max_seconds=1e-9).train()
    assert (trained.ending, trained.steps) == ("time", 0)


def test_a_checkpoint_of_another_run_is_not_used(world):
    world.trainer().train(stop=stop_after(3))
    again = world.trainer(run="another").train()
    assert not again.resumed


def test_a_finished_run_is_not_trained_again(world):
    first = world.trainer().train()
    second = world.trainer().train(lambda progress: pytest.fail(f"trained again: {progress}"))
    assert (second.weights["scale"] == first.weights["scale"]).all()


@pytest.mark.parametrize("loss", ["full", "shortlist"])
def test_a_kit_with_the_full_loss_gets_the_whole_head(world, loss):
    world.kit = Kit(replace(world.kit.manifest, loss=loss), world.kit.folder)
    trainer = world.trainer()
    trainer.train(stop=stop_after(1))
    arrays = checkpoint.load(world.folder / "runs" / "point").arrays
    assert len(arrays["shortlist"]) == (len(random_head().codes) if loss == "full" else 40)


@pytest.mark.filterwarnings("ignore:overflow")
@pytest.mark.filterwarnings("ignore:invalid")
def test_a_run_that_goes_astray_is_given_up(world):
    with pytest.raises(Diverged, match="step"):
        world.trainer(rate=1e38, epochs=10).train()


def test_a_mask_keeps_the_mean():
    mask = np.empty((2, 100, 50), np.float32)
    fill_mask(mask, 0.25, np.random.default_rng(0))
    assert set(np.unique(mask)) == {np.float32(0), np.float32(256 / 192)}
    assert mask.mean() == pytest.approx(1, abs=0.03)
    fill_mask(mask, 0.0, np.random.default_rng(0))
    assert (mask == 1).all()


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("rate", 0.0),
        ("rate", float("nan")),
        ("warmup", 1.5),
        ("epochs", 0),
        ("batch_tokens", 0),
        ("segment", 0),
        ("patience", -1),
        ("answers", 0),
        ("seed", -1),
        ("threads", 0),
        ("validation_tokens", 0),
        ("checkpoint_seconds", -1.0),
        ("max_seconds", float("inf")),
    ],
)
def test_options_that_cannot_work_are_refused(name, value):
    with pytest.raises(BadSetting, match=name):
        TrainingOptions.of(SCHEDULE, {name: value})


def test_options_are_the_kits_where_nothing_is_chosen():
    options = TrainingOptions.of(SCHEDULE, {"rate": 0.1, "epochs": None})
    assert (options.rate, options.epochs, options.segment) == (0.1, SCHEDULE.epochs, 8)


def test_where_a_run_may_be_interrupted_does_not_make_it_another():
    plain = TrainingOptions.of(SCHEDULE, {})
    free = {"threads": 3, "checkpoint_seconds": 1.0, "max_seconds": 5.0}
    assert TrainingOptions.of(SCHEDULE, free).identity() == plain.identity()
    assert TrainingOptions.of(SCHEDULE, {"seed": 1}).identity() != plain.identity()
