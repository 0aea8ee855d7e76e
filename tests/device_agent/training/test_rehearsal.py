from dataclasses import replace

import numpy as np
import pytest

from device_agent.cloud.client import CloudUnreachable
from device_agent.cloud.link import STORE, Link
from device_agent.data.examples import Example
from device_agent.data.store import Store
from device_agent.training.batches import FeatureRows, Run
from device_agent.training.learning import learn
from device_agent.training.rehearsal import ANSWER, PROBE, REQUESTS, rehearsal
from device_agent.training.watcher import Watcher
from tests.device_agent.home import ASSISTANT, LETTERS, USER
from tests.device_agent.scripted_cloud import json_answer
from tests.device_agent.teaching import ALPHABET, teaching_home

NOBODY = "http://127.0.0.1:9"


@pytest.fixture
def world(tmp_path):
    with teaching_home(tmp_path, positions=320) as (cloud, settings):
        yield cloud, settings


def asked(settings):
    with Link(settings, sleep=lambda _: None) as link:
        return rehearsal(link)


def test_the_answers_are_the_backbones_own_up_to_its_stop_token(world):
    practised, probes = asked(world[1])
    requests = REQUESTS.read_text().splitlines()
    assert len(practised) + len(probes) == len(requests)
    for one in [*practised, *probes]:
        answer = one.targets.tolist()
        # The toy counts on from the token that begins the assistant's turn; z ends it.
        assert answer == list(range(26))
        assert len(answer) <= ANSWER
        assert one.ids[0] == USER
        assert one.ids[one.first] == ASSISTANT
        assert not one.document


def test_requests_that_show_what_happens_are_never_rehearsed(world):
    practised, probes = asked(world[1])
    lengths = [len(request) for request in REQUESTS.read_text().splitlines()]
    shown = [len(one.ids) - 26 - 2 for one in probes]
    assert shown == lengths[PROBE - 1 :: PROBE]
    assert not {one.ids.tobytes() for one in practised} & {one.ids.tobytes() for one in probes}


def test_no_request_is_there_twice():
    requests = REQUESTS.read_text().splitlines()
    assert len(set(requests)) == len(requests) > 40
    assert all(request.strip() == request for request in requests)


def test_answers_are_fetched_once_for_a_backbone(world):
    cloud, settings = world
    first = asked(settings)
    sent = len(cloud.requests)
    again = asked(replace(settings, cloud=NOBODY))
    assert len(cloud.requests) == sent
    for one, other in zip(first.practised, again.practised, strict=True):
        np.testing.assert_array_equal(one.ids, other.ids)
    assert cloud.sessions.sessions == {}, "nothing stays open"


@pytest.mark.parametrize("damage", ["", "{", "[[1]]", '{"a": 1}', '[[["x"], [1]]]'])
def test_answers_that_cannot_be_read_are_fetched_anew(world, damage):
    _, settings = world
    expected = asked(settings)
    (path,) = (settings.home / "features").glob("rehearsal-*.json")
    path.write_text(damage)
    with pytest.raises(CloudUnreachable):
        asked(replace(settings, cloud=NOBODY))
    found = asked(settings)
    assert [one.ids.tolist() for one in found.probes] == [
        one.ids.tolist() for one in expected.probes
    ]


def test_a_backbone_that_does_not_chat_rehearses_nothing(world):
    cloud, settings = world
    cloud.facts = replace(cloud.facts, chat_template=None)
    cloud._static["/v1/backbone"] = json_answer(cloud.facts.to_json())
    assert asked(settings) == ([], [])


def test_requests_that_leave_no_room_are_left_out(tmp_path):
    with teaching_home(tmp_path, positions=32) as (_, settings):
        assert asked(settings) == ([], [])


def test_rehearsed_rows_are_learned_from_and_read_once(world):
    _, settings = world
    chats = [
        Example(messages=(("user", LETTERS[i : i + 3]), ("assistant", LETTERS[i + 3 : i + 9])))
        for i in range(12)
    ]
    with Store(settings.home / STORE) as store:
        store.add_examples([Example(text=ALPHABET), *chats], "test")
    with Link(replace(settings, prefix=64)) as link:
        lesson = learn(link, {"threads": 1}, Watcher())
    corpus = lesson.corpus
    rows = corpus.training()
    assert isinstance(rows, FeatureRows)
    assert rows.rehearsed.sum() == len(corpus.rehearsal.practised) > 30
    prefix = corpus.prefixed.prefix
    for one in corpus.rehearsed:
        np.testing.assert_array_equal(one.ids[: one.prefix], prefix)
    own = sum(len(one.rows) for one in corpus.prefixed.windows if one.document)
    own += 2 * sum(len(one.rows) for one in corpus.prefixed.windows if not one.document)
    rehearsed = 26 * len(corpus.rehearsal.practised)
    assert lesson.trained.steps == lesson.trained.course.epoch * -(-(own + rehearsed) // 32)
    finals = np.empty((1, lesson.version.weights()["scale"].shape[0]), np.float32)
    rows.read([Run(len(rows) - 1, len(rows))], None, finals)
    assert rows.tokens[-1] == 25


def test_the_card_says_what_becomes_of_general_requests(world):
    _, settings = world
    with Store(settings.home / STORE) as store:
        store.add_examples([Example(text=ALPHABET)], "test")
    with Link(settings) as link:
        lesson = learn(link, {"threads": 1}, Watcher())
    told = lesson.version.card["requests"]
    assert told["tokens"] == 26 * len(lesson.corpus.rehearsal.probes)
    assert told["plugin"]["nll"] < told["base"]["nll"], "they count as well"
    assert lesson.to_json()["requests"] == pytest.approx(
        told["plugin"]["nll"] - told["base"]["nll"]
    )
