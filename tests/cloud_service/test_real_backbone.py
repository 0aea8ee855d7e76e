"""The default backbone, whole: pulled, served over HTTP, and compared with transformers."""

import logging
import os

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from cloud_service.pull import pull
from cloud_service.registry import Registry
from cloud_service.settings import load
from protocol.messages import Wants
from tests.cloud_service.running import running, service_for, tokens_of

pytestmark = pytest.mark.slow

QUESTIONS = ("What is the capital of France?", "Name three fruits.", "Why is the sky blue?")
NEW = 24


@pytest.fixture(scope="module")
def cached():
    return load({}, os.environ).cache


@pytest.fixture(scope="module")
def pulled(cached):
    return pull("smollm2-135m-instruct", Registry(cached), logging.debug)


@pytest.fixture(scope="module")
def real(cached, pulled):
    with running(service_for(cached, pulled)) as served:
        served.wait()
        yield served


def answer(real, ids, head):
    """Continue greedily, with the head on this side of the wire, as a device does."""
    session = real.open(Wants((9, 18, 27), final=True, log_z=False, candidates=0, codec="f32"))
    position, new, written = 0, ids, []
    for step in range(NEW):
        states = real.step(session.session, tokens_of(new, position, wanted=1, step=step))
        position += len(new)
        new = np.array([int((head @ states.final[0]).argmax())], np.uint32)
        written.append(int(new[0]))
    return written


def test_greedy_answers_over_http_are_those_of_generate(real, pulled):
    model = AutoModelForCausalLM.from_pretrained(pulled.folder).eval()
    tokenizer = AutoTokenizer.from_pretrained(pulled.folder)
    head = model.lm_head.weight.detach().numpy()
    for question in QUESTIONS:
        turn = [{"role": "user", "content": question}]
        prompt = tokenizer.apply_chat_template(
            turn, add_generation_prompt=True, return_tensors="pt", return_dict=True
        )
        whole = model.generate(**prompt, max_new_tokens=NEW, do_sample=False)
        ids = prompt["input_ids"][0].numpy().astype(np.uint32)
        expected = whole[0, len(ids) :].tolist()  # shorter when it stopped
        assert answer(real, ids, head)[: len(expected)] == expected


def test_log_z_is_that_of_the_whole_model(real, pulled):
    ids = np.arange(300, 350, dtype=np.uint32)
    session = real.open(Wants((), final=False, log_z=True, candidates=1, codec="f32")).session
    states = real.step(session, tokens_of(ids))
    model = AutoModelForCausalLM.from_pretrained(pulled.folder).eval()
    with torch.no_grad():
        logits = model(torch.from_numpy(ids.astype(np.int64))[None]).logits[0]
    np.testing.assert_allclose(states.log_z, logits.logsumexp(-1), rtol=1e-4)
    np.testing.assert_array_equal(states.candidates.ids[:, 0], logits.argmax(-1))
