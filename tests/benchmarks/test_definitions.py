"""How definitions are split, asked for and compared."""

import pytest

from benchmarks.definitions import as_person, figures_of, from_documents, question, split_entries
from benchmarks.dictionaries import Entry
from benchmarks.errors import TextError
from benchmarks.texts import Document

ENTRIES = [Entry(f"w{n}", f"the meaning of number {n}") for n in range(50)]


def test_no_word_is_both_learned_and_asked_and_the_split_is_always_the_same():
    definer = split_entries("Bierce", ENTRIES, training=30, test=10)
    assert (len(definer.training), len(definer.test)) == (30, 10)
    assert not set(definer.training) & set(definer.test)
    assert definer == split_entries("Bierce", ENTRIES, training=30, test=10)
    assert definer.test == split_entries("Bierce", ENTRIES, training=40, test=10).test


def test_few_entries_leave_fewer_to_learn_and_too_few_are_refused():
    assert len(split_entries("x", ENTRIES[:20], training=30, test=10).training) == 10
    with pytest.raises(TextError, match="12 are needed"):
        split_entries("x", ENTRIES[:11], training=30, test=10)


def test_what_is_learned_is_asked_for_in_the_words_of_the_test():
    definer = split_entries("x", ENTRIES, training=5, test=3)
    history = as_person(definer).tasks["definitions"].history
    assert [past.question for past in history] == [question(e.word) for e in definer.training]
    assert all(past.answer in past.note for past in history)
    told = " ".join(past.note for past in history).split()
    assert not {entry.word + ":" for entry in definer.test} & set(told)


def test_a_document_is_a_word_and_its_definition():
    assert from_documents([Document("a:1", "Cat: a soft automaton: kicked")]) == [
        Entry("Cat", "a soft automaton: kicked")
    ]
    with pytest.raises(TextError, match="b:2"):
        from_documents([Document("b:2", "no definition here")])


def test_gains_are_against_the_frozen_backbone_and_the_lead_is_on_the_same_words():
    def asked(a, b):
        return {"A": {"nll": a, "rouge_l": 0.1}, "B": {"nll": b, "rouge_l": 0.2}}

    means = {"frozen": asked(4.0, 5.0), "A": asked(3.0, 4.8), "B": asked(3.9, 4.5)}
    means["A"]["A"]["rouge_l"] = 0.15
    means["B"]["B"]["rouge_l"] = 0.19
    figures = {figure.name: figure.value for figure in figures_of(means, ["A", "B"])}
    assert figures == pytest.approx(
        {"own_gain_min": 0.5, "other_gain_max": 0.2, "lead_min": 0.3, "rouge_l_gain_min": -0.01}
    )
