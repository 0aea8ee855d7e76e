import numpy as np
import pytest

from device_agent.cloud.client import CloudClient, CloudUnreachable
from device_agent.cloud.session import REPLAYS, RemoteSession
from protocol.errors import ContextExceeded, MalformedMessage, PrefixNotFound, SessionNotFound
from protocol.limits import Limits
from protocol.messages import Wants
from tests.device_agent.scripted_cloud import Answer, ScriptedCloud, in_turn, json_answer
from tests.device_agent.toy_backbone import ToyBackbone, toy_states

WANTS = Wants(layers=(1, 3), final=True, log_z=False, candidates=0, codec="f32")


class Toy:
    def __init__(self, backbone, server, cloud):
        self.backbone, self.server, self.cloud = backbone, server, cloud

    def kept(self):
        """The tokens of the one session the cloud has."""
        ((ids, _),) = self.backbone.sessions.values()
        return ids


@pytest.fixture
def toy():
    backbone = ToyBackbone()
    with ScriptedCloud(backbone).serving() as server:
        with CloudClient(server.url, sleep=lambda _: None) as cloud:
            yield Toy(backbone, server, cloud)


def expect(states, ids, first):
    truth = toy_states(ids, first, WANTS)
    assert states.position == first
    np.testing.assert_array_equal(states.taps, truth.taps)
    np.testing.assert_array_equal(states.final, truth.final)


def test_each_step_is_one_request_and_brings_what_was_wanted(toy):
    with RemoteSession(toy.cloud, WANTS) as session:
        expect(session.step([4, 5, 6]), [4, 5, 6], 2)
        expect(session.step(np.array([7, 8], dtype=np.uint32), wanted=2), [4, 5, 6, 7, 8], 3)
        assert session.position == 5
        assert list(session.tokens) == [4, 5, 6, 7, 8]
    assert [path.split("/")[-1] for path in toy.server.paths()] == [
        "sessions",
        "step",
        "step",
        "s0",
    ]
    assert toy.backbone.sessions == {}


def test_step_ids_never_repeat(toy):
    session = RemoteSession(toy.cloud, WANTS)
    for token in range(4):
        session.step([token])
    steps = [tokens.step for tokens in toy.backbone.steps]
    assert len(set(steps)) == 4


def test_a_forgotten_session_is_opened_again_with_its_tokens(toy):
    session = RemoteSession(toy.cloud, WANTS)
    session.step([4, 5, 6])
    toy.backbone.forget()
    expect(session.step([7]), [4, 5, 6, 7], 3)
    expect(session.step([8]), [4, 5, 6, 7, 8], 4)
    assert toy.kept() == [4, 5, 6, 7, 8]


def test_a_session_that_is_forgotten_at_once_again_is_given_up():
    lost = SessionNotFound(session="s")
    opened = {"session": "s", "position": 0, "limit": 9, "idle_seconds": 1}
    replies = [json_answer(opened, 201), json_answer(lost.to_json(), 404)]
    with ScriptedCloud(in_turn(*replies * (REPLAYS + 1))).serving() as server:
        with CloudClient(server.url) as cloud, pytest.raises(SessionNotFound):
            RemoteSession(cloud, WANTS).step([1])
    assert len(server.requests) == 2 * (REPLAYS + 1)


def test_a_crop_forgets_the_end(toy):
    session = RemoteSession(toy.cloud, WANTS)
    session.step([4, 5, 6, 7])
    session.crop(2)
    assert session.position == 2
    expect(session.step([9]), [4, 5, 9], 2)


def test_a_crop_to_where_the_session_is_asks_nothing(toy):
    session = RemoteSession(toy.cloud, WANTS)
    session.step([4])
    before = len(toy.server.requests)
    session.crop(1)
    assert len(toy.server.requests) == before


def test_a_crop_of_a_forgotten_session_is_made_good_by_the_next_step(toy):
    session = RemoteSession(toy.cloud, WANTS)
    session.step([4, 5, 6])
    toy.backbone.forget()
    session.crop(1)
    expect(session.step([9]), [4, 9], 1)


@pytest.mark.parametrize("position", [-1, 4])
def test_a_crop_outside_the_session_is_refused(toy, position):
    session = RemoteSession(toy.cloud, WANTS)
    session.step([4, 5, 6])
    with pytest.raises(ValueError, match="crop"):
        session.crop(position)


def test_drafted_tokens_come_with_their_states_and_are_in_the_session(toy):
    session = RemoteSession(toy.cloud, WANTS)
    states = session.step([4, 5], drafts=3)
    expect(states, [4, 5, 6, 7, 8], 1)
    assert states.drafted.tolist() == [6, 7, 8]
    assert list(session.tokens) == toy.kept() == [4, 5, 6, 7, 8]
    expect(session.step([9]), [4, 5, 6, 7, 8, 9], 5)


def test_no_more_is_drafted_than_the_cloud_allows(toy):
    toy.cloud.limits = Limits(drafts=2)
    session = RemoteSession(toy.cloud, WANTS)
    assert session.step([4], drafts=9).drafted.tolist() == [5, 6]


@pytest.mark.parametrize(("position", "kept"), [(2, [4, 5]), (3, [4, 5, 6]), (4, [4, 5, 6, 7])])
def test_what_was_drafted_in_vain_is_taken_back_without_a_request(toy, position, kept):
    session = RemoteSession(toy.cloud, WANTS)
    session.step([4, 5], drafts=3)
    before = len(toy.server.requests)
    session.crop(position)
    assert list(session.tokens) == kept
    expect(session.step([20], drafts=1), [*kept, 20, 21], position)
    assert toy.kept() == [*kept, 20, 21]
    assert len(toy.server.requests) == before + 1


def test_what_was_guessed_in_vain_is_taken_back_without_a_request(toy):
    session = RemoteSession(toy.cloud, WANTS)
    session.step([4])
    expect(session.step([5, 30, 31], wanted=3), [4, 5, 30, 31], 1)
    session.crop(2)
    expect(session.step([6]), [4, 5, 6], 2)
    assert [path.rsplit("/", 1)[1] for path in toy.server.paths()] == ["sessions"] + ["step"] * 3


def test_in_front_of_the_last_answer_a_crop_asks(toy):
    session = RemoteSession(toy.cloud, WANTS)
    session.step([4, 5], drafts=2)
    session.crop(1)
    assert toy.server.paths()[-1].endswith("/crop")
    expect(session.step([9]), [4, 9], 1)
    # What the crop left is loose no more.
    session.crop(1)
    expect(session.step([3, 8]), [4, 3, 8], 2)


def test_a_session_forgotten_with_its_drafts_gets_those_that_were_kept(toy):
    session = RemoteSession(toy.cloud, WANTS)
    session.step([4, 5], drafts=3)
    session.crop(3)
    toy.backbone.forget()
    expect(session.step([9], drafts=2), [4, 5, 6, 9, 10, 11], 3)
    assert toy.kept() == [4, 5, 6, 9, 10, 11]


def test_a_draft_whose_answer_is_lost_is_taken_back(toy):
    session = RemoteSession(toy.cloud, WANTS)
    session.step([4, 5], drafts=3)
    session.crop(3)
    reply = toy.backbone._step

    def lose(*args):
        reply(*args)
        return Answer(b"", 502)

    toy.backbone._step = lose
    with pytest.raises(CloudUnreachable):
        session.step([20], drafts=2)
    toy.backbone._step = reply
    assert toy.kept() == [4, 5, 6, 20, 21, 22]  # it had arrived
    expect(session.step([7]), [4, 5, 6, 7], 3)
    assert toy.kept() == [4, 5, 6, 7]


PREFIX = [20, 21, 22]


def test_a_session_begins_behind_its_prefix_which_is_read_once(toy):
    for _ in range(2):
        with RemoteSession(toy.cloud, WANTS, PREFIX) as session:
            assert (session.position, session.limit) == (3, 64)
            expect(session.step([4, 5]), [*PREFIX, 4, 5], 4)
            assert list(session.tokens) == [*PREFIX, 4, 5]
    assert toy.backbone.read == [PREFIX]
    assert [(step.position, len(step.ids)) for step in toy.backbone.steps] == [(3, 2)] * 2


def test_a_forgotten_session_gets_its_prefix_first_and_then_its_tokens(toy):
    session = RemoteSession(toy.cloud, WANTS, PREFIX)
    session.step([4, 5])
    toy.backbone.forget()
    expect(session.step([6]), [*PREFIX, 4, 5, 6], 5)
    assert toy.backbone.read == [PREFIX] * 2
    assert toy.kept() == [*PREFIX, 4, 5, 6]


def test_a_session_whose_prefix_alone_is_forgotten_goes_on(toy):
    session = RemoteSession(toy.cloud, WANTS, PREFIX)
    toy.backbone.prefixes.clear()
    expect(session.step([6]), [*PREFIX, 6], 3)
    assert toy.backbone.read == [PREFIX]


def test_a_prefix_that_is_lost_before_the_session_is_opened_is_sent_again(toy):
    find, lost = toy.backbone.require_prefix, []

    def lose_once(name):
        if not lost:
            lost.append(name)
            toy.backbone.forget()
        return find(name)

    toy.backbone.require_prefix = lose_once
    session = RemoteSession(toy.cloud, WANTS, PREFIX)
    assert session.position == 3
    assert toy.backbone.read == [PREFIX] * 2


def test_a_prefix_that_is_always_lost_is_given_up(toy):
    def lose(name):
        raise PrefixNotFound(prefix=name)

    toy.backbone.require_prefix = lose
    with pytest.raises(PrefixNotFound):
        RemoteSession(toy.cloud, WANTS, PREFIX)


def test_a_session_that_does_not_begin_where_its_prefix_ends_is_refused(toy):
    toy.backbone.require_prefix = lambda _name: []
    with pytest.raises(MalformedMessage, match="began at 0"):
        RemoteSession(toy.cloud, WANTS, PREFIX)


def test_another_prefix_than_was_sent_is_refused(toy):
    kept = {"prefix": "p", "position": 2, "idle_seconds": 60}
    toy.backbone.other["/v1/prefixes"] = json_answer(kept, 201)
    with pytest.raises(MalformedMessage, match="one of 2 is kept"):
        RemoteSession(toy.cloud, WANTS, PREFIX)


def test_a_prefix_cannot_be_cropped(toy):
    session = RemoteSession(toy.cloud, WANTS, PREFIX)
    session.step([4, 5])
    session.crop(3)
    expect(session.step([7]), [*PREFIX, 7], 3)
    with pytest.raises(ValueError, match="prefix"):
        session.crop(2)


def test_long_prompts_go_in_steps_within_the_limits(toy):
    toy.cloud.limits = Limits(tokens=10)
    session = RemoteSession(toy.cloud, WANTS)
    ids = list(range(25))
    expect(session.step(ids, wanted=9), ids, 16)
    assert [len(t.ids) for t in toy.backbone.steps] == [10, 6, 9]
    assert toy.kept() == ids


@pytest.mark.parametrize(("ids", "wanted"), [([], 1), ([1], 0), ([1], 2), (list(range(11)), 11)])
def test_wanting_what_a_step_cannot_bring_is_refused(toy, ids, wanted):
    toy.cloud.limits = Limits(tokens=10)
    session = RemoteSession(toy.cloud, WANTS)
    with pytest.raises(ValueError, match="wanted"):
        session.step(ids, wanted)
    assert toy.backbone.steps == []


def test_a_full_session_adds_nothing(toy):
    toy.cloud.limits = Limits(tokens=50)
    session = RemoteSession(toy.cloud, WANTS)
    session.step([1] * 10)
    with pytest.raises(ContextExceeded):
        session.step([2] * 60)
    assert session.position == 10
    # The first part of what did not fit had arrived; it is taken back before anything else.
    expect(session.step([3]), [1] * 10 + [3], 10)
    assert toy.kept() == [1] * 10 + [3]


def test_a_step_whose_answer_is_lost_can_be_made_again(toy):
    session = RemoteSession(toy.cloud, WANTS)
    session.step([4])
    reply = toy.backbone._step

    def lose(*args):
        reply(*args)
        return Answer(b"", 502)

    toy.backbone._step = lose
    with pytest.raises(CloudUnreachable):
        session.step([5])
    toy.backbone._step = reply
    assert toy.kept() == [4, 5]  # it had arrived
    expect(session.step([6]), [4, 6], 1)
    assert toy.kept() == [4, 6]


def test_states_of_other_taps_than_were_wanted_are_refused(toy):
    session = RemoteSession(toy.cloud, WANTS)
    ids, _ = toy.backbone.sessions["s0"]
    toy.backbone.sessions["s0"] = (ids, Wants((0,), True, False, 0, "f32"))
    with pytest.raises(MalformedMessage, match="taps"):
        session.step([4])


def test_closing_a_forgotten_session_is_no_error(toy):
    session = RemoteSession(toy.cloud, WANTS)
    toy.backbone.forget()
    session.close()


def test_what_ends_a_session_is_not_hidden_by_what_hinders_its_closing(toy):
    session = RemoteSession(toy.cloud, WANTS)
    toy.backbone.other = {"/v1/sessions/s0": Answer(b"", 502)}
    with pytest.raises(ZeroDivisionError), session:
        raise ZeroDivisionError


def test_a_session_lost_again_while_it_is_replayed_is_replayed_again(toy):
    session = RemoteSession(toy.cloud, WANTS)
    session.step([4, 5, 6])
    toy.backbone.forget()
    reply, losses = toy.backbone._step, [1, 2]

    def forgetful(*args):
        if losses.pop():
            toy.backbone.forget()
            toy.backbone._step = forgetful if losses else reply
            raise SessionNotFound(session="s")
        return reply(*args)

    toy.backbone._step = forgetful
    expect(session.step([7]), [4, 5, 6, 7], 3)


def test_a_crop_while_the_cloud_is_away_is_made_good_by_the_next_step(toy):
    session = RemoteSession(toy.cloud, WANTS)
    session.step([4, 5, 6])
    toy.backbone.other = dict.fromkeys(["/v1/sessions/s0/crop"], Answer(b"", 502))
    session.crop(1)
    toy.backbone.other = {}
    expect(session.step([9]), [4, 9], 1)
    assert toy.kept() == [4, 9]
