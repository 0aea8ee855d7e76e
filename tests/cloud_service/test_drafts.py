"""Tokens that the cloud continues with by itself: their states are those of stepping one by one."""

import json

import numpy as np
import pytest
import torch

from cloud_service.backbones.pages import Cache
from cloud_service.reading import Reading, Waiter
from protocol import versions
from protocol.errors import (
    ContextExceeded,
    LimitExceeded,
    MalformedMessage,
    Overloaded,
    PositionMismatch,
)
from protocol.limits import Limits
from protocol.messages import Wants
from tests import tiny
from tests.cloud_service.reading import loaded
from tests.cloud_service.running import EVERYTHING, FINAL, fault_in, ids_of, tokens_of

PROMPT = ids_of(40, seed=8)
GREEDY = Wants((0, 4), True, True, 1, "f32")
SHAPES = {
    "everything": EVERYTHING,
    "final": FINAL,
    "greedy": GREEDY,
    "log z": Wants((), False, True, 0, "f32"),
}


@pytest.fixture(scope="module")
def head(reference_of):
    """The reference's own choice of the next token."""
    model = reference_of("llama")

    def likeliest(ids):
        with torch.no_grad():
            logits = model(torch.from_numpy(np.asarray(ids, np.int64))[None]).logits[0, -1]
        return int(logits.argmax())

    return likeliest


def one_by_one(cloud, prompt, wants, count, head, wanted=1):
    """The drafted tokens, and the answers to the prompt and to each token in a step of its own."""
    session, text = cloud.open(wants).session, list(prompt)
    answers = [cloud.step(session, tokens_of(prompt, wanted=wanted))]
    for number in range(count):
        text.append(head(text))
        answers.append(
            cloud.step(session, tokens_of(text[-1:], position=len(text) - 1, step=number + 1))
        )
    return text[len(prompt) :], answers


def rows(answers, part):
    return np.concatenate([getattr(states, part) for states in answers])


@pytest.mark.parametrize("wants", SHAPES.values(), ids=SHAPES)
@pytest.mark.parametrize("wanted", [1, 3])
@pytest.mark.parametrize("prompt", [PROMPT, ids_of(200, seed=9), ids_of(3)], ids=len)
def test_the_states_of_drafts_are_those_of_stepping_one_by_one(cloud, head, wants, wanted, prompt):
    expected, answers = one_by_one(cloud, prompt, wants, 6, head, wanted)
    session = cloud.open(wants).session
    states = cloud.step(session, tokens_of(prompt, wanted=wanted, drafts=6))
    assert states.drafted.tolist() == expected
    assert states.position == len(prompt) - wanted
    taps = np.concatenate([one.taps for one in answers], axis=1)
    np.testing.assert_allclose(states.taps, taps, atol=1e-4)
    for part in ("final", "log_z"):
        if getattr(states, part) is None:
            assert getattr(answers[0], part) is None
        else:
            np.testing.assert_allclose(getattr(states, part), rows(answers, part), atol=1e-4)
    if wants.candidates:
        ids = np.concatenate([one.candidates.ids for one in answers])
        np.testing.assert_array_equal(states.candidates.ids, ids)
        assert states.candidates.ids[wanted - 1 : -1, 0].tolist() == expected
    else:
        assert states.candidates is None


def test_drafted_tokens_are_in_the_session(cloud, head):
    expected, answers = one_by_one(cloud, PROMPT, FINAL, 5, head)
    session = cloud.open(FINAL).session
    cloud.step(session, tokens_of(PROMPT, wanted=1, drafts=4))
    after = cloud.step(session, tokens_of(expected[4:], position=44, step=1))
    np.testing.assert_allclose(after.final, answers[-1].final, atol=1e-4)


@pytest.mark.parametrize("accepted", [0, 1, 3, 4])
def test_a_step_may_begin_behind_any_draft_and_forgets_the_others(cloud, accepted):
    session = cloud.open(EVERYTHING).session
    drafted = cloud.step(session, tokens_of(PROMPT, wanted=1, drafts=4)).drafted
    mine = ids_of(2, seed=30)
    states = cloud.step(session, tokens_of(mine, position=40 + accepted, step=1))
    text = np.concatenate([PROMPT, drafted[:accepted], mine])
    whole = cloud.step(cloud.open(EVERYTHING).session, tokens_of(text, wanted=2))
    np.testing.assert_allclose(states.taps, whole.taps, atol=1e-4)
    np.testing.assert_allclose(states.log_z, whole.log_z, atol=1e-4)


@pytest.mark.parametrize("position", [39, 45])
def test_a_step_before_the_first_draft_or_behind_the_last_is_refused(cloud, position):
    session = cloud.open(FINAL).session
    cloud.step(session, tokens_of(PROMPT, wanted=1, drafts=4))
    fault = fault_in(cloud.post(session, tokens_of([5], position=position, step=1)))
    assert isinstance(fault, PositionMismatch)
    assert fault.details == {"expected": 44, "got": position}


@pytest.mark.parametrize("kept", [1, 2, 4, 6])
def test_a_step_may_begin_behind_any_wanted_row_and_forgets_what_the_device_guessed(cloud, kept):
    session = cloud.open(EVERYTHING).session
    guess = ids_of(4, seed=31)
    cloud.step(session, tokens_of(PROMPT, wanted=1))
    drafted = cloud.step(session, tokens_of(guess, position=40, step=1, drafts=2)).drafted
    mine = ids_of(2, seed=32)
    states = cloud.step(session, tokens_of(mine, position=40 + kept, step=2))
    text = np.concatenate([PROMPT, np.concatenate([guess, drafted])[:kept], mine])
    whole = cloud.step(cloud.open(EVERYTHING).session, tokens_of(text, wanted=2))
    np.testing.assert_allclose(states.taps, whole.taps, atol=1e-4)
    np.testing.assert_allclose(states.log_z, whole.log_z, atol=1e-4)


def test_a_step_in_front_of_the_first_wanted_row_is_refused(cloud):
    session = cloud.open(FINAL).session
    cloud.step(session, tokens_of(PROMPT, wanted=3))
    for position in (37, 41):
        fault = fault_in(cloud.post(session, tokens_of([5], position=position, step=1)))
        assert isinstance(fault, PositionMismatch)
    cloud.step(session, tokens_of([5], position=38, step=1))


def test_what_was_sent_and_not_wanted_is_forgotten_by_a_crop_alone(cloud):
    session = cloud.open(FINAL).session
    cloud.step(session, tokens_of(PROMPT, wanted=1, drafts=4))
    cloud.step(session, tokens_of([5, 6], position=42, wanted=1, step=1))
    fault = fault_in(cloud.post(session, tokens_of([5], position=43, step=2)))
    assert isinstance(fault, PositionMismatch)
    cropped = cloud.http.post(f"/v1/sessions/{session}/crop", json={"position": 43})
    assert cropped.json() == {"position": 43}
    cloud.step(session, tokens_of([5], position=43, step=2))


def test_a_crop_into_the_drafts_leaves_none_to_go_back_to(cloud):
    session = cloud.open(FINAL).session
    cloud.step(session, tokens_of(PROMPT, wanted=1, drafts=4))
    cloud.http.post(f"/v1/sessions/{session}/crop", json={"position": 43})
    fault = fault_in(cloud.post(session, tokens_of([5], position=41, step=2)))
    assert isinstance(fault, PositionMismatch)


def test_the_same_step_again_drafts_nothing_anew(cloud):
    session = cloud.open(EVERYTHING).session
    step = tokens_of(PROMPT, wanted=1, step=1, drafts=4)
    first = cloud.post(session, step).content
    assert cloud.post(session, step).content == first
    other = tokens_of(PROMPT, wanted=1, step=1, drafts=5)
    assert isinstance(fault_in(cloud.post(session, other)), PositionMismatch)


def test_at_the_end_of_the_context_as_much_is_drafted_as_there_is_room_for(cloud):
    session = cloud.open(FINAL).session
    prompt = ids_of(tiny.POSITIONS - 3, seed=3)
    states = cloud.step(session, tokens_of(prompt, wanted=1, drafts=10))
    assert len(states.drafted) == 3
    again = cloud.step(session, tokens_of([5] * 3, position=len(prompt), step=1, drafts=10))
    assert len(again.drafted) == 0
    full = cloud.post(session, tokens_of([5], position=tiny.POSITIONS, step=2, drafts=1))
    assert isinstance(fault_in(full), ContextExceeded)


def test_more_drafts_than_the_limit_are_refused(cloud):
    session = cloud.open(FINAL).session
    fault = fault_in(cloud.post(session, tokens_of(PROMPT, drafts=Limits().drafts + 1)))
    assert isinstance(fault, LimitExceeded)


def test_neither_a_text_nor_a_prefix_has_drafts(cloud):
    content = versions.encode(tokens_of(PROMPT, drafts=1))
    params = {"wants": json.dumps(FINAL.to_json())}
    for answer in (
        cloud.http.post("/v1/features", params=params, content=content),
        cloud.http.post("/v1/prefixes", content=content),
    ):
        fault = fault_in(answer)
        assert isinstance(fault, MalformedMessage)
        assert "drafts" in fault.message


def test_a_draft_that_cannot_be_read_ends_the_draft_and_not_the_step(llama):
    """The memory is full, or a pass fails, in the middle of a draft."""
    runner, read = loaded(llama), type(llama).read
    failing = type("Failing", (), {"left": 4})

    def fail_in_the_end(self, spans):
        failing.left -= 1
        if failing.left < 0:
            raise Overloaded()
        return read(self, spans)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(type(llama), "read", fail_in_the_end)
        reading = Reading(Waiter("ada"), "step", Cache(llama.pool), PROMPT, 1, FINAL, drafts=8)
        runner.submit(reading)
        states = reading.future.result(10)
    runner.stop()
    assert len(states.drafted) == 3
    assert len(states.final) == 1 + 3
    assert states.candidates is None
    assert reading.cache.position == len(PROMPT) + 3
    reading.cache.release()


def test_drafts_of_many_sessions_share_passes(llama):
    runner, sizes = loaded(llama), []
    hook = llama.model.base_model.register_forward_pre_hook(
        lambda _module, _args, options: sizes.append(options["input_ids"].shape[1]),
        with_kwargs=True,
    )
    several = [
        Reading(Waiter("ada"), "step", Cache(llama.pool), ids_of(5, seed=n), 1, FINAL, drafts=8)
        for n in range(6)
    ]
    for reading in several:
        runner.submit(reading)
    for reading in several:
        assert len(reading.future.result(10).drafted) == 8
        assert reading.cache.position == 5 + 8
        reading.cache.release()
    hook.remove()
    runner.stop()
    assert sum(sizes) == 6 * (5 + 8)
    assert len(sizes) <= 9 + 5


@pytest.mark.parametrize("codec", ["f16", "bf16", "int8", "int6", "int4"])
def test_what_is_drafted_is_likeliest_by_the_state_that_arrives(cloud, reference_of, codec):
    lm_head = reference_of("llama").lm_head.weight.detach().numpy()
    for seed in range(30):
        session = cloud.open(Wants((), True, False, 0, codec)).session
        states = cloud.step(session, tokens_of(ids_of(9, seed=seed), wanted=1, drafts=4))
        cloud.http.delete(f"/v1/sessions/{session}")
        likeliest = (states.final @ lm_head.T).argmax(axis=1)
        assert states.drafted.tolist() == likeliest[:-1].tolist()
