"""Batches of whole texts."""

import itertools

import numpy as np
import pytest

from device_agent.runtime.tail_plugin import UNSEEN
from device_agent.training.batches import Run
from device_agent.training.packing import Packed
from device_agent.training.trainer import fill_reach

LENGTHS = [5, 3, 17, 1, 8, 8, 2]
STARTS = np.cumsum([0, *LENGTHS])


def places(batches):
    return sorted(
        place for batch in batches for run in batch for place in range(run.start, run.stop)
    )


@pytest.mark.parametrize("repeats", [1, 3])
def test_an_epoch_reads_every_row_as_often_as_it_is_repeated(repeats):
    packed = Packed(STARTS, np.full(len(LENGTHS), repeats), 10, seed=1)
    batches = packed.epoch(0)
    assert places(batches) == sorted(list(range(sum(LENGTHS))) * repeats)
    assert len(batches) == packed.batches
    sizes = [sum(run.stop - run.start for run in batch) for batch in batches]
    assert max(sizes) == packed.size <= 10


def test_a_text_that_fits_is_never_cut():
    packed = Packed(STARTS, np.ones(len(LENGTHS), np.int64), 10, seed=1)
    runs = {run for batch in packed.epoch(3) for run in batch}
    whole = {Run(int(a), int(b)) for a, b in itertools.pairwise(STARTS) if b - a <= 10}
    assert whole < runs


def test_epochs_differ_in_order_alone_and_a_seed_repeats_them():
    many = np.arange(0, 400, 8)
    packed, again = (Packed(many, np.ones(49, np.int64), 16, seed=5) for _ in range(2))
    assert packed.epoch(0) != packed.epoch(1)
    assert sorted(packed.epoch(0)) == sorted(packed.epoch(1))
    assert packed.epoch(1) == again.epoch(1)


def test_each_token_reaches_those_before_it_in_its_own_run():
    reach, positions = np.ones((6, 6), np.float32), np.ones(6, np.float32)
    fill_reach(reach, positions, [(0, Run(10, 12)), (7, Run(40, 43))])
    seen = [set(np.flatnonzero(row == 0).tolist()) for row in reach]
    assert seen == [{0}, {0, 1}, {2}, {2, 3}, {2, 3, 4}, set()]
    assert set(reach[reach != 0].tolist()) == {float(UNSEEN)}
    assert positions.tolist() == [0, 1, 7, 8, 9, 0]
