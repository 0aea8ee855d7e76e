"""With drafts an answer is what it is without, in fewer requests."""

import numpy as np
import pytest

from device_agent.cloud.client import CloudClient
from device_agent.generation.drafting import Drafting, Tally
from device_agent.generation.sampling import Sampling
from device_agent.runtime.side_plugin import SidePlugin
from protocol.errors import Overloaded
from tests.device_agent.generation.test_generate import Toy, remembering, text, tokens
from tests.device_agent.scripted_cloud import ScriptedCloud, json_answer
from tests.device_agent.small_kit import HIDDEN
from tests.device_agent.toy_backbone import ToyBackbone

CHOICES = ["auto", "1", "3", "64"]


@pytest.fixture
def toy(tmp_path):
    backbone = ToyBackbone(limit=60)
    with ScriptedCloud(backbone).serving() as server:
        with CloudClient(server.url, sleep=lambda _: None) as cloud:
            yield Toy(tmp_path, cloud, server, backbone)


def pulling(toy, token, strength):
    """A plugin that draws to one token, the harder the higher the token before."""
    scale = np.zeros(HIDDEN, np.float32)
    scale[token] = strength
    return SidePlugin(toy.kit, {"scale": scale}, threads=1)


def told(pieces):
    return [(piece.text, piece.token, piece.finished) for piece in pieces]


SCENES = {
    "plain": lambda toy, _: {"limit": 20},
    "a plugin that agrees": lambda toy, _: {"plugin": pulling(toy, 20, 0.0), "limit": 20},
    # From 13 on it says 20, then always: the backbone agrees for a while and never again.
    "a plugin that takes over": lambda toy, _: {"plugin": pulling(toy, 20, 0.04), "limit": 20},
    "a memory": lambda toy, folder: {"memory": remembering(folder, {9: 4, 7: 8}), "limit": 30},
    "a memory that is drawn from": lambda toy, folder: {
        "memory": remembering(folder, {5: 20, 21: 2}),
        "sampling": Sampling(1.0, seed=3),
        "limit": 30,
    },
    "drawn": lambda toy, _: {"sampling": Sampling(3.0, seed=5), "limit": 30},
    "drawn out of a few": lambda toy, _: {
        "sampling": Sampling(4.0, top_k=5, top_p=0.9, seed=6),
        "limit": 30,
    },
    "a penalty": lambda toy, _: {
        "plugin": pulling(toy, 20, 0.25),
        "sampling": Sampling(repetition=20.0),
        "limit": 12,
    },
    "a stop token": lambda toy, _: {"stops": {9}, "limit": 30},
    "a stop string": lambda toy, _: {"strings": ["jk", "zz"], "limit": 30},
    "a stop string that never ends": lambda toy, _: {"strings": ["jkx"], "limit": 9},
    "one token": lambda toy, _: {"limit": 1},
    "the end of the context": lambda toy, _: {"prompt": [1] * 52, "limit": 30},
    "a text that repeats itself": lambda toy, _: {
        "prompt": [3, 4, 5, 9, 2, 3, 4, 5],
        "memory": None,
        "limit": 20,
    },
}


@pytest.mark.parametrize("choice", CHOICES)
@pytest.mark.parametrize("scene", SCENES.values(), ids=SCENES)
def test_an_answer_is_the_same_with_drafts(toy, tmp_path, scene, choice):
    options = scene(toy, tmp_path)
    layers = (1, 3) if options.get("plugin") else ()
    plain, drafted = toy.session(layers), toy.session(layers)
    expected = toy.run(**options, session=plain)
    drafting = Drafting(choice)
    assert told(toy.run(**options, session=drafted, drafting=drafting)) == told(expected)
    assert list(drafted.tokens) == list(plain.tokens)
    # What it learned of one answer changes nothing in the next.
    for session, others in ((plain, None), (drafted, drafting)):
        session.crop(0)
        assert told(toy.run(**options, session=session, drafting=others)) == told(expected)


def test_what_is_accepted_comes_in_few_requests(toy):
    drafting = Drafting("5")
    toy.run((3,), limit=24, drafting=drafting)
    assert [len(step.ids) for step in toy.backbone.steps] == [1, 1, 1, 1]
    assert [path.rsplit("/", 1)[1] for path in toy.server.paths()] == ["sessions"] + ["step"] * 4
    # Each request brought one token more than it drafted.
    assert drafting.tally == Tally(20, 20)


def test_no_more_is_drafted_than_the_answer_has_room_for(toy):
    toy.run((3,), limit=4, drafting=Drafting("9"))
    assert [step.drafts for step in toy.backbone.steps] == [3]
    toy.backbone.steps.clear()
    toy.run([1] * 57, limit=40, drafting=Drafting("9"))
    assert [step.drafts for step in toy.backbone.steps] == [3]


def test_what_is_refused_is_corrected_by_the_next_request_alone(toy):
    drafting = Drafting("4")
    assert (
        tokens(toy.run((3,), plugin=pulling(toy, 20, 5.0), limit=5, drafting=drafting)) == [20] * 5
    )
    sent = [(step.position, step.ids.tolist()) for step in toy.backbone.steps]
    assert sent == [(0, [3])] + [(place, [20]) for place in range(1, 5)]
    assert not any(path.endswith("crop") for path in toy.server.paths())
    assert drafting.tally == Tally(4 + 3 + 2 + 1, 0)


def test_what_repeats_itself_is_guessed_and_sent_to_be_verified(toy):
    """The cloud's drafts are always wrong, and the text goes round in a circle."""
    plugin = pulling(toy, 20, 5.0)
    drafting = Drafting()
    said = toy.run([20, 20, 20, 20, 20], plugin=plugin, limit=40, drafting=drafting)
    assert tokens(said) == [20] * 40
    assert max(len(step.ids) for step in toy.backbone.steps[1:]) > 1
    assert len(toy.backbone.steps) < 40


def test_what_the_person_wrote_is_sent_as_a_guess_where_it_may_be(toy):
    """The cloud drafts nothing here."""
    toy.backbone._drafted = lambda _ids, _count: []
    known = np.array([50, *range(3, 30), 50], np.uint32)
    for others, guessed in ((None, False), (known, True)):
        toy.backbone.steps.clear()
        said = toy.run([3, 4, 5], limit=20, drafting=Drafting(), known=others)
        assert tokens(said) == [*range(6, 26)]
        assert (len(toy.backbone.steps) < 10) == guessed
        assert any(len(step.ids) > 3 for step in toy.backbone.steps) == guessed


@pytest.mark.parametrize("choice", CHOICES)
def test_a_cloud_that_forgets_in_the_middle_of_a_draft_changes_nothing(toy, choice):
    expected = tokens(toy.run((3,), limit=30))
    reply, count = toy.backbone._step, [0]

    def forgetful(*args):
        count[0] += 1
        if count[0] % 3 == 2:
            reply(*args)  # it was read and drafted, and nobody was told
            toy.backbone.forget()
            return json_answer({}, 502)
        return reply(*args)

    toy.backbone._step = forgetful
    assert tokens(toy.run((3,), limit=30, drafting=Drafting(choice))) == expected


@pytest.mark.parametrize("choice", CHOICES)
def test_a_cloud_that_is_overloaded_in_the_middle_of_a_draft_changes_nothing(toy, choice):
    expected = tokens(toy.run((3,), limit=30))
    reply, count = toy.backbone._step, [0]

    def busy(*args):
        count[0] += 1
        if count[0] % 2:
            raise Overloaded()
        return reply(*args)

    toy.backbone._step = busy
    assert tokens(toy.run((3,), limit=30, drafting=Drafting(choice))) == expected


def test_a_cloud_that_drafts_fewer_than_it_was_asked_for_is_fine(toy):
    drafts = toy.backbone._drafted
    toy.backbone._drafted = lambda ids, count: drafts(ids, min(count, 2))
    drafting = Drafting("7")
    assert tokens(toy.run((3,), limit=9, drafting=drafting)) == [*range(4, 13)]
    assert drafting.tally == Tally(6, 6)


def test_a_context_that_is_smaller_than_it_was_told_ends_the_answer_where_it_does_without(toy):
    def run(drafting):
        session = toy.session((1, 3))
        toy.backbone.limit = 16
        said = toy.run([20] * 5, plugin=pulling(toy, 20, 5.0), limit=40, session=session, drafting=drafting)  # fmt: skip
        toy.backbone.limit = 60
        return told(said)

    expected = run(None)
    for choice in CHOICES:
        assert run(Drafting(choice)) == expected


def test_an_answer_that_nobody_reads_to_its_end_leaves_a_session_that_goes_on(toy):
    from device_agent.generation.generate import generate

    session = toy.session()
    drafting = Drafting("6")
    answer = generate(session, None, toy.head, toy.tokenizer, [3], Sampling(), (), (), 30, drafting=drafting)  # fmt: skip
    assert next(answer).token == 4
    answer.close()
    assert list(session.tokens) == [3, 4, 5, 6, 7, 8, 9]
    session.crop(2)
    assert tokens(toy.run([20], session=session, limit=2)) == [21, 22]


def test_each_accepted_token_is_a_piece_of_its_own(toy):
    pieces = toy.run((3,), limit=6, drafting=Drafting("9"))
    assert [piece.text for piece in pieces] == list("efghij")
    assert text(pieces) == "efghij"
