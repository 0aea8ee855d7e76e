import hashlib

import numpy as np
import pytest

from device_agent.data.examples import Encoded
from device_agent.training.hold_out import TooLittleText, hold_out


def windows(name, count, rows=10):
    ids = [np.full(rows + 1, hash((name, place)) % 1000, np.uint32) for place in range(count)]
    return [Encoded(one, np.ones(rows, np.float32)) for one in ids]


def example(number, count=1):
    return hashlib.sha256(str(number).encode()).hexdigest(), windows(number, count)


def chat_of(number):
    scored = np.array([0, 0, 1, 1], np.float32)
    return Encoded(np.full(5, number, np.uint32), scored)


def identities(cut):
    return {id(window) for window in cut}


def test_about_a_tenth_of_many_examples_is_held_out_whole():
    examples = [example(number, 2) for number in range(400)]
    split = hold_out(examples)
    held = identities(split.validation)
    assert 0.06 < len(split.validation) / 800 < 0.14
    assert all(len({id(w) in held for w in cut}) == 1 for _, cut in examples)


def test_nothing_is_lost_and_nothing_on_both_sides():
    examples = [example(number, 3) for number in range(50)]
    split = hold_out(examples)
    everything = identities(window for _, cut in examples for window in cut)
    assert identities(split.training) | identities(split.validation) == everything
    assert not identities(split.training) & identities(split.validation)


def test_new_examples_leave_the_old_where_they_are():
    old = [example(number) for number in range(200)]
    before = identities(hold_out(old).validation)
    after = identities(hold_out([*(example(n + 1000) for n in range(200)), *old]).validation)
    assert before <= after
    assert len(after) > len(before)


def test_of_one_document_the_end_is_held_out():
    (name, cut) = example("book", 30)
    split = hold_out([(name, cut)])
    assert split.training == cut[:27]
    assert split.validation == cut[27:]


def test_of_a_few_long_documents_each_ones_end_is_held_out():
    examples = [example(number, 20) for number in range(4)]
    split = hold_out(examples)
    assert split.validation == [window for _, cut in examples for window in cut[18:]]


def test_of_documents_and_conversations_some_of_both_are_held_out():
    documents = [example(number, 20) for number in range(3)]
    chats = [(example(f"chat {n}")[0], [chat_of(n)]) for n in range(100)]
    held = hold_out([*documents, *chats]).validation
    assert sum(window.document for window in held) == 6
    assert 4 < sum(not window.document for window in held) < 16


@pytest.mark.parametrize("count", [2, 3, 4])
def test_a_short_document_gives_its_last_window(count):
    (name, cut) = example("note", count)
    split = hold_out([(name, cut)])
    assert split.validation == cut[-1:]
    assert split.training == cut[:-1]


def test_of_two_notes_one_is_held_out():
    split = hold_out([example("a"), example("b")])
    assert (len(split.training), len(split.validation)) == (1, 1)


@pytest.mark.parametrize("examples", [[], [example("a")], [example("a", 0), example("b")]])
def test_with_fewer_than_two_windows_there_is_nothing_to_check_on(examples):
    with pytest.raises(TooLittleText):
        hold_out(examples)
