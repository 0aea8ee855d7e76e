import io
import json

import pytest
from rich.console import Console

from benchmarks.errors import BenchmarkError
from benchmarks.report import Figure, Outcome, Rows, as_json, print_outcome, write_json

OUTCOME = Outcome(
    figures=[
        Figure("ratio", 0.9, "split ÷ whole", at_least=0.85),
        Figure("overhead", 1.2, "with ÷ without", at_most=1.1),
        Figure("prompts", 20, "prompts"),
    ],
    results={"pairs": [[1.0, 2.0]]},
    seeds=[3],
    settings={"threads": 2},
    tables=[Rows("medians", ("dtype", "rate"), [("f32", 12.3456), ("bf16", None)])],
)


def test_the_report_says_what_it_takes_to_repeat_the_run():
    report = as_json("overhead", OUTCOME)
    assert report["benchmark"] == "overhead"
    assert report["seeds"] == [3]
    assert report["settings"] == {"threads": 2}
    assert report["versions"]["numpy"]
    assert report["machine"]["cores"] >= 1
    assert {"created", "revision"} <= report.keys()


def test_figures_stand_at_the_top_and_among_the_results():
    report = as_json("overhead", OUTCOME)
    assert report["ratio"] == report["results"]["ratio"] == 0.9
    assert report["results"]["pairs"] == [[1.0, 2.0]]


def test_goals_say_whether_they_are_reached():
    goals = as_json("overhead", OUTCOME)["goals"]
    assert goals == {
        "ratio": {"at_least": 0.85, "reached": True},
        "overhead": {"at_most": 1.1, "reached": False},
    }


def test_a_figure_that_could_not_be_computed_reaches_no_goal():
    assert Figure("share", None, "", at_least=0.6).reached is False


def test_a_figure_may_not_hide_a_field_of_the_report():
    outcome = Outcome([Figure("seeds", 1, "")], {}, [], {})
    with pytest.raises(BenchmarkError, match="seeds"):
        as_json("any", outcome)


def test_the_file_is_whole_or_not_there(tmp_path):
    file = tmp_path / "report.json"
    with pytest.raises(ValueError, match="JSON"):
        write_json({"ratio": float("nan")}, file)
    assert list(tmp_path.iterdir()) == []
    write_json({"ratio": 1.5}, file)
    assert json.loads(file.read_text()) == {"ratio": 1.5}
    assert list(tmp_path.iterdir()) == [file]


def test_the_screen_shows_figures_goals_and_tables():
    screen = io.StringIO()
    print_outcome("overhead", OUTCOME, Console(file=screen, width=120))
    shown = screen.getvalue()
    for words in ("ratio", ">= 0.85", "not reached", "medians", "12.35", "bf16"):
        assert words in shown
