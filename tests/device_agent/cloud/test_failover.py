"""The cloud goes away in the middle of a text, in every way it can, and the text goes on."""

import random
import ssl
from contextlib import ExitStack
from dataclasses import replace

import numpy as np
import pytest
import trustme

from device_agent.cloud.client import CloudClient, CloudUnreachable, OtherBackbone
from device_agent.cloud.connection import PATIENT_TRIES, TRIES, BadAuthority
from device_agent.cloud.session import RemoteSession
from protocol import versions
from protocol.errors import Draining, Loading, TooManySessions
from protocol.gate import Gate
from protocol.limits import Limits
from protocol.stream import FrameReader
from tests.device_agent.cloud.test_session import WANTS, expect
from tests.device_agent.scripted_cloud import Answer, ScriptedCloud, json_answer
from tests.device_agent.small_kit import small_facts
from tests.device_agent.toy_backbone import ToyBackbone, toy_states

FACTS = small_facts()


class Place:
    """One address of the cloud, with a toy backbone of its own behind it."""

    def __init__(self, facts=FACTS):
        self.backbone = ToyBackbone(other={"/v1/backbone": json_answer(facts.to_json())})
        self.fault = None
        self.server = ScriptedCloud(self.answer)

    def answer(self, request):
        if self.fault is not None:
            return json_answer(self.fault.to_json(), self.fault.status)
        return self.backbone(request)

    def cut(self):
        """From now on no answer is whole."""
        self.backbone = lambda _: Answer(b"SPLG", missing=100)


@pytest.fixture
def two():
    first, second = Place(), Place()
    with first.server.serving(), second.server.serving():
        yield first, second


def client(*places, **options):
    urls = ",".join(place.server.url for place in places)
    return CloudClient(urls, sleep=lambda _: None, random=random.Random(0), **options)


def test_the_second_address_takes_over_with_the_same_tokens(two):
    first, second = two
    with client(*two) as cloud:
        cloud.facts()
        session = RemoteSession(cloud, WANTS)
        session.step([4, 5, 6])
        first.cut()
        expect(session.step([7]), [4, 5, 6, 7], 3)
        assert cloud.url == second.server.url
        ((ids, _),) = second.backbone.sessions.values()
        assert ids == [4, 5, 6, 7]
        # Who hosts the backbone there was asked before a token was sent.
        assert second.server.paths()[0] == "GET /v1/backbone"


@pytest.mark.parametrize("fault", [Loading(), Draining(), TooManySessions(limit=1)], ids=str)
def test_who_takes_nobody_in_is_left_for_the_next_at_once(two, fault):
    first, second = two
    pauses = []
    with CloudClient(f"{first.server.url},{second.server.url}", sleep=pauses.append) as cloud:
        session = RemoteSession(cloud, WANTS)
        session.step([4])
        first.fault = fault
        expect(session.step([5]), [4, 5], 1)
    assert pauses == []


def test_the_first_address_is_gone_back_to_when_the_second_goes(two):
    first, second = two
    with client(*two) as cloud:
        session = RemoteSession(cloud, WANTS)
        session.step([4])
        first.fault = Draining()
        session.step([5])
        first.fault, second.fault = None, Draining()
        expect(session.step([6]), [4, 5, 6], 2)
        assert cloud.url == first.server.url


def test_a_cloud_that_hosts_another_backbone_gets_no_token(two):
    first, _ = two
    other = Place(replace(FACTS, fingerprint="0" * 64))
    with other.server.serving(), client(first, other) as cloud:
        cloud.facts()
        session = RemoteSession(cloud, WANTS)
        session.step([4])
        first.fault = Draining()
        with pytest.raises((OtherBackbone, Draining)):
            session.step([5])
        assert {path for path in other.server.paths()} == {"GET /v1/backbone"}
        first.fault = None
        expect(session.step([5]), [4, 5], 1)


@pytest.mark.parametrize("gate", [None, Gate(0.5), Gate(0.5, (1.0,), 0.5)])
def test_a_cloud_that_knows_of_no_gates_is_sent_none(two, gate):
    first, _ = two
    old = Place(replace(FACTS, protocol=("1.1",)))
    with old.server.serving(), client(first, old) as cloud:
        cloud.facts()
        session = RemoteSession(cloud, WANTS, gate=gate)
        session.step([4])
        first.fault = Draining()
        if gate is None:
            expect(session.step([5]), [4, 5], 1)
            return
        with pytest.raises((OtherBackbone, Draining)):
            session.step([5])
        assert {path for path in old.server.paths()} == {"GET /v1/backbone"}


def test_a_cloud_started_anew_with_another_backbone_gets_no_token(two):
    first, _ = two
    with client(first) as cloud:
        cloud.facts()
        session = RemoteSession(cloud, WANTS)
        session.step([4])
        first.backbone.forget()
        changed = replace(FACTS, fingerprint="0" * 64)
        first.backbone.other["/v1/backbone"] = json_answer(changed.to_json())
        with pytest.raises(OtherBackbone, match="another backbone"):
            session.step([5])
        assert first.backbone.sessions == {}


def test_when_all_are_gone_there_is_an_end(two):
    pauses = []
    urls = ",".join(place.server.url for place in two)
    with CloudClient(urls, sleep=pauses.append, random=random.Random(0)) as cloud:
        session = RemoteSession(cloud, WANTS)
        session.step([4])
        for place in two:
            place.cut()
        before = sum(len(place.server.requests) for place in two)
        with pytest.raises(CloudUnreachable):
            session.step([5])
    assert sum(len(place.server.requests) for place in two) - before == 2 * PATIENT_TRIES
    assert len(pauses) == PATIENT_TRIES - 1
    assert 20 < sum(pauses) < 60
    assert len(set(pauses)) == len(pauses)  # no two devices come back at the same moments


def test_who_only_begins_does_not_wait_long(two):
    for place in two:
        place.cut()
    pauses = []
    urls = ",".join(place.server.url for place in two)
    with CloudClient(urls, sleep=pauses.append) as cloud, pytest.raises(CloudUnreachable):
        RemoteSession(cloud, WANTS)
    assert len(pauses) == TRIES - 1


def test_features_go_on_at_the_second_address_where_they_were(two):
    first, second = two

    def answers(place, most):
        def reply(request):
            if "features" not in request.path:
                return place.backbone(request)
            frames = list(FrameReader(Limits()).feed(request.body))
            asked = [versions.decode(frame) for frame in frames]
            out = [versions.encode(toy_states(list(t.ids), 0, WANTS)) for t in asked[:most]]
            return Answer(b"".join(out), missing=0 if most >= len(asked) else 50)

        return reply

    first.answer, second.answer = answers(first, 2), answers(second, 99)
    with ExitStack() as stack:
        servers = [ScriptedCloud(place.answer) for place in two]
        urls = ",".join(stack.enter_context(server.serving()).url for server in servers)
        cloud = stack.enter_context(CloudClient(urls, sleep=lambda _: None))
        texts = [np.arange(size, dtype=np.uint32) for size in (3, 4, 5, 6)]
        got = list(cloud.features(texts, WANTS))
    for text, states in zip(texts, got, strict=True):
        expect(states, text.tolist(), 0)
    assert [len(server.requests) for server in servers] == [1, 1]


def test_the_authority_of_the_settings_is_trusted_and_no_other(tmp_path):
    root, stranger = trustme.CA(), trustme.CA()
    for name, authority in (("root", root), ("stranger", stranger)):
        authority.cert_pem.write_to_path(str(tmp_path / f"{name}.pem"))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    root.issue_cert("127.0.0.1").configure_cert(context)
    place = Place()
    place.server._server.socket = context.wrap_socket(place.server._server.socket, server_side=True)
    url = place.server.url.replace("http:", "https:")
    with place.server.serving():
        with CloudClient(url, authority=str(tmp_path / "root.pem")) as cloud:
            assert cloud.facts() == FACTS
        for authority in ("", str(tmp_path / "stranger.pem")):
            with CloudClient(url, sleep=lambda _: None, authority=authority) as cloud:
                with pytest.raises(CloudUnreachable, match="certificate"):
                    cloud.facts()


def test_an_authority_that_is_none_is_named(tmp_path):
    file = tmp_path / "root.pem"
    for write in (lambda: None, lambda: file.write_text("no certificate")):
        write()
        with pytest.raises(BadAuthority, match=r"root\.pem"):
            CloudClient("https://there", authority=str(file))
