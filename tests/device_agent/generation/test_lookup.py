import numpy as np
import pytest

from device_agent.generation.lookup import TAIL, Lookup


def guess(text, most=4, remembered=None, room=100):
    known = None if remembered is None else np.array(remembered, np.uint32)
    return Lookup(text, room, known).guess(most)


def by_hand(text, most):
    """The same by comparing at every place, from the newest on."""
    for place in range(len(text) - 1, TAIL - 1, -1):
        if text[place - TAIL : place] == text[-TAIL:]:
            return text[place : place + most]
    return []


def test_what_came_behind_the_last_tokens_before_is_guessed():
    assert guess([1, 2, 3, 4, 5, 9, 1, 2, 3]) == [4, 5, 9, 1]
    assert guess([1, 2, 3, 4, 5, 9, 1, 2, 3], most=2) == [4, 5]


def test_the_newest_place_counts():
    assert guess([1, 2, 3, 7, 1, 2, 3, 8, 1, 2, 3], most=1) == [8]


@pytest.mark.parametrize("text", [[], [1], [1, 2, 3], [1, 2, 3, 4, 2, 3], [5, 1, 2, 3, 4, 1, 2]])
def test_where_nothing_agrees_there_is_no_guess(text):
    assert guess(text) == []


def test_the_end_of_a_text_that_repeats_itself_is_guessed_as_far_as_it_is_known():
    assert guess([7, 7, 7, 7, 7]) == [7]


def test_the_persons_texts_are_looked_through_when_the_text_itself_knows_nothing():
    theirs = [9, 1, 2, 3, 4, 5, 6]
    assert guess([1, 2, 3], remembered=theirs) == [4, 5, 6]
    assert guess([1, 2, 3, 8, 1, 2, 3], remembered=theirs, most=1) == [8]
    assert guess([1, 2, 3], remembered=[0, 1, 2, 3]) == []
    assert guess([1, 2, 3], remembered=[]) == []


def test_no_room_no_guess():
    assert guess([1, 2, 3, 4, 1, 2, 3], most=0) == []
    assert guess([1, 2, 3, 4, 1, 2, 3], most=-2) == []


def test_the_text_grows_as_far_as_its_room():
    lookup = Lookup([1, 2, 3, 4, 1], 7)
    for token in (2, 3):
        lookup.add(token)
    assert lookup.guess(9) == [4, 1, 2, 3]
    lookup.add(4)  # no room: it stays as it was
    assert lookup.guess(9) == [4, 1, 2, 3]


def test_any_text_is_searched_as_by_hand():
    rng = np.random.default_rng(0)
    for _ in range(300):
        text = rng.integers(0, 3, rng.integers(1, 60)).tolist()
        assert guess(text, 5) == by_hand(text, 5)
