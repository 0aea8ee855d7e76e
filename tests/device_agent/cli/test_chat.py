import json
import signal
import sys
import time

import pytest

from tests.device_agent.desk import Terminal
from tests.device_agent.home import add_plugin


def test_chat_remembers_the_conversation(sideplug):
    _, out, err = sideplug("chat", "--max-tokens", "3", lines="a\nb\n")
    assert out == "abc\nabc\n"
    assert "frozen backbone" in err
    told = [step.ids.tolist() for step in sideplug.cloud.backbone.steps if len(step.ids) > 1]
    # The session has read "a" and the answer but for its last letter; the rest is sent.
    assert told == [[60, 0, 63], [2, 60, 1, 63]]


def test_chat_obeys_commands(sideplug):
    add_plugin(sideplug.settings, sideplug.cloud.manifest, token=20)
    lines = "a\n/base\na\n/base\na\n/new\n/what\n\n/quit\nb\n"
    code, out, err = sideplug("chat", "--max-tokens", "2", lines=lines)
    assert code == 0
    assert out == "uu\nab\nuu\n"
    for part in ("plugin 1", "frozen backbone answers now", "new conversation", "no /what"):
        assert part in err


def test_chat_new_forgets_the_conversation(sideplug):
    sideplug("chat", "--max-tokens", "1", "--system", "s", lines="a\n/new\nb\n")
    prompts = sideplug.cloud.backbone.steps
    assert prompts[0].ids.tolist() == [18, 60, 0, 63]
    assert (prompts[1].position, prompts[1].ids.tolist()) == (2, [1, 63])


def test_chat_json_is_one_answer_a_line(sideplug):
    _, out, err = sideplug("chat", "--json", "--max-tokens", "2", lines="a\n/base\nb\n")
    assert [json.loads(line) for line in out.splitlines()] == [
        {"text": "ab", "finished": "length", "base": False},
        {"text": "ab", "finished": "length", "base": True},
    ]
    assert err == ""


def test_a_program_that_pipes_lines_learns_of_a_failure(sideplug):
    sideplug.cloud.backbone.limit = 4
    code, _, err = sideplug("chat", lines="abcdefgh\n")
    assert code == 1
    assert "positions" in err


@pytest.mark.skipif(sys.platform == "win32", reason="there are no such terminals")
def test_a_person_at_a_terminal_can_talk_stop_an_answer_and_try_again(sideplug):
    quick = sideplug.cloud.backbone._step
    terminal = Terminal(sideplug, "chat", "--max-tokens", "30")
    terminal.wait_for("> ")
    sideplug.cloud.backbone._step = lambda *args: time.sleep(0.05) or quick(*args)
    terminal.type("x\n")
    terminal.wait_for("abc")
    terminal.process.send_signal(signal.SIGINT)
    terminal.wait_for("> ")
    assert len(sideplug.cloud.backbone.steps) < 25
    sideplug.cloud.backbone._step = quick
    terminal.type("a" * 70 + "\n")
    terminal.wait_for("Shorten")
    terminal.wait_for("> ")
    terminal.type("/new\ny\n")
    terminal.wait_for("abcdefghijklmnopqrstuvwxy")
    terminal.wait_for("> ")
    terminal.type("\x04")
    assert terminal.end() == 0
