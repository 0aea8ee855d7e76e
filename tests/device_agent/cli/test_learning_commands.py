"""learn, train, plugins and evaluate as a person gives them."""

import json
import sys

import numpy as np
import pytest

from device_agent import cli
from tests.device_agent.home import LETTERS
from tests.device_agent.teaching import ALPHABET, teaching_home


class Desk:
    def __init__(self, cloud, settings, capsys):
        self.cloud, self.settings, self._capsys = cloud, settings, capsys

    def __call__(self, *words):
        """Exit code, stdout and stderr of a command."""
        code = cli.main([str(word) for word in words])
        out = self._capsys.readouterr()
        return code, out.out, out.err

    def told(self, *words):
        """What a command prints as JSON; it must work."""
        code, out, err = self(*words, "--json")
        assert code == 0, err
        return json.loads(out)


@pytest.fixture
def sideplug(tmp_path, capsys, monkeypatch):
    with teaching_home(tmp_path) as (cloud, settings):
        for name in ("home", "cloud", "recipe", "threads", "prefix", "memory"):
            monkeypatch.setenv(f"SIDEPLUG_{name.upper()}", str(getattr(settings, name)))
        yield Desk(cloud, settings, capsys)


@pytest.fixture
def notes(tmp_path):
    path = tmp_path / "notes.txt"
    path.write_text(ALPHABET)
    return path


def test_learn_keeps_each_example_once(sideplug, notes, tmp_path):
    chats = tmp_path / "chats.jsonl"
    turns = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]
    chats.write_text(json.dumps({"messages": turns}) + "\n" + json.dumps({"text": "c"}) + "\n")
    first = sideplug.told("learn", notes, chats)
    assert first == {"added": 3, "known": 0, "examples": {"text": 2, "chat": 1}}
    assert sideplug.told("learn", chats)["known"] == 2
    assert sideplug.cloud.requests == [], "learning needs no cloud"
    code, out, _ = sideplug("learn", notes)
    assert code == 0
    assert "0 new, 1 known" in out


def test_when_one_file_is_bad_nothing_is_kept(sideplug, notes, tmp_path):
    bad = tmp_path / "bad.jsonl"
    bad.write_text('{"text": "a"}\n{"text": 7}\n')
    code, out, err = sideplug("learn", notes, bad)
    assert (code, out) == (1, "")
    assert "line 2" in err
    assert sideplug.told("status")["examples"] == {"text": 0, "chat": 0}


def test_train_says_what_came_of_it(sideplug, notes):
    sideplug("learn", notes)
    code, out, err = sideplug("train")
    assert code == 0
    assert "version 1: 3 epochs" in out
    assert "it speaks from now on" in out
    assert err.count("held out") == 3
    assert sideplug.told("status")["last_training"]["state"] == "done"


def test_train_that_made_nothing_better_says_so(sideplug, notes):
    sideplug("learn", notes)
    sideplug("train")
    code, out, _ = sideplug("train", "--epochs", "1", "--rate", "0.001")
    assert code == 0
    assert "it is not better, so nothing changes" in out
    assert "the version before" in out


def test_train_in_json_has_every_figure(sideplug, notes):
    sideplug("learn", notes)
    told = sideplug.told("train", "--epochs", "2", "--seed", "5", "--patience-epochs", "1")
    assert told["epochs"] == len(told["history"]) == 2
    assert told["validation"]["after"] < told["validation"]["base"]
    assert told["cpu_seconds"] >= told["cpu_seconds_to_best"] > 0
    assert told["peak_memory"] > 10e6
    assert told["features"]["bytes_down"] > told["features"]["bytes_up"] > 0


def test_train_that_ran_out_of_time_keeps_what_it_has(sideplug, notes):
    sideplug("learn", notes)
    code, out, _ = sideplug("train", "--max-seconds", "0.000001")
    assert code == 0
    assert "nothing was learned" in out


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (("train",), "nothing to learn"),
        (("train", "--epochs", "0"), "nothing to learn"),
        (("plugins", "use", "7"), "no version 7"),
        (("plugins", "show", "x"), "no version x"),
        (("plugins", "rollback"), "no earlier version"),
        (("plugins", "export", "1", "here"), "no version 1"),
        (("evaluate", "none.txt"), "none.txt"),
        (("learn", "none.txt"), "none.txt"),
    ],
)
def test_what_cannot_be_done_is_one_sentence(sideplug, words, reason):
    code, out, err = sideplug(*words)
    assert (code, out) == (1, "")
    assert reason in err
    assert err.count("\n") == 1


def test_an_option_that_cannot_work_is_wrong_usage(sideplug, notes):
    sideplug("learn", notes)
    code, _, err = sideplug("train", "--rate", "-1")
    assert code == 2
    assert "rate" in err


@pytest.fixture
def trained(sideplug, notes):
    """Two versions; the second speaks."""
    sideplug("learn", notes)
    sideplug.told("train", "--epochs", "1")
    sideplug.told("train", "--epochs", "4")
    return sideplug


def test_plugins_are_listed_with_their_figures(trained):
    told = trained.told("plugins", "list")
    assert told["current"] == "2"
    first, second = told["versions"]
    assert second["nll"] < first["nll"] < first["base_nll"] == second["base_nll"]
    assert (first["current"], second["current"]) == (False, True)
    _, out, _ = trained("plugins", "list")
    assert "*    2  teaching" in out


def test_plugins_switch_and_go_back(trained):
    assert trained.told("plugins", "use", "1") == {"current": "1"}
    assert trained.told("plugins", "rollback") == {"current": "2"}
    assert trained.told("plugins", "use", "base") == {"current": None}
    assert "none of them speaks" in trained("plugins", "list")[1]
    assert "frozen backbone speaks" in trained("plugins", "show")[1]
    assert trained("plugins", "use", "2")[1] == "version 2 speaks\n"


def test_a_version_is_shown_with_its_card(trained):
    told = trained.told("plugins", "show")
    assert (told["version"], told["recipe"]) == ("2", "teaching")
    assert told["card"]["training"]["epochs"] == 4
    assert told["config"]["base_model_name_or_path"] == "toy"
    assert str(told["bytes"]) in trained("plugins", "show", "2")[1]


def test_a_version_is_exported(trained, tmp_path):
    told = trained.told("plugins", "export", "1", tmp_path / "out.zip")
    assert told == {"version": "1", "path": str(tmp_path / "out.zip")}
    assert (tmp_path / "out.zip").is_file()
    code, _, err = trained("plugins", "export", "1", tmp_path / "out.zip")
    assert (code, "exists already" in err) == (1, True)
    assert "version 2 is in" in trained("plugins", "export", "2", tmp_path / "folder")[1]


def test_before_there_is_a_version_the_list_is_empty(sideplug):
    nothing = {"current": None, "reason": None, "versions": []}
    assert sideplug.told("plugins", "list") == nothing
    assert "no version yet" in sideplug("plugins", "list")[1]
    assert sideplug.told("plugins", "show") == {"version": None}


def test_evaluate_compares_plugin_and_backbone(trained, tmp_path):
    path = tmp_path / "new.txt"
    path.write_text(LETTERS[5:] + LETTERS * 2)
    told = trained.told("evaluate", path)
    assert told["version"] == "2"
    assert told["tokens"] == 21 + 52 - 3, "a letter at the start of each window is not foreseen"
    assert told["plugin"]["nll"] < told["base"]["nll"]
    assert told["plugin"]["perplexity"] == pytest.approx(np.exp(told["plugin"]["nll"]))
    older = trained.told("evaluate", path, "--plugin", "1")
    assert older["plugin"]["nll"] > told["plugin"]["nll"]
    assert "plugin" not in trained.told("evaluate", path, "--base")
    assert "version 2" in trained("evaluate", path)[1]
    assert "version" not in trained("evaluate", path, "--base")[1]


def test_evaluate_needs_something_to_foresee(trained, tmp_path):
    path = tmp_path / "short.txt"
    path.write_text("a")
    code, _, err = trained("evaluate", path)
    assert code == 1
    assert "no token to foresee" in err


def test_a_plugin_of_another_backbone_is_not_evaluated(trained, notes):
    config = trained.settings.home / "plugins" / "mine" / "2" / "adapter_config.json"
    config.write_text(config.read_text().replace("f" * 64, "e" * 64))
    code, _, err = trained("evaluate", notes)
    assert code == 1
    assert "made for backbone eeee" in err


@pytest.mark.parametrize(
    "words", [("use",), ("export", "1"), ("list", "1"), ("rollback", "1"), ("show", "1", "x"), ()]
)
def test_words_that_are_missing_or_too_many_are_wrong_usage(sideplug, capsys, words):
    with pytest.raises(SystemExit) as caught:
        cli.main(["plugins", *words])
    assert caught.value.code == 2
    assert "usage:" in capsys.readouterr().err


def test_on_a_terminal_there_are_bars(sideplug, notes, monkeypatch):
    sideplug("learn", notes)
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    code, _, err = sideplug("train")
    assert code == 0
    for task in ("kit: ", "features: ", "training: ", "epoch 3 of 3"):
        assert task in err
