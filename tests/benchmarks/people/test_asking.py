"""Prompts with notes, profiles as files, and how answers are judged."""

import pytest

from benchmarks.people.asking import prompt_with
from benchmarks.people.examples import Past, Person, Question, TaskOfPerson
from benchmarks.people.measure import mean_gain
from benchmarks.people.scoring import SCORINGS
from benchmarks.people.synthetic import TASKS, synthetic_person
from benchmarks.people.teaching import write_profile
from device_agent.data.documents import read_documents


def test_the_most_alike_note_stands_nearest_to_the_question():
    prompt = prompt_with(["best", "second"], "Why?", lambda _text: True)
    assert prompt == "Some of my notes:\n- second\n- best\n\nWhy?"


def test_the_least_alike_notes_go_where_not_all_fit():
    assert "second" not in prompt_with(["best", "second"], "Why?", lambda text: len(text) < 38)
    assert prompt_with(["best", "second"], "Why?", lambda _text: False) == "Why?"


def test_every_task_has_a_scoring():
    assert set(SCORINGS) == set(TASKS)


@pytest.mark.parametrize(
    ("task", "answers", "right", "score"),
    [
        ("tag", ["a", "b"], ["a", "a"], 0.5),
        ("rating", ["1", "4"], ["5", "4"], 0.5),
        ("facts", ["Your dog is Marzipan.", "I do not know."], ["marzipan", "Ghent"], 0.5),
        ("style", ["a b", "c"], ["a b", "d"], 0.5),
    ],
)
def test_a_score_is_between_nothing_and_one(task, answers, right, score):
    questions = [Question("?", one) for one in right]
    assert SCORINGS[task].figures(answers, questions)["score"] == pytest.approx(score)
    assert SCORINGS[task].figures(right, questions)["score"] == 1


def test_a_profile_is_learned_older_half_first_and_each_example_in_one_half(tmp_path):
    person = synthetic_person(0)
    files = write_profile(person, 4, tmp_path)
    assert [file.name for file in files] == [
        "older-chats.jsonl", "older-notes.md", "newer-notes.md", "newer-chats.jsonl",
    ]  # fmt: skip
    older, newer = (
        {example.messages[0][1] for example in read_documents(file)} for file in files[::3]
    )
    profile = person.profile(4)
    assert older == {past.question for past in profile[:12]}
    assert newer == {past.question for past in profile[12:]}
    assert files[1].read_text().split("\n\n")[0] == profile[0].note


def test_a_history_without_questions_is_learned_as_notes_alone(tmp_path):
    task = TaskOfPerson((Past("one"), Past("two")), (), ())
    files = write_profile(Person("x", {"style": task}), 9, tmp_path)
    assert [file.read_text() for file in files] == ["one\n\n", "two\n\n"]


def test_a_gain_is_the_mean_over_sizes_and_tasks():
    def scores(**by_task):
        return {task: {"score": value} for task, value in by_task.items()}

    person = {
        "base": scores(tag=0, facts=0),
        "5": {"all": scores(tag=0.5, facts=0.25), "retrieval": scores(tag=0.25, facts=0.5)},
        "20": {"all": scores(tag=1.0, facts=1.0), "retrieval": scores(tag=0.5, facts=0.5)},
    }
    assert mean_gain(person, [5, 20]) == pytest.approx((0.25 - 0.25 + 0.5 + 0.5) / 4)
