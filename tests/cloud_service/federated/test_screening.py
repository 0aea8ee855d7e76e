"""What a device may send."""

import numpy as np
import pytest

pytest.importorskip("flwr")

from flwr.app import Array, ArrayRecord, Error, Message, MetricRecord, RecordDict
from flwr.supercore.task_identity import TaskIdentity

from cloud_service.federated.screening import screen, screen_figures
from protocol.federation import ARRAYS, EXAMPLES, METRICS, sparse

WEIGHTS = {"a": np.full((2, 2), 3.0, np.float32), "b": np.zeros((), np.float32)}
FIGURES = {EXAMPLES: 7, "loss": 2.0, "held-out": 3.0}
GOOD = {"a": np.full((2, 2), 0.5, np.float16), "b": np.array(0.25, np.float16)}


@pytest.fixture(autouse=True)
def identity():
    TaskIdentity.run_id, TaskIdentity.task_id, TaskIdentity.node_id = 1, 1, 1


def answer(content, device=1):
    asked = Message(RecordDict(), device, "train")
    return Message(content, reply_to=asked)


def update(arrays=GOOD, figures=FIGURES, device=1):
    record = ArrayRecord({name: Array(array) for name, array in arrays.items()})
    return answer(RecordDict({ARRAYS: record, METRICS: MetricRecord(figures)}), device)


def test_an_update_is_added_to_the_exact_weights():
    good, refused = screen([update(), update(device=2)], WEIGHTS, private=False)
    assert (len(good), refused) == (2, [])
    arrays = good[0].content[ARRAYS]
    np.testing.assert_array_equal(arrays["a"].numpy(), WEIGHTS["a"] + 0.5)
    assert arrays["b"].numpy() == np.float32(0.25)
    assert arrays["a"].numpy().dtype == np.float32


def sparse_update(arrays=None, kept=0.5, device=1):
    added = {name: array.astype(np.float32) for name, array in GOOD.items()}
    return update(dict(sparse(added, kept)) | (arrays or {}), device=device)


def test_a_sparse_update_is_added_where_it_has_numbers():
    good, refused = screen([sparse_update()], WEIGHTS, private=False, kept=0.5)
    assert (len(good), refused) == (1, [])
    moved = good[0].content[ARRAYS]["a"].numpy() - WEIGHTS["a"]
    assert sorted(moved.ravel().tolist()) == [0, 0.5, 0.5, 0.5]


@pytest.mark.parametrize(
    "wrong",
    [
        update,
        lambda: sparse_update({"values": np.full(3, np.nan, np.float16)}),
        lambda: sparse_update({"gaps": np.full(3, 9, np.uint16)}),
        lambda: sparse_update(kept=1.0),
        lambda: sparse_update({"values": np.zeros((3, 1), np.float16)}),
    ],
)
def test_what_is_no_such_sparse_update_is_refused_and_the_others_stay(wrong):
    good, refused = screen([wrong(), sparse_update(device=2)], WEIGHTS, False, 0.5)
    assert [one.metadata.src_node_id for one in good] == [2]
    assert [one.device for one in refused] == [1]


def garbled():
    array = Array(GOOD["a"])
    array.data = array.data[:40]
    record = ArrayRecord({"a": array, "b": Array(GOOD["b"])})
    return answer(RecordDict({ARRAYS: record, METRICS: MetricRecord(FIGURES)}))


@pytest.mark.parametrize(
    "wrong",
    [
        lambda: update(GOOD | {"b": np.array(np.nan, np.float16)}),
        lambda: update(GOOD | {"b": np.array(np.inf, np.float16)}),
        lambda: update(GOOD | {"a": np.zeros((4, 1), np.float16)}),
        lambda: update(GOOD | {"a": np.zeros((2, 2), np.float32)}),
        lambda: update({"other": np.zeros(3, np.float16)}),
        lambda: update({}),
        lambda: update(figures=FIGURES | {EXAMPLES: 0}),
        lambda: update(figures=FIGURES | {EXAMPLES: 2**40}),
        lambda: update(figures=FIGURES | {EXAMPLES: 7.5}),
        lambda: update(figures=FIGURES | {"loss": float("nan")}),
        lambda: update(figures=FIGURES | {"more": 1.0}),
        lambda: update(figures={EXAMPLES: 7}),
        lambda: answer(RecordDict({METRICS: MetricRecord(FIGURES)})),
        lambda: answer(RecordDict({ARRAYS: MetricRecord(), METRICS: MetricRecord(FIGURES)})),
        lambda: answer(Error(1, "NotNow")),
        garbled,
    ],
)
def test_what_is_no_update_is_refused_and_the_others_stay(wrong):
    good, refused = screen([wrong(), update(device=2)], WEIGHTS, private=False)
    assert [one.metadata.src_node_id for one in good] == [2]
    assert [one.device for one in refused] == [1]
    assert 0 < len(refused[0].reason) <= 200


def test_a_device_counts_once():
    good, refused = screen([update(), update()], WEIGHTS, private=False)
    assert (len(good), len(refused)) == (1, 1)


def test_where_the_federation_is_private_nothing_else_is_told():
    told = [
        update(figures={EXAMPLES: 1}),
        update(device=2),
        update(figures={EXAMPLES: 2}, device=3),
    ]
    good, refused = screen(told, WEIGHTS, private=True)
    assert [one.metadata.src_node_id for one in good] == [1]
    assert [one.device for one in refused] == [2, 3]


def test_what_changes_nothing_cannot_be_clipped():
    nothing = {name: np.zeros_like(array) for name, array in GOOD.items()}
    _, refused = screen([update(nothing, {EXAMPLES: 1})], WEIGHTS, private=True)
    assert "nothing" in refused[0].reason
    good, _ = screen([update(nothing)], WEIGHTS, private=False)
    assert len(good) == 1


def test_figures_of_the_last_weights_are_looked_at_too():
    figures = {EXAMPLES: 5, "frozen": 3.0, "shared": 2.0}
    fine = answer(RecordDict({METRICS: MetricRecord(figures)}))
    wrong = [
        answer(RecordDict({METRICS: MetricRecord(figures | {"shared": float("inf")})})),
        answer(RecordDict({METRICS: MetricRecord({EXAMPLES: 5})})),
        answer(RecordDict()),
        answer(Error(1, "OtherKit")),
    ]
    assert screen_figures([fine, *wrong], private=False) == [fine]
