"""People are what their seed says, and what is asked of them was never told."""

import re
from collections import Counter
from functools import cache

import pytest

from benchmarks.people import choice, drift, rating, style, tag
from benchmarks.people.known_facts import FACTS
from benchmarks.people.synthetic import HISTORY, TASKS, TEST, VALIDATION, synthetic_person

SEEDS = range(8)
LABELLED = ("choice", "tag", "rating", "drift")


@cache
def every(name):
    return [synthetic_person(seed).tasks[name] for seed in SEEDS]


def questions(task):
    return [*task.validation, *task.test]


def test_the_same_seed_makes_the_same_person_and_another_one_another():
    assert synthetic_person(3) == synthetic_person(3)
    people = [synthetic_person(seed).tasks for seed in SEEDS]
    for name in TASKS:
        assert len({tasks[name] for tasks in people}) == len(people), name


def test_a_person_is_the_same_on_every_machine():
    task = synthetic_person(0).tasks["tag"]
    assert task.history[-1].note == "My nephew planned a week by the sea on Tuesday. Tag: lantern"
    assert task.test[0].answer == "cobalt"


def test_a_longer_history_does_not_move_other_tasks():
    alone = synthetic_person(1, test=5).tasks["style"]
    assert len(alone.test) == 5
    assert synthetic_person(1).tasks["style"].history == alone.history


@pytest.mark.parametrize("name", TASKS)
def test_a_history_and_its_questions_have_their_sizes(name):
    for task in every(name):
        assert len(task.history) == HISTORY
        assert len(task.validation) == VALIDATION
        assert len(task.test) == min(TEST, 10 if name == "facts" else TEST)


@pytest.mark.parametrize("name", TASKS)
def test_no_question_stands_in_the_history_nor_twice(name):
    for task in every(name):
        told = {past.question for past in task.history}
        asked = [question.text for question in questions(task)]
        assert not told & set(asked)
        assert len(set(asked)) == len(asked)
        assert not {q.text for q in task.validation} & {q.text for q in task.test}


@pytest.mark.parametrize(
    ("name", "lists"),
    [
        ("tag", [*tag.WHO.values(), *tag.TOPICS.values(), tag.WHEN]),
        ("drift", [*drift.KINDS.values(), drift.SENDERS, drift.WHEN]),
        ("choice", [side for both in choice.QUALITIES.values() for side in both]),
        ("rating", [*(side for both in rating.ASPECTS.values() for side in both), rating.CAFES]),
        ("style", [style.RECIPIENTS, style.THINGS, style.NEWS]),
    ],
)
def test_words_that_are_asked_are_never_told(name, lists):
    reserved = [word for one in lists for word in one.asked]
    assert all(not set(one.told) & set(one.asked) for one in lists)
    for task in every(name):
        told = "\n".join(f"{past.note}\n{past.question}" for past in task.history).lower()
        # Words that are part of another list's longer ones, as "a bill" of "a bill to be paid".
        whole = [w for w in reserved if not any(w in t and w != t for o in lists for t in o.told)]
        assert len(whole) > len(reserved) * 0.8
        assert not re.search(rf"\b({'|'.join(re.escape(word.lower()) for word in whole)})\b", told)


@pytest.mark.parametrize("name", LABELLED)
def test_labels_are_balanced(name):
    for task in every(name):
        counts = Counter(question.answer for question in questions(task))
        assert set(counts) <= set(questions(task)[0].options)
        assert max(counts.values()) - min(counts.values()) <= 1
        told = Counter(past.answer for past in task.history)
        assert max(told.values()) - min(told.values()) <= (CHANGE_SPREAD if name == "drift" else 1)


CHANGE_SPREAD = 16
"""The forty letters after the change go elsewhere, six kinds of them almost evenly."""


@pytest.mark.parametrize("name", [*LABELLED, "style"])
def test_an_answer_is_in_the_note_and_is_one_of_the_options(name):
    for task in every(name):
        assert all(past.answer in past.note for past in task.history)
        assert all(not q.options or q.answer in q.options for q in questions(task))


def test_a_tag_follows_from_topic_or_person_alone_whatever_the_words():
    for task in every("tag"):
        by_scheme = []
        for lists in (tag.TOPICS, tag.WHO):
            found = {}
            for past in task.history:
                text = past.note.lower()
                kind = next(
                    k for k, one in lists.items() if any(w.lower() in text for w in one.told)
                )
                found.setdefault(kind, set()).add(past.answer)
            by_scheme.append(all(len(tags) == 1 for tags in found.values()))
        assert sum(by_scheme) == 1


def test_people_tag_by_different_schemes():
    noted = [synthetic_person(seed).tasks["tag"].test[0].options for seed in SEEDS]
    assert len(set(noted)) == len(noted)


def kind_of_letter(text):
    """The kind whose phrase stands at the start, the longest one where several do."""
    phrases = [(w.lower(), k) for k, one in drift.KINDS.items() for w in (*one.told, *one.asked)]
    return max((len(w), k) for w, k in phrases if w in text.lower())[1]


def test_every_kind_of_letter_moved_and_questions_follow_the_new_rule():
    for task in every("drift"):
        old, new = (
            {kind_of_letter(past.note): past.answer for past in part}
            for part in (task.history[: -drift.CHANGED], task.history[-drift.CHANGED :])
        )
        assert set(old) == set(new) == set(drift.KINDS)
        assert all(old[kind] != new[kind] for kind in old)
        assert all(new[kind_of_letter(q.text)] == q.answer for q in questions(task))


def test_one_rule_explains_all_choices_of_a_person():
    for task in every("choice"):
        assert any(
            all(chosen(past.question, *rule) == past.answer for past in task.history)
            for rule in rules()
        )


def rules():
    names = tuple(choice.QUALITIES)
    return [
        ((first, a), (second, b))
        for first in names for second in names if first != second
        for a in (0, 1) for b in (0, 1)
    ]  # fmt: skip


def chosen(question, decisive, second):
    outings = re.search(r"First: (.*)\. Second: (.*?)\.", question).groups()
    for name, side in (decisive, second):
        has = [any(w in text for w in choice.QUALITIES[name][side].told) for text in outings]
        if has[0] != has[1]:
            return "first" if has[0] else "second"
    return None


def test_two_aspects_decide_every_mark():
    for task in every("rating"):
        marks = {}
        for past in task.history:
            sides = {
                name: side
                for name, both in rating.ASPECTS.items()
                for side in (0, 1)
                if any(phrase in past.question for phrase in both[side].told)
            }
            marks.setdefault(frozenset(sides.items()), set()).add(past.answer)
        explained = [
            {frozenset(x for x in sides if x[0] in two): None for sides in marks}
            for two in pairs(tuple(rating.ASPECTS))
        ]
        assert any(len(sides) == 5 for sides in explained)
        assert all(len(found) == 1 for found in marks.values())


def pairs(names):
    return [(a, b) for i, a in enumerate(names) for b in names[i + 1 :]]


def test_a_style_is_the_same_in_every_message_and_not_two_people_have_it():
    ends = []
    for task in every("style"):
        assert len({past.answer.split(" ")[-1] for past in task.history}) == 1
        greeting = {past.answer[:2] for past in (*task.history, *task.test)}
        assert len(greeting) == 1
        ends.append(task.history[0].answer[-30:])
    assert len(set(ends)) > len(ends) / 2


def test_the_newest_ten_examples_tell_every_fact():
    for task in every("facts"):
        newest = " ".join(past.note for past in task.profile(10))
        assert all(question.answer in newest for question in task.test)


def test_fact_questions_are_of_wordings_never_told():
    told = {wording for fact in FACTS for wording in fact.asked}
    for task in every("facts"):
        assert not told & {question.text for question in questions(task)}


def test_a_profile_is_the_newest_of_each_task_in_turn():
    person = synthetic_person(0)
    assert person.profile(2) == [
        person.tasks[name].history[place] for place in (-2, -1) for name in TASKS
    ]
    assert person.profile(0) == []
