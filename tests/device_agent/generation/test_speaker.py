from dataclasses import replace

import pytest

from device_agent.cloud.link import Link
from device_agent.generation.sampling import Sampling
from device_agent.generation.speaker import EmptyPrompt, Speaker
from device_agent.plugins import PluginStore
from device_agent.runtime.kits import WrongBackbone
from protocol.errors import ContextExceeded
from tests.device_agent.home import add_plugin, toy_home
from tests.device_agent.scripted_cloud import json_answer
from tests.device_agent.small_kit import TAPS, small_facts


@pytest.fixture
def toy(tmp_path):
    with toy_home(tmp_path, limit=30) as (cloud, settings):
        yield cloud, settings


def say(speaker, prompt, limit=3, **options):
    ids = speaker.read(prompt)
    return "".join(piece.text for piece in speaker.answer(ids, Sampling(), limit, **options))


def user(text):
    return {"role": "user", "content": text}


def assistant(text):
    return {"role": "assistant", "content": text}


def test_without_a_plugin_the_backbone_speaks_and_no_taps_travel(toy):
    cloud, settings = toy
    with Link(settings) as link, Speaker(link, None) as speaker:
        assert say(speaker, "dc") == "def"
        assert cloud.backbone.sessions["s0"][1].layers == ()


def test_a_plugin_speaks_and_the_base_can_be_asked_beside_it(toy):
    cloud, settings = toy
    add_plugin(settings, cloud.manifest, token=20)
    with Link(settings) as link:
        with Speaker(link, PluginStore(settings.home).current()) as speaker:
            assert cloud.backbone.sessions["s0"][1].layers == TAPS
            assert say(speaker, "dc") == "uuu"
            assert say(speaker, "dc", base=True) == "def"


def test_a_plugin_that_does_not_help_rests_and_no_taps_travel(toy):
    cloud, settings = toy
    add_plugin(settings, cloud.manifest, token=20, speaks="prefix")
    with Link(settings) as link:
        with Speaker(link, PluginStore(settings.home).current()) as speaker:
            assert cloud.backbone.sessions["s0"][1].layers == ()
            assert say(speaker, "dc") == "def"


def test_a_plugin_for_another_backbone_is_refused_before_anything_is_fetched(toy):
    cloud, settings = toy
    add_plugin(settings, cloud.manifest, token=20)
    cloud.backbone.other["/v1/backbone"] = json_answer(small_facts(fingerprint="0" * 64).to_json())
    with Link(settings) as link, pytest.raises(WrongBackbone):
        Speaker(link, PluginStore(settings.home).current())
    assert cloud.paths() == ["GET /v1/backbone"]


def test_the_session_is_closed_in_the_end(toy):
    cloud, settings = toy
    with Link(settings) as link, Speaker(link, None) as speaker:
        say(speaker, "a")
    assert cloud.backbone.sessions == {}


def test_a_cloud_that_is_gone_in_the_end_is_no_error(toy):
    cloud, settings = toy
    with Link(settings, sleep=lambda _: None) as link, Speaker(link, None):
        cloud.backbone.other["/v1/sessions/s0"] = json_answer({}, 502)


def test_each_prompt_begins_anew_unless_it_may_be_reused(toy):
    cloud, settings = toy
    with Link(settings) as link, Speaker(link, None) as speaker:
        for _ in range(2):
            assert say(speaker, "abc") == "def"
    assert [step.ids.tolist() for step in cloud.backbone.steps if step.position == 0] == [
        [0, 1, 2]
    ] * 2


def test_what_the_session_has_read_already_is_not_sent_again(toy):
    cloud, settings = toy
    with Link(settings) as link, Speaker(link, None) as speaker:
        say(speaker, "abc", reuse=True)
        cloud.backbone.steps.clear()
        assert say(speaker, "abcdk", limit=2, reuse=True) == "lm"
        assert cloud.backbone.steps[0].ids.tolist() == [10]
        assert say(speaker, "abcdk", limit=1, reuse=True) == "l"
        assert cloud.backbone.steps[-1].ids.tolist() == [10]


PREFIX = (7, 8, 9)


@pytest.mark.parametrize("reuse", [False, True])
def test_the_personal_prefix_is_read_once_for_all_prompts(toy, reuse):
    cloud, settings = toy
    add_plugin(settings, cloud.manifest, token=20, prefix=PREFIX)
    with Link(settings) as link:
        with Speaker(link, PluginStore(settings.home).current()) as speaker:
            assert say(speaker, "ab", limit=1, reuse=reuse) == "u"
            assert say(speaker, "cd", limit=1, reuse=reuse) == "u"
            sent = [(step.position, step.ids.tolist()) for step in cloud.backbone.steps]
            assert sent == [(3, [0, 1]), (3, [2, 3])]
            assert cloud.backbone.read == [list(PREFIX)]


def test_a_prefix_that_is_switched_off_is_not_sent(toy):
    cloud, settings = toy
    add_plugin(settings, cloud.manifest, token=20, prefix=PREFIX)
    with Link(replace(settings, prefix=0)) as link:
        with Speaker(link, PluginStore(settings.home).current()) as speaker:
            assert say(speaker, "ab", limit=1) == "u"
            assert cloud.backbone.read == []
            assert cloud.backbone.sessions["s0"][0] == [0, 1]


def test_the_frozen_backbone_alone_is_told_nothing_personal(toy):
    cloud, settings = toy
    add_plugin(settings, cloud.manifest, token=20, prefix=PREFIX)
    with Link(settings) as link:
        with Speaker(link, PluginStore(settings.home).current()) as speaker:
            say(speaker, "ab", limit=1)
            assert say(speaker, "ab", limit=1, base=True) == "c"
            assert cloud.backbone.steps[-1].position == 0
            assert cloud.backbone.steps[-1].ids.tolist() == [0, 1]
            ids, _ = cloud.backbone.sessions["s1"]
            assert ids == [0, 1]
            assert say(speaker, "ab", limit=1) == "u"
            assert cloud.backbone.steps[-1].position == 3
            assert cloud.backbone.read == [list(PREFIX)]
    assert cloud.backbone.sessions == {}


def test_a_penalty_leaves_the_words_of_the_prefix_alone(toy):
    cloud, settings = toy
    strict = Sampling(repetition=1e9)
    add_plugin(settings, cloud.manifest, token=20, prefix=(20,))
    with Link(settings) as link:
        with Speaker(link, PluginStore(settings.home).current()) as speaker:
            assert [piece.token for piece in speaker.answer([1], strict, 1)] == [20]
            assert [piece.token for piece in speaker.answer([20, 1], strict, 1)] == [2]


def test_the_prefix_takes_its_room_from_the_conversation(toy):
    cloud, settings = toy
    add_plugin(settings, cloud.manifest, token=20, prefix=PREFIX * 5)
    with Link(settings) as link:
        with Speaker(link, PluginStore(settings.home).current()) as speaker:
            turns = [user("aaaa"), assistant("bbbb"), user("e")]
            assert speaker.fit(turns, 2) == speaker.ask(turns)
            assert speaker.fit(turns, 4) == speaker.ask(turns[2:])
            with pytest.raises(ContextExceeded):
                speaker.fit([user("a" * 14)], 1)


def test_a_conversation_becomes_the_templates_tokens(toy):
    _, settings = toy
    with Link(settings) as link, Speaker(link, None) as speaker:
        ids = speaker.ask([user("ab"), assistant("c"), user("d")])
        assert ids == [60, 0, 1, 63, 2, 60, 3, 63]


def test_an_empty_text_cannot_be_continued(toy):
    _, settings = toy
    with Link(settings) as link, Speaker(link, None) as speaker, pytest.raises(EmptyPrompt):
        speaker.read("")


def test_old_turns_are_left_out_when_the_answer_needs_their_room(toy):
    _, settings = toy
    system = {"role": "system", "content": "s"}
    turns = [system, user("aaaa"), assistant("bbbb"), user("cccc"), assistant("dddd"), user("e")]
    with Link(settings) as link, Speaker(link, None) as speaker:
        assert speaker.fit(turns, 5) == speaker.ask(turns)
        assert speaker.fit(turns, 10) == speaker.ask([system, *turns[3:]])
        assert speaker.fit(turns, 25) == speaker.ask([system, turns[5]])


def test_a_last_turn_that_leaves_little_room_is_asked_all_the_same(toy):
    _, settings = toy
    with Link(settings) as link, Speaker(link, None) as speaker:
        turns = [user("a" * 20)]
        assert speaker.fit(turns, 1000) == speaker.ask(turns)


def test_a_last_turn_that_does_not_fit_at_all_is_told(toy):
    _, settings = toy
    with Link(settings) as link, Speaker(link, None) as speaker:
        with pytest.raises(ContextExceeded):
            speaker.fit([user("b"), assistant("c"), user("a" * 40)], 5)


# --- whose text it is ---


@pytest.mark.parametrize("prefix", [(), PREFIX])
def test_a_text_is_continued_by_who_has_foreseen_it(toy, prefix):
    cloud, settings = toy
    add_plugin(settings, cloud.manifest, token=20, prefix=prefix)
    with Link(settings) as link:
        with Speaker(link, PluginStore(settings.home).current()) as speaker:
            assert say(speaker, "uuuuuu", text=True) == "uuu"
            assert say(speaker, "abcdef", text=True) == "ghi"
            assert say(speaker, "abcdef") == "uuu", "a conversation is no evidence"
            assert say(speaker, "uuuuuu", text=True, base=True) == "vwx"


def test_whose_text_it_is_does_not_depend_on_what_was_read_before(toy):
    cloud, settings = toy
    add_plugin(settings, cloud.manifest, token=20, prefix=PREFIX)
    version = PluginStore(settings.home).current()
    asked = ["uuuu", "uuuuu", "abcd", "abcdefgh", "abcd", "uuuu", "u", "abuuuuuu"]
    with Link(settings) as link:
        with Speaker(link, version) as speaker:
            together = [say(speaker, text, 2, text=True, reuse=True) for text in asked]
        alone = []
        for text in asked:
            with Speaker(link, version) as speaker:
                alone.append(say(speaker, text, 2, text=True))
    assert together == alone


def test_to_doubt_reads_a_text_once_in_each_session(toy):
    cloud, settings = toy
    add_plugin(settings, cloud.manifest, token=20, prefix=PREFIX)
    with Link(settings) as link:
        with Speaker(link, PluginStore(settings.home).current()) as speaker:
            assert say(speaker, "abcdef", limit=1, text=True) == "g"
            sent = [(step.position, step.ids.tolist()) for step in cloud.backbone.steps]
            assert sent == [(3, [0, 1, 2, 3, 4]), (0, [0, 1, 2, 3, 4]), (5, [5])]
            wants = [wants.layers for _, wants in cloud.backbone.sessions.values()]
            assert wants == [TAPS, ()], "the frozen backbone needs no taps"
