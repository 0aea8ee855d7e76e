"""The memory along the whole way: made by training, weighed, used, brought up to date, forgotten."""

import json
from dataclasses import replace

import numpy as np
import pytest

from device_agent import cli
from device_agent.cloud.link import STORE, Link
from device_agent.data.examples import Example
from device_agent.data.store import Store
from device_agent.memory.file import DamagedMemory, ForeignMemory
from device_agent.plugins import PluginStore
from device_agent.training.corpus import digests, tokens_of
from device_agent.training.evaluate import Evaluation
from device_agent.training.forgetting import NoSuchExample, choose, forget
from device_agent.training.learning import harm, judge, learn
from device_agent.training.remembering import NoMemory, catch_up
from device_agent.training.watcher import Watcher
from tests.device_agent.home import LETTERS
from tests.device_agent.teaching import ALPHABET, teaching_home

DOCUMENT = LETTERS[::-1] * 2
NOBODY = "http://127.0.0.1:9"


@pytest.fixture
def world(tmp_path):
    with teaching_home(tmp_path) as (cloud, settings):
        yield cloud, replace(settings, memory="on")


def give(settings, *examples):
    with Store(settings.home / STORE) as store:
        store.add_examples(examples, "test")


def train(settings, **chosen):
    with Link(settings, sleep=lambda _: None) as link:
        return learn(link, {"threads": 1, **chosen}, Watcher())


def linked(settings, action):
    with Link(settings, sleep=lambda _: None) as link:
        return action(link)


def current(settings):
    version = PluginStore(settings.home).current()
    assert version is not None
    return version


@pytest.fixture
def learned(world):
    _, settings = world
    give(settings, Example(text=ALPHABET))
    lesson = train(settings)
    assert lesson.promoted
    return settings, lesson


def test_every_part_is_on_the_card(learned):
    settings, lesson = learned
    card = current(settings).card
    parts = card["evaluation"]
    assert set(parts) == {"tokens", "base", "memory", "plugin", "whole"}
    assert parts["memory"]["nll"] < parts["base"]["nll"] - 1, "what came after a letter comes again"
    assert parts["whole"]["nll"] < parts["plugin"]["nll"]
    assert min(part["nll"] for part in list(parts.values())[1:]) == lesson.after
    assert parts[card["speaks"]]["nll"] == lesson.after
    assert current(settings).speaks == card["speaks"]
    assert set(card["general"]) == set(parts)
    assert card["harm"] == pytest.approx(harm(lesson.general, lesson.verdict.speaks))
    assert card["better"] == lesson.promoted
    assert card["reason"] == lesson.verdict.reason
    told = json.loads(json.dumps(lesson.to_json()))
    assert told["validation"]["memory"] == parts["memory"]["nll"]
    assert told["harm"] == card["harm"]


def test_all_that_was_trained_on_is_remembered_and_nothing_that_was_held_out(learned):
    settings, lesson = learned
    split = lesson.corpus.split
    memory = current(settings).memory()
    assert memory.tokens.tolist() == [int(t) for window in split.training for t in window.targets]
    assert list(memory.examples) == [Example(text=ALPHABET).sha256]
    assert not (settings.home / "runs" / "memory.bin").exists()


def test_the_same_training_judges_itself_as_equal(learned):
    settings, first = learned
    again = train(settings)
    assert again.before == pytest.approx(first.after, abs=1e-9)
    assert not again.promoted


def test_a_memory_that_was_damaged_is_made_anew_by_training(learned):
    settings, _ = learned
    current(settings).memory_path.write_bytes(b"SPMM")
    with pytest.raises(DamagedMemory):
        current(settings).memory()
    lesson = train(settings)
    assert lesson.before is None
    assert lesson.promoted
    assert len(current(settings).memory().tokens) > 400


def test_without_a_memory_the_plugin_stands_alone(world):
    _, settings = world
    give(settings, Example(text=ALPHABET))
    lesson = train(replace(settings, memory="off"))
    assert lesson.evaluation.memory is lesson.evaluation.whole is None
    assert lesson.after == lesson.evaluation.plugin
    assert current(settings).memory() is None
    with pytest.raises(NoMemory):
        linked(settings, lambda link: catch_up(link, Watcher()))


FIGURES = {"base": 3.0, "prefix": 2.9, "memory": 2.8, "plugin": 2.75, "whole": 2.7}


@pytest.mark.parametrize("best", ["prefix", "memory", "plugin", "whole"])
def test_the_best_part_speaks_and_what_does_not_help_rests(best):
    verdict = judge(Evaluation(9, **FIGURES | {best: 2.6}), before=2.65)
    assert verdict.better
    assert (verdict.speaks, verdict.after) == (best, 2.6)
    assert "2.6000" in verdict.reason
    assert "the version that speaks now 2.6500" in verdict.reason


def test_of_equals_the_one_speaks_that_takes_least():
    assert judge(Evaluation(9, **FIGURES | {"memory": 2.7}), None).speaks == "memory"
    assert judge(Evaluation(9, base=3.0, plugin=2.0), None).speaks == "plugin"


@pytest.mark.parametrize(
    ("base", "before", "words"),
    [(2.7, None, "the frozen backbone"), (2.7, 2.9, "the frozen backbone"), (3.0, 2.7, "the version that speaks now")],
)  # fmt: skip
def test_what_is_not_better_than_what_there_is_may_not_speak(base, before, words):
    verdict = judge(Evaluation(9, **FIGURES | {"base": base}), before)
    assert not verdict.better
    assert f"{words} 2.7000" in verdict.reason


def test_harm_is_a_share_of_what_general_text_costs_anyway():
    general = Evaluation(9, base=2.0, plugin=2.5, whole=2.1)
    assert harm(general, "whole") == pytest.approx(0.05)
    assert harm(general, "plugin") == pytest.approx(0.25)


def test_what_came_since_is_remembered_without_training_and_forgotten_without_a_trace(learned):
    settings, _ = learned
    path = current(settings).memory_path
    before = path.read_bytes()
    give(settings, Example(text=DOCUMENT))
    rows = linked(settings, lambda link: catch_up(link, Watcher()))
    assert rows == len(DOCUMENT) - 2, "of two windows, the first letter of each is not foreseen"
    assert len(current(settings).memory().tokens) == int.from_bytes(before[24:32], "little") + rows
    assert linked(settings, lambda link: catch_up(link, Watcher())) == 0
    with Store(settings.home / STORE) as store:
        number = store.examples()[-1].id
    gone = linked(settings, lambda link: forget(link, choose(link.store, [number, number])))
    assert (gone.examples, gone.rows, gone.versions) == (1, rows, [])
    assert path.read_bytes() == before
    with Store(settings.home / STORE) as store:
        assert [one.example.text for one in store.examples()] == [ALPHABET]
    for file in settings.home.glob(f"{STORE}*"):
        assert DOCUMENT.encode() not in file.read_bytes(), "not even in the file's free pages"


def test_what_a_plugin_is_judged_by_is_never_remembered(learned):
    settings, _ = learned
    version = current(settings)
    fresh = Example(text=DOCUMENT)
    give(settings, fresh)
    (cut,) = linked(settings, lambda link: tokens_of(link, [fresh]))
    card = version.folder / "card.json"
    told = json.loads(card.read_bytes())
    card.write_text(json.dumps(told | {"held_out": [*told["held_out"], digests(cut)[0]]}))
    rows = linked(settings, lambda link: catch_up(link, Watcher()))
    assert rows == len(cut[1].rows)


def test_an_example_that_is_not_there_leaves_all_others(learned):
    settings, _ = learned
    before = current(settings).memory_path.read_bytes()
    with pytest.raises(NoSuchExample):
        linked(settings, lambda link: choose(link.store, [1, 99]))
    assert current(settings).memory_path.read_bytes() == before


def test_the_memory_of_another_prefix_is_never_used(learned):
    settings, _ = learned
    version = current(settings)
    (version.folder / "prefix.json").write_text(json.dumps({"tokens": [1, 2, 3]}))
    with pytest.raises(ForeignMemory):
        version.memory()
    give(settings, Example(text=DOCUMENT))
    with pytest.raises(ForeignMemory):
        linked(settings, lambda link: catch_up(link, Watcher()))


def test_a_version_takes_its_memory_along_when_it_is_exported(learned, tmp_path):
    settings, _ = learned
    PluginStore(settings.home).export("1", tmp_path / "out")
    assert (tmp_path / "out" / "memory.bin").read_bytes() == current(
        settings
    ).memory_path.read_bytes()


class Desk:
    """Commands in a home that has learned."""

    def __init__(self, settings, capsys, monkeypatch):
        self._capsys = capsys
        for name in ("home", "cloud", "recipe", "threads", "prefix", "memory"):
            monkeypatch.setenv(f"SIDEPLUG_{name.upper()}", str(getattr(settings, name)))

    def __call__(self, *words):
        code = cli.main([str(word) for word in words])
        return code, *self._capsys.readouterr()

    def told(self, *words):
        code, out, err = self(*words, "--json")
        assert code == 0, err
        return json.loads(out)


@pytest.fixture
def desk(learned, capsys, monkeypatch):
    return Desk(learned[0], capsys, monkeypatch)


def test_memory_status_says_what_is_there_and_whether_it_speaks(desk):
    told = desk.told("memory", "status")
    assert told["speaks"] is True
    assert told["examples"] == 1
    assert told["rows"] > 400
    assert "takes part in every answer" in desk("memory", "status")[1]
    assert desk.told("memory", "status", "--memory", "off")["speaks"] is False
    assert "switched off" in desk("memory", "status", "--memory", "off")[1]


def test_the_memory_is_listed_and_updated_by_command(desk, learned):
    give(learned[0], Example(text=DOCUMENT))
    listed = desk.told("memory", "list")["examples"]
    assert [one["rows"] > 0 for one in listed] == [True, False]
    assert desk.told("memory", "update")["rows"] == len(DOCUMENT) - 2
    assert all(one["rows"] for one in desk.told("memory", "list")["examples"])
    assert DOCUMENT[:20] in desk("memory", "list")[1]


def test_a_home_without_a_memory_says_so(tmp_path, capsys, monkeypatch, world):
    desk = Desk(world[1], capsys, monkeypatch)
    assert "no memory yet" in desk("memory", "status")[1]
    code, _, err = desk("memory", "list")
    assert code == 1
    assert "sideplug train" in err


def test_evaluate_and_plugins_show_each_part(desk, tmp_path):
    path = tmp_path / "new.txt"
    path.write_text(LETTERS * 2)
    told = desk.told("evaluate", path)
    assert told["whole"]["nll"] < told["plugin"]["nll"]
    assert "whole" not in desk.told("evaluate", path, "--memory", "off")
    for words in (("evaluate", path), ("plugins", "show")):
        _, out, _ = desk(*words)
        assert "+ prefix and memory" in out
        assert "everything" in out
    assert "harm" in desk("plugins", "show")[1]


def test_training_tells_what_each_part_gives(desk):
    _, out, _ = desk("train", "--epochs", "1")
    assert "+ prefix and memory" in out
    assert "general text" in out
    assert np.isfinite(desk.told("plugins", "show")["card"]["harm"])
