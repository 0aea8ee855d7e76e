import json

import pytest

from benchmarks.errors import BenchmarkError
from demo import material


def test_held_out_writing_is_never_taught():
    lesson = material.built_in(0)
    assert lesson.held_out
    assert not set(lesson.taught) & set(lesson.held_out)


def test_the_lesson_becomes_files_that_hold_all_of_it(tmp_path):
    lesson = material.built_in(0)
    learn, held_out = lesson.write(tmp_path)
    chats = (tmp_path / "chats.jsonl").read_text(encoding="utf-8").splitlines()
    assert [json.loads(line)["messages"] for line in chats] == list(lesson.chats)
    assert len(learn) == 2 + len(lesson.taught)
    assert [path.read_text(encoding="utf-8") for path in held_out] == list(lesson.held_out)


def test_a_text_of_ones_own_is_cut_into_taught_and_held_out(tmp_path):
    file = tmp_path / "mine.txt"
    file.write_text("\n\n".join(f"Day {n}. " + "It rained a little. " * 20 for n in range(60)))
    lesson = material.own(file)
    assert lesson.taught[0].startswith("Day 0.")
    assert lesson.held_out
    assert not set(lesson.taught) & set(lesson.held_out)


def test_a_missing_text_is_named(tmp_path):
    with pytest.raises(BenchmarkError, match=r"missing\.txt"):
        material.own(tmp_path / "missing.txt")
