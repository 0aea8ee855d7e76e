import numpy as np
import pytest

from device_agent.cloud.client import CloudClient, CloudUnreachable
from device_agent.cloud.features import fetch, missing
from device_agent.data.examples import Encoded
from device_agent.data.prefix import behind
from device_agent.data.tap_cache import TapCache
from protocol import versions
from protocol.errors import PrefixNotFound
from protocol.messages import Tokens
from tests.device_agent.scripted_cloud import Answer, ScriptedCloud, in_turn
from tests.device_agent.teaching import TeachingCloud, states_of, wants_of


def text(*ids, unscored=0):
    scored = np.ones(len(ids) - 1, np.float32)
    scored[:unscored] = 0
    return Encoded(np.array(ids, np.uint32), scored)


A, B, CHAT = text(1, 2, 3), text(4, 5, 6, 7), text(1, 2, 3, 4, 5, unscored=2)


@pytest.fixture
def world(tmp_path):
    cloud = TeachingCloud(tmp_path / "cloud")
    with cloud.serving(), CloudClient(cloud.url, sleep=lambda _: None) as client:
        fingerprint = cloud.manifest.fingerprint
        yield cloud, client, TapCache(tmp_path / "features", fingerprint, wants_of(cloud.manifest))


def test_each_text_is_sent_once_whatever_is_asked(world):
    cloud, client, cache = world
    told = []
    first = fetch(lambda: client, cache, [A, B, A], lambda *progress: told.append(progress))
    again = fetch(lambda: client, cache, [A, B])
    more = fetch(lambda: client, cache, [A, CHAT, B])
    assert cloud.read == [A.fed.tobytes(), B.fed.tobytes(), CHAT.fed.tobytes()]
    assert (first.texts, first.sent_texts, first.tokens, first.sent_tokens) == (2, 2, 5, 5)
    assert (again.sent_texts, more.sent_texts) == (0, 1)
    assert told == [(2, 5), (5, 5)]


def test_the_last_token_stays_here(world):
    cloud, client, cache = world
    fetch(lambda: client, cache, [A])
    assert cloud.read == [np.array([1, 2], np.uint32).tobytes()]


def test_features_are_those_of_the_backbone(world):
    cloud, client, cache = world
    fetch(lambda: client, cache, [CHAT])
    expected = states_of(CHAT.fed, cloud.head)
    with cache.get(CHAT.fed, CHAT.first) as features:
        got = features.states(cloud.manifest.taps, slice(None))
    np.testing.assert_allclose(got.taps, expected.taps[:, 2:], rtol=1e-3, atol=1e-6)
    np.testing.assert_allclose(got.log_z, expected.log_z[2:])


def test_a_damaged_file_is_fetched_again(world):
    cloud, client, cache = world
    fetch(lambda: client, cache, [A, B])
    path = cache.path(A.fed)
    path.write_bytes(path.read_bytes()[:-1] + b"\x00")
    fetch(lambda: client, cache, [A, B])
    assert len(cloud.read) == 3
    assert missing(cache, [A, B]) == []


def test_without_a_cloud_what_is_there_is_enough(world):
    _, client, cache = world
    fetch(lambda: client, cache, [A])

    def nobody():
        raise AssertionError("the cloud was asked")

    assert fetch(nobody, cache, [A]).tokens == 2


def test_what_came_before_an_interruption_is_kept(world, tmp_path):
    cloud, _, cache = world
    first_frame = next(cloud.features_of(versions.encode(Tokens(1, 0, len(A.fed), A.fed))))
    breaking = ScriptedCloud(in_turn(Answer(first_frame, missing=100), Answer(status=502)))
    with (
        breaking.serving(),
        CloudClient(breaking.url, sleep=lambda _: None) as client,
        pytest.raises(CloudUnreachable),
    ):
        fetch(lambda: client, cache, [A, B])
    assert [one.fed.tolist() for one in missing(cache, [A, B])] == [B.fed.tolist()]


def before(text, *prefix):
    return behind(text, np.array(prefix, np.uint32))


def test_a_prefix_is_read_once_for_all_texts_behind_it(world):
    cloud, client, cache = world
    texts = [before(A, 9, 8), before(B, 9, 8), before(A, 7, 7, 7), A]
    found = fetch(lambda: client, cache, texts)
    assert cloud.sessions.read == [[9, 8], [7, 7, 7]]
    fed = [np.frombuffer(read, np.uint32).tolist() for read in cloud.read]
    assert sorted(fed) == [[1, 2], [1, 2], [1, 2], [4, 5, 6]]
    assert found.sent_tokens == 2 + 3 + 2 + 2
    assert missing(cache, texts) == []


def test_a_prefix_lost_on_the_way_is_sent_again(world):
    cloud, client, cache = world
    texts = [before(text(n, n + 1), 9, 8) for n in range(300)]

    def forgetful(done, _total):
        if done == 256:
            cloud.sessions.forget()

    fetch(lambda: client, cache, texts, forgetful)
    assert cloud.sessions.read == [[9, 8]] * 2
    assert len(cloud.read) == 300
    assert missing(cache, texts) == []


def test_a_prefix_that_is_always_lost_is_given_up(world):
    cloud, client, cache = world
    keep = cloud.sessions._prefix

    def lost(body):
        answer = keep(body)
        cloud.sessions.forget()
        return answer

    cloud.sessions._prefix = lost
    with pytest.raises(PrefixNotFound):
        fetch(lambda: client, cache, [before(A, 9, 8)])
