"""Which recipe is chosen, by costs that are given."""

import pytest

from device_agent.hardware.training_cost import TrainingCost
from device_agent.settings import BadSetting
from device_agent.training.bounds import Bounds, seconds_of, size_of
from device_agent.training.choosing import Candidate, NothingFits, choose

MB = 1_000_000


def candidate(recipe, peak, step=1.0, rule="backprop", tokens=512, steps=10, epochs=2):
    return Candidate(recipe, rule, tokens, 2, steps, epochs, TrainingCost(step, 1.0, peak * MB))


LADDER = candidate("ladder", 170)
LEAN = candidate("lean", 110, step=1.5, rule="recompute")
FORWARD = candidate("forward", 80, step=0.5, rule="mempepita")
ALL = [FORWARD, LEAN, LADDER]


def test_the_fastest_exact_gradient_is_taken_when_there_is_room():
    choice = choose(ALL, Bounds(memory=200 * MB, seconds=600))
    assert (choice.recipe, choice.tokens, choice.threads, choice.epochs) == ("ladder", 512, 2, 2)
    assert "512 tokens a step on 2 threads" in choice.reason
    assert "lean would take longer" in choice.reason
    assert "forward would learn less" in choice.reason


def test_less_memory_buys_the_same_gradient_for_time():
    choice = choose(ALL, Bounds(memory=128 * MB))
    assert choice.recipe == "lean"
    assert "110 MB and 32 s for 2 epochs" in choice.reason
    assert "ladder would take more memory" in choice.reason


def test_where_no_exact_gradient_fits_forward_passes_learn():
    choice = choose(ALL, Bounds(memory=100 * MB))
    assert choice.recipe == "forward"
    assert "lean, ladder would take more memory" in choice.reason


def test_a_bound_is_met_by_what_takes_exactly_so_much():
    assert choose([LEAN], Bounds(memory=110 * MB)).recipe == "lean"
    with pytest.raises(NothingFits):
        choose([LEAN], Bounds(memory=110 * MB - 1))


def test_nothing_fits_says_what_would():
    with pytest.raises(NothingFits, match="in 64 MB: the smallest, forward, takes 80 MB"):
        choose(ALL, Bounds(memory=64 * MB))


def test_the_recipe_that_reads_the_texts_more_often_in_the_time_goes_first():
    # One epoch of each costs 101 s and 21 s; the faster one needs more of them.
    slow, quick = candidate("slow", 100, step=10.0), candidate("quick", 100, step=2.0, epochs=12)
    assert choose([slow, quick], Bounds(seconds=210)).recipe == "slow"
    assert choose([slow, quick], Bounds(seconds=200)).recipe == "quick"


def test_epochs_are_those_for_which_there_is_time():
    assert choose([candidate("it", 1, epochs=5)], Bounds(seconds=34)).epochs == 3


def test_where_there_is_no_time_for_an_epoch_one_is_cut_short_and_that_is_said():
    choice = choose([candidate("it", 1)], Bounds(seconds=4))
    assert choice.epochs == 1
    assert "11 s for 1 epoch on this device, of which there is time for 4 s" in choice.reason


@pytest.mark.parametrize(
    ("text", "size"),
    [("128MB", 128 * MB), ("1.5 gb", 1500 * MB), ("900kB", 900_000)],
)
def test_sizes_are_read(text, size):
    assert size_of(text) == size


@pytest.mark.parametrize(("text", "seconds"), [("90s", 90), ("10min", 600), ("1.5h", 5400)])
def test_times_are_read(text, seconds):
    assert seconds_of(text) == seconds


@pytest.mark.parametrize("text", ["", "128", "MB", "-1MB", "0MB", "1e3MB", "12 parsecs"])
def test_what_is_no_size_is_refused(text):
    with pytest.raises(BadSetting, match="128MB"):
        size_of(text)


@pytest.mark.parametrize("text", ["", "10", "0s", "-5min", "soon"])
def test_what_is_no_time_is_refused(text):
    with pytest.raises(BadSetting, match="10min"):
        seconds_of(text)
