"""LaMP's JSON, as it is published, on literal small files."""

import json

import pytest

from benchmarks.people.examples import Past, Question
from benchmarks.people.lamp import MOVIE_TAGS, LampError, lamp_people


def split_of(folder, task, questions, golds, split="dev"):
    (folder / f"{split}_questions.json").write_text(json.dumps(questions))
    outputs = {"task": task, "golds": golds}
    (folder / f"{split}_outputs.json").write_text(json.dumps(outputs))
    return folder


def test_a_question_of_the_movie_tags_is_a_person_with_their_own_tags(tmp_path):
    asked = (
        "Which tag does this movie relate to among the following tags? ... description: A heist."
    )
    profile = [
        {"tag": "comedy", "description": "Two clowns rob a bank.", "id": "2000"},
        {"tag": "sci-fi", "description": "A robot dreams.", "id": "2001"},
    ]
    questions = [{"id": "200", "input": asked, "profile": profile}]
    golds = [{"id": "200", "output": "action"}]
    (person,) = lamp_people(split_of(tmp_path, "LaMP_2N", questions, golds), "dev")
    assert person.tasks["tag"].test == (Question(asked, "action", MOVIE_TAGS),)
    assert person.tasks["tag"].history[0] == Past(
        "Two clowns rob a bank. Tag: comedy",
        "Which tag does this movie relate to? Two clowns rob a bank.",
        "comedy",
    )


@pytest.mark.parametrize(
    ("task", "entry", "name", "note"),
    [
        ("LaMP_1", {"title": "On X", "abstract": "We show X."}, "choice", "On X. We show X."),
        ("LaMP_3", {"text": "Fine pen.", "score": "4"}, "rating", "Fine pen. Score: 4"),
        ("LaMP_4", {"text": "It rained.", "title": "Rain"}, "style", "It rained. Title: Rain"),
        ("LaMP_5", {"abstract": "We prove.", "title": "Proof"}, "style", "We prove. Title: Proof"),
        ("LaMP_6", {"text": "Come soon.", "title": "Visit"}, "style", "Come soon. Title: Visit"),
        ("LaMP_7", {"text": "so tired lol"}, "style", "so tired lol"),
    ],
)
def test_each_task_is_read_by_its_own_fields(tmp_path, task, entry, name, note):
    questions = [{"id": "1", "input": "?", "profile": [{**entry, "id": "10"}]}]
    (person,) = lamp_people(
        split_of(tmp_path, task, questions, [{"id": "1", "output": "x"}]), "dev"
    )
    assert person.tasks[name].history[0].note == note


def test_outputs_are_matched_by_id_and_a_limit_takes_the_first(tmp_path):
    questions = [{"id": i, "input": f"{i}?", "profile": []} for i in ("a", "b", "c")]
    golds = [{"id": i, "output": i.upper()} for i in ("c", "b", "a")]
    people = lamp_people(split_of(tmp_path, "LaMP-7", questions, golds), "dev", limit=2)
    assert [p.tasks["style"].test[0].answer for p in people] == ["A", "B"]


@pytest.mark.parametrize(
    ("task", "questions", "golds"),
    [
        ("LaMP_9", [], []),
        ("LaMP_2", [{"id": "1", "input": "?", "profile": []}], []),
        ("LaMP_2", [{"id": "1", "input": "?"}], [{"id": "1", "output": "x"}]),
        ("LaMP_2", [{"id": "1", "input": "?", "profile": [{"id": "2"}]}], [{"id": "1", "output": "x"}]),
    ],
    ids=["unknown task", "no gold", "no profile", "other fields"],
)  # fmt: skip
def test_other_files_are_refused_with_their_folder(tmp_path, task, questions, golds):
    with pytest.raises(LampError, match=str(tmp_path)):
        lamp_people(split_of(tmp_path, task, questions, golds), "dev")


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(LampError, match=r"test_outputs\.json"):
        lamp_people(tmp_path, "test")
