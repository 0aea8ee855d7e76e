import json

import pytest

from device_agent.plugins import PluginStore
from tests.device_agent.home import add_plugin


def test_run_answers_a_prompt_as_the_template_asks(sideplug):
    assert sideplug("run", "xy", "--max-tokens", "5") == (0, "abcde\n", "")
    assert sideplug.cloud.backbone.steps[0].ids.tolist() == [60, 23, 24, 63]


def test_run_raw_continues_the_text(sideplug):
    assert sideplug("run", "--raw", "wxc", "--max-tokens", "3") == (0, "def\n", "")


def test_run_reads_a_prompt_from_a_pipe(sideplug):
    assert sideplug("run", "--raw", "-", "--max-tokens", "3", lines="c")[1] == "def\n"


def test_run_stops_at_stop_tokens_and_stop_strings(sideplug):
    assert sideplug("run", "--raw", "v")[1] == "wxy\n"  # z is the backbone's stop token
    assert sideplug("run", "--raw", "v", "--stop", "xy", "--stop", "q")[1] == "w\n"


def test_run_json_tells_everything(sideplug):
    code, out, _ = sideplug("run", "--raw", "abc", "--max-tokens", "4", "--json")
    told = json.loads(out)
    assert code == 0
    assert told.pop("seconds") > 0
    assert told.pop("tokens_per_second") > 0
    up = sum(len(r.body) for r in sideplug.cloud.requests if r.path.endswith("/step"))
    assert told.pop("bytes_up") == up
    assert told.pop("bytes_down") > 4 * 64 * 4
    assert told.pop("drafted") >= told.pop("accepted") > 0
    assert told.pop("made_with")["backbone"] == sideplug.cloud.facts.fingerprint
    assert told == {
        "prompt": "abc",
        "text": "defg",
        "prompt_tokens": 3,
        "tokens": 4,
        "finished": "length",
        "alone": 0,
        "plugin": None,
    }


@pytest.mark.parametrize(
    ("drafts", "requests", "counted"), [("off", 9, 0), ("8", 1, 8), ("3", 3, 6)]
)
def test_run_drafts_as_it_is_told(sideplug, drafts, requests, counted):
    words = ("run", "--raw", "abc", "--max-tokens", "9", "--json", "--drafts", drafts)
    told = json.loads(sideplug(*words)[1])
    assert told["text"] == "defghijkl"
    assert (told["drafted"], told["accepted"]) == (counted, counted)
    assert len(sideplug.cloud.backbone.steps) == requests


def test_run_prompts_answers_a_file_over_one_connection(sideplug, tmp_path):
    path = tmp_path / "prompts.jsonl"
    path.write_text('{"prompt": "abc"}\n\n{"prompt": "m", "more": 1}\n{"prompt": "v"}')
    _, out, _ = sideplug("run", "--raw", "--prompts", str(path), "--max-tokens", "4", "--json")
    told = [json.loads(line) for line in out.splitlines()]
    assert [(one["prompt"], one["text"], one["finished"]) for one in told] == [
        ("abc", "defg", "length"),
        ("m", "nopq", "length"),
        ("v", "wxy", "stop"),
    ]
    assert len({request.port for request in sideplug.cloud.requests}) == 1
    assert sideplug.cloud.paths().count("POST /v1/sessions") == 1


@pytest.mark.parametrize(
    ("line", "reason"),
    [(b"{", "no JSON"), (b"[]", "prompt"), (b'{"prompt": 1}', "prompt"), (b"\xff", "no JSON")],
)
def test_a_bad_line_of_prompts_is_told_before_anything_is_asked(sideplug, tmp_path, line, reason):
    path = tmp_path / "prompts.jsonl"
    path.write_bytes(b'{"prompt": "a"}\n' + line)
    code, out, err = sideplug("run", "--prompts", str(path))
    assert (code, out) == (1, "")
    assert f"{path}, line 2" in err
    assert reason in err
    assert sideplug.cloud.requests == []


def test_a_missing_file_is_told(sideplug):
    code, _, err = sideplug("run", "--prompts", "nowhere.jsonl")
    assert code == 1
    assert "nowhere.jsonl" in err


def test_run_uses_the_current_plugin_another_one_or_none(sideplug):
    add_plugin(sideplug.settings, sideplug.cloud.manifest, token=20)
    add_plugin(sideplug.settings, sideplug.cloud.manifest, token=21)
    raw = ("run", "--raw", "c", "--max-tokens", "3")
    assert sideplug(*raw)[1] == "vvv\n"
    assert sideplug(*raw, "--plugin", "1")[1] == "uuu\n"
    assert sideplug(*raw, "--base")[1] == "def\n"
    PluginStore(sideplug.settings.home).use(None)
    assert sideplug(*raw)[1] == "def\n"
    assert json.loads(sideplug(*raw, "--plugin", "2", "--json")[1])["plugin"] == "2"


def test_the_same_seed_gives_the_same_answer(sideplug):
    drawn = ("run", "--raw", "c", "--temperature", "50", "--max-tokens", "9", "--seed")
    assert sideplug(*drawn, "1")[1] == sideplug(*drawn, "1")[1] != sideplug(*drawn, "2")[1]


def test_a_person_sees_the_words_as_they_come(sideplug):
    with sideplug.start("run", "--raw", "c", "--max-tokens", "20") as process:
        first = process.stdout.read(1)
        asked = sum(path.endswith("/step") for path in sideplug.cloud.paths())
        process.communicate()
    assert first == "d"
    assert asked < 20
