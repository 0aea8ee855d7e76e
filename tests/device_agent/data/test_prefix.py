import numpy as np
import pytest

from device_agent.data.examples import Encoded, windows
from device_agent.data.prefix import NO_PREFIX, behind, crossed


def document(count, start, lead=0):
    """Windows of 16 tokens of a text whose tokens count up from ``start``."""
    ids = np.concatenate([np.full(lead, 7), np.arange(start, start + count)]).astype(np.uint32)
    return windows(Encoded(ids, np.ones(len(ids) - 1, np.float32), lead), 16)


def chat():
    ids = np.arange(9000, 9012, dtype=np.uint32)
    scored = np.zeros(11, np.float32)
    scored[7:] = 1
    return Encoded(ids, scored)


@pytest.mark.parametrize("lead", [0, 1])
def test_no_window_stands_behind_a_token_of_its_own_half(lead):
    cut = document(320, 100, lead)
    found = crossed(cut, 48)
    assert len(found.windows) == len(cut)
    for window in found.windows:
        before, own = window.ids[: window.prefix], window.ids[window.prefix :]
        assert not set(before[lead:].tolist()) & set(own.tolist())


def test_what_is_spoken_behind_is_the_newer_half():
    found = crossed(document(320, 100), 48)
    assert len(found.prefix) == 48
    assert found.prefix.min() >= 100 + 160


def test_no_prefix_is_longer_than_its_budget():
    found = crossed(document(320, 100), 40)
    assert all(window.prefix == 40 for window in found.windows)


def test_a_budget_of_nothing_leaves_the_windows_alone():
    cut = document(320, 100)
    found = crossed(cut, 0)
    assert len(found.prefix) == 0
    assert found.windows == cut


def test_too_little_text_gives_no_prefix():
    found = crossed(document(40, 100), 1024)
    assert len(found.prefix) == 0
    assert [window.prefix for window in found.windows] == [0] * len(found.windows)


def test_conversations_stand_behind_prefixes_and_in_none():
    found = crossed([*document(160, 100), *[chat()] * 4, *document(160, 400)], 64)
    assert not np.isin(found.prefix, chat().ids).any()
    assert all(window.prefix for window in found.windows)


def test_the_same_tokens_are_foreseen_behind_a_prefix():
    for window in (*document(60, 100, lead=1), chat()):
        moved = behind(window, np.arange(500, 540, dtype=np.uint32))
        assert moved.prefix == 40
        assert moved.first >= 40
        np.testing.assert_array_equal(moved.targets, window.targets)
        np.testing.assert_array_equal(moved.fed[moved.rows], window.fed[window.rows])


def test_behind_nothing_a_window_stays_as_it_is():
    window = document(60, 100)[0]
    assert behind(window, NO_PREFIX) is window


@pytest.mark.parametrize("chats_first", [True, False])
def test_many_conversations_on_one_side_take_no_prefix_away(chats_first):
    chats, cut = [chat()] * 50, document(320, 100)
    found = crossed([*chats, *cut] if chats_first else [*cut, *chats], 48)
    assert len(found.prefix) == 48
    assert all(window.prefix for window in found.windows)


def test_what_follows_a_document_stays_on_its_side():
    older, newer = document(160, 100), document(160, 400)
    talks = [chat() for _ in range(5)]
    found = crossed([*older, *talks, *newer], 48)
    behind_newer = [window for window in found.windows if window.ids[: window.prefix].min() >= 400]
    assert len(behind_newer) == len(older) + len(talks)
