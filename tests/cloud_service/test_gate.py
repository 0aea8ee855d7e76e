"""Tokens that the backbone says by itself, up to the first one that needs the device."""

import json
import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from cloud_service.backbones.pages import Cache
from cloud_service.reading import Alone, Reading, Waiter
from protocol import versions
from protocol.errors import (
    ContextExceeded,
    LimitExceeded,
    MalformedMessage,
    Overloaded,
    PositionMismatch,
    TensorMismatch,
)
from protocol.gate import Gate
from protocol.limits import Limits
from protocol.messages import Wants
from tests import tiny
from tests.cloud_service.reading import loaded
from tests.cloud_service.running import (
    EVERYTHING,
    FINAL,
    fault_in,
    ids_of,
    running,
    service_for,
    tokens_of,
)

PROMPT = ids_of(40, seed=8)
MOST = 8
SHAPES = {
    "everything": EVERYTHING,
    "final": FINAL,
    "log z": Wants((), False, True, 0, "f32"),
}


@pytest.fixture(scope="module")
def greedy(reference_of):
    """The reference's own text behind a prompt: (V,) log-probabilities and the final state of each row."""
    model = reference_of("llama")

    def rows(prompt, count):
        ids, found = [int(i) for i in prompt], []
        for _ in range(count + 1):
            with torch.no_grad():
                out = model(torch.tensor([ids]), output_hidden_states=True)
            logs = torch.log_softmax(out.logits[0, -1], 0).numpy()
            found.append((logs, out.hidden_states[-1][0, -1].numpy()))
            ids.append(int(logs.argmax()))
        return found

    return rows


def classifier(hidden, seed=4):
    row = np.random.default_rng(seed).standard_normal(hidden).astype(np.float32)
    return tuple(float(value) for value in row)


def needs_of(rows, row=None, bias=0.0):
    """What each row's next token needs, by the formulas of the specification."""
    if row is None:
        return [1 - math.exp(logs.max()) for logs, _ in rows]
    return [1 / (1 + math.exp(-(float(final @ np.array(row)) + bias))) for _, final in rows]


def said_at(rows, needs, threshold):
    """Tokens up to the first that needs the device."""
    said = []
    for (logs, _), need in zip(rows[:-1], needs, strict=False):
        if need >= threshold:
            break
        said.append(int(logs.argmax()))
    return said


def between(needs, place):
    """A threshold that the first ``place`` needs stay below, and the next one does not, if there is one."""
    below = max(needs[:place], default=0.0)
    return min(1.0, (below + needs[place]) / 2) if needs[place] > below else None


def some_gate(greedy, row=None, bias=0.0):
    """A prompt, a gate, and what is said through it: some tokens, and then not."""
    for seed in range(60):
        prompt = ids_of(12, seed=seed)
        rows = greedy(prompt, MOST)
        needs = needs_of(rows, row, bias)
        for place in range(2, MOST):
            threshold = between(needs, place)
            if threshold is not None and needs[place] - threshold > 1e-4:
                said = said_at(rows, needs, threshold)
                assert len(said) == place
                return prompt, Gate(threshold, row, bias), said
    raise AssertionError("no such text was found")


@pytest.mark.parametrize("wants", SHAPES.values(), ids=SHAPES)
def test_the_backbone_speaks_until_it_is_no_longer_sure(cloud, greedy, wants):
    prompt, gate, said = some_gate(greedy)
    session = cloud.open(wants, gate=gate).session
    states = cloud.step(session, tokens_of(prompt, wanted=1, alone=MOST))
    assert states.spoken.tolist() == said
    assert states.position == len(prompt) + len(said) - 1
    text = np.concatenate([prompt, said])
    plain = cloud.step(cloud.open(wants).session, tokens_of(text, wanted=1))
    assert (states.final is None, states.log_z is None, states.candidates is None) == (
        plain.final is None,
        plain.log_z is None,
        plain.candidates is None,
    )
    np.testing.assert_allclose(states.taps, plain.taps, atol=1e-4)
    for part in ("final", "log_z"):
        if getattr(plain, part) is not None:
            np.testing.assert_allclose(getattr(states, part), getattr(plain, part), atol=1e-4)


def test_the_backbone_speaks_until_a_classifier_calls_the_device(cloud, greedy):
    hidden = cloud.service.facts.hidden
    row = classifier(hidden)
    prompt, gate, said = some_gate(greedy, row, 0.25)
    session = cloud.open(FINAL, gate=gate).session
    states = cloud.step(session, tokens_of(prompt, wanted=1, alone=MOST))
    assert states.spoken.tolist() == said


@pytest.mark.parametrize("most", [1, 2, 3])
def test_no_more_is_said_than_the_step_allows(cloud, greedy, most):
    session = cloud.open(FINAL, gate=Gate(1.0)).session
    states = cloud.step(session, tokens_of(PROMPT, wanted=1, alone=most))
    rows = greedy(PROMPT, most)
    assert states.spoken.tolist() == [int(logs.argmax()) for logs, _ in rows[:-1]]
    assert states.position == len(PROMPT) + most - 1


def test_at_0_the_answer_is_that_of_a_step_without_a_gate(cloud):
    session = cloud.open(EVERYTHING, gate=Gate(0.0)).session
    gated = cloud.post(session, tokens_of(PROMPT, wanted=1, alone=MOST)).content
    plain = cloud.post(cloud.open(EVERYTHING).session, tokens_of(PROMPT, wanted=1)).content
    assert gated == plain


def test_a_step_that_does_not_ask_is_answered_as_if_there_were_no_gate(cloud):
    session = cloud.open(EVERYTHING, gate=Gate(1.0)).session
    ungated = cloud.post(session, tokens_of(PROMPT, wanted=3, drafts=2)).content
    plain = cloud.post(
        cloud.open(EVERYTHING).session, tokens_of(PROMPT, wanted=3, drafts=2)
    ).content
    assert ungated == plain


def test_a_token_that_ends_the_text_is_left_to_the_device(llama, greedy):
    texts = {seed: greedy(ids_of(12, seed=seed), MOST) for seed in range(20)}
    said = {n: [int(logs.argmax()) for logs, _ in rows[:-1]] for n, rows in texts.items()}
    seed, place = next(
        (n, k) for n, text in said.items() for k in range(2, MOST) if text[k] not in text[:k]
    )
    prompt, text = ids_of(12, seed=seed), said[seed]
    runner = loaded(llama)
    alone = Alone(Gate(1.0), MOST, frozenset({text[place]}))
    reading = Reading(Waiter("ada"), "step", Cache(llama.pool), prompt, 1, FINAL, alone=alone)
    runner.submit(reading)
    states = reading.future.result(10)
    runner.stop()
    assert states.spoken.tolist() == text[:place]
    assert reading.cache.position == len(prompt) + place
    reading.cache.release()


@pytest.mark.parametrize("kept", [0, 1, 3, 4])
def test_a_step_may_begin_behind_any_said_token_and_forgets_the_others(cloud, kept):
    session = cloud.open(EVERYTHING, gate=Gate(1.0)).session
    said = cloud.step(session, tokens_of(PROMPT, wanted=1, alone=4)).spoken
    mine = ids_of(2, seed=30)
    states = cloud.step(session, tokens_of(mine, position=40 + kept, step=1))
    text = np.concatenate([PROMPT, said[:kept], mine])
    whole = cloud.step(cloud.open(EVERYTHING).session, tokens_of(text, wanted=2))
    np.testing.assert_allclose(states.taps, whole.taps, atol=1e-4)


@pytest.mark.parametrize("position", [39, 45])
def test_a_step_in_front_of_what_was_sent_or_behind_what_was_said_is_refused(cloud, position):
    session = cloud.open(FINAL, gate=Gate(1.0)).session
    cloud.step(session, tokens_of(PROMPT, wanted=1, alone=4))
    fault = fault_in(cloud.post(session, tokens_of([5], position=position, step=1)))
    assert isinstance(fault, PositionMismatch)


def test_the_same_step_again_says_nothing_anew(cloud):
    session = cloud.open(EVERYTHING, gate=Gate(1.0)).session
    step = tokens_of(PROMPT, wanted=1, step=1, alone=4)
    first = cloud.post(session, step).content
    assert cloud.post(session, step).content == first
    other = tokens_of(PROMPT, wanted=1, step=1, alone=5)
    assert isinstance(fault_in(cloud.post(session, other)), PositionMismatch)


def test_at_the_end_of_the_context_as_much_is_said_as_there_is_room_for(cloud):
    session = cloud.open(FINAL, gate=Gate(1.0)).session
    prompt = ids_of(tiny.POSITIONS - 3, seed=3)
    assert len(cloud.step(session, tokens_of(prompt, wanted=1, alone=10)).spoken) == 3
    again = cloud.step(session, tokens_of([5] * 3, position=len(prompt), wanted=1, step=1, alone=9))
    assert len(again.spoken) == 0
    full = cloud.post(session, tokens_of([5], position=tiny.POSITIONS, step=2, alone=1))
    assert isinstance(fault_in(full), ContextExceeded)


def test_a_token_that_cannot_be_read_ends_the_speech_and_not_the_step(llama):
    runner, read = loaded(llama), type(llama).read
    failing = type("Failing", (), {"left": 4})

    def fail_in_the_end(self, spans):
        failing.left -= 1
        if failing.left < 0:
            raise Overloaded()
        return read(self, spans)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(type(llama), "read", fail_in_the_end)
        alone = Alone(Gate(1.0), MOST, frozenset())
        reading = Reading(Waiter("ada"), "step", Cache(llama.pool), PROMPT, 1, FINAL, alone=alone)
        runner.submit(reading)
        states = reading.future.result(10)
    runner.stop()
    assert len(states.spoken) == 3
    assert states.position == len(PROMPT) + 3 - 1
    assert len(states.final) == 1
    assert reading.cache.position == len(PROMPT) + 3
    reading.cache.release()


@pytest.mark.parametrize(
    ("wants", "gate", "fault"),
    [
        (FINAL, Gate(0.5, (1.0,) * 3), TensorMismatch),
        (SHAPES["log z"], Gate(0.5, (1.0,) * 64), MalformedMessage),
    ],
)
def test_a_classifier_that_reads_nothing_here_is_refused(cloud, wants, gate, fault):
    request = {"wants": wants.to_json(), "protocol": "1.2", "prefix": None, "gate": gate.to_json()}
    answer = cloud.http.post("/v1/sessions", json=request)
    assert isinstance(fault_in(answer), fault)


def test_a_gate_that_is_none_opens_no_session(cloud):
    request = {
        "wants": FINAL.to_json(),
        "protocol": "1.2",
        "prefix": None,
        "gate": {"threshold": 2},
    }
    assert isinstance(fault_in(cloud.http.post("/v1/sessions", json=request)), MalformedMessage)


def test_a_session_without_a_gate_says_nothing(cloud):
    fault = fault_in(cloud.post(cloud.open(FINAL).session, tokens_of(PROMPT, wanted=1, alone=1)))
    assert isinstance(fault, MalformedMessage)
    assert "without a gate" in fault.message


def test_a_session_of_taps_alone_says_nothing(cloud):
    session = cloud.open(replace(FINAL, final=False, layers=(2,)), gate=Gate(0.5)).session
    fault = fault_in(cloud.post(session, tokens_of(PROMPT, wanted=1, alone=1)))
    assert isinstance(fault, MalformedMessage)


def test_more_said_tokens_than_the_limit_are_refused(cloud):
    session = cloud.open(FINAL, gate=Gate(0.5)).session
    step = tokens_of(PROMPT, wanted=1, alone=Limits().drafts + 1)
    assert isinstance(fault_in(cloud.post(session, step)), LimitExceeded)


def test_neither_a_text_nor_a_prefix_goes_through_a_gate(cloud):
    content = versions.encode(tokens_of(PROMPT, wanted=1, alone=1))
    params = {"wants": json.dumps(FINAL.to_json())}
    for answer in (
        cloud.http.post("/v1/features", params=params, content=content),
        cloud.http.post("/v1/prefixes", content=content),
    ):
        assert isinstance(fault_in(answer), MalformedMessage)


def test_said_tokens_are_counted_against_a_quota_as_many_as_there_are(cache, pulled_of):
    service = service_for(cache, pulled_of("llama"))
    with running(service) as cloud:
        cloud.wait()
        caller = service.admission.caller(None)
        spent = []
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(caller.tokens, "spend", spent.append)
            session = cloud.open(FINAL, gate=Gate(1.0)).session
            cloud.step(session, tokens_of(PROMPT, wanted=1, alone=5))
            closed = cloud.open(FINAL, gate=Gate(0.0)).session
            cloud.step(closed, tokens_of(PROMPT, wanted=1, alone=5))
    # As many as might be are taken at first, and those that were not said given back.
    assert spent == [45, 0, 45, -5]
