"""Encoder-decoder backbones of every family of the table against transformers itself."""

import functools
import json
import logging

import numpy as np
import pytest
import torch
from transformers import (
    AutoConfig,
    EncoderDecoderModel,
    PreTrainedModel,
)

from cloud_service.backbones.base import Span
from cloud_service.backbones.fingerprint import fingerprint
from cloud_service.backbones.loading import load_model
from cloud_service.backbones.pages import PAGE, Cache
from cloud_service.backbones.seq2seq import Seq2SeqBackbone
from cloud_service.backbones.seq2seq_families import SEQ2SEQ, decoder_start
from cloud_service.errors import BackboneRefused
from cloud_service.reading import Reading, Waiter
from cloud_service.scheduler import MOST_TOKENS, Scheduler
from protocol import versions
from protocol.messages import States, Tokens, Wants
from protocol.stream import FrameReader
from tests import tiny
from tests.cloud_service.reading import KV_BYTES
from tests.cloud_service.running import Running, fault_in, ids_of, running, service_for

DEPTH = tiny.LAYERS
TAPS = tuple(range(DEPTH + 1))
EVERYTHING = Wants(layers=TAPS, final=True, log_z=True, candidates=5, codec="f32")
NEXT = Wants(layers=(), final=False, log_z=False, candidates=1, codec="f32")
LONG = 40
"""Tokens of an answer."""


@pytest.fixture(scope="session")
def seq2seq_of(pulled_of):
    @functools.cache
    def made(family: str) -> Seq2SeqBackbone:
        pulled = pulled_of(family)
        facts = pulled.record.facts()
        return Seq2SeqBackbone(load_model(pulled.folder, "f32"), facts, kv_bytes=KV_BYTES)

    return made


@pytest.fixture(params=SEQ2SEQ)
def backbone(request, seq2seq_of) -> Seq2SeqBackbone:
    return seq2seq_of(request.param)


@pytest.fixture
def t5(seq2seq_of) -> Seq2SeqBackbone:
    return seq2seq_of("t5")


@pytest.fixture
def reference(backbone, reference_of) -> PreTrainedModel:
    """What ``backbone`` is, as transformers runs it by itself."""
    return reference_of(backbone.facts.family)


@pytest.fixture(scope="session")
def served(cache, pulled_of):
    with running(service_for(cache, pulled_of("t5"), sessions=100)) as cloud:
        cloud.wait()
        yield cloud


def batch(ids):
    return torch.from_numpy(np.asarray(ids).astype(np.int64))[None]


def close(got, expected):
    # Some of these models make states of hundreds, whose rounding the small ones share.
    expected = np.asarray(expected)
    largest = max(1.0, float(np.abs(expected).max()))
    np.testing.assert_allclose(got, expected, atol=2e-5 * largest, rtol=1e-4)


def span_of(cache, source, target, wanted, wants=EVERYTHING):
    return Span(cache, np.concatenate([source, target]), wanted, wants, len(source))


def pair(backbone, source=30, target=12, seed=0):
    start = np.array(backbone.facts.decoder_start, np.uint32)
    return ids_of(source, seed), np.concatenate([start, ids_of(target, seed + 100)])


def alone(backbone, source, target, wanted=None, wants=EVERYTHING):
    cache = Cache(backbone.pool)
    (states,) = backbone.read([span_of(cache, source, target, wanted or len(target), wants)])
    cache.release()
    return states


def same(one: States, other: States, rows=slice(None)):
    close(one.taps, other.taps[:, rows])
    close(one.final, other.final[rows])
    close(one.log_z, other.log_z[rows])


def generated(reference, source) -> list[int]:
    with torch.no_grad():
        made = reference.generate(
            batch(source), max_new_tokens=LONG, do_sample=False, num_beams=1, use_cache=True
        )
    return made[0].tolist()


def test_every_family_has_a_tiny_model_to_be_tested_with():
    assert set(SEQ2SEQ) == set(tiny.SEQ2SEQ)


@pytest.mark.parametrize("family", SEQ2SEQ)
def test_greedy_answers_over_http_are_those_of_generate(family, cache, pulled_of, reference_of):
    pulled, reference = pulled_of(family), reference_of(family)
    record = pulled.record
    with running(service_for(cache, pulled)) as cloud:
        cloud.wait()
        for seed, (count, drafts) in enumerate([(5, 0), (70, 0), (20, 6)]):
            source, expected = ids_of(count, seed), generated(reference, ids_of(count, seed))
            name, said = cloud.open(NEXT).session, list(record.decoder_start)
            new = np.array([*source, *said], np.uint32)
            tokens = Tokens(0, 0, 1, new, drafts, len(source))
            while len(said) < len(expected):
                states = cloud.step(name, tokens)
                likeliest = states.candidates.ids[:, 0].tolist()
                assert likeliest[:-1] == states.drafted.tolist()
                said += likeliest[: len(expected) - len(said)]
                tokens = Tokens(
                    len(said),
                    len(source) + len(said) - 1,
                    1,
                    np.array(said[-1:], np.uint32),
                    drafts,
                )
            assert said == expected


def test_states_of_a_target_are_those_of_transformers(backbone, reference):
    source, target = pair(backbone)
    states = alone(backbone, source, target)
    with torch.no_grad():
        expected = reference(
            input_ids=batch(source), decoder_input_ids=batch(target), output_hidden_states=True
        )
    assert states.position == len(source)
    # Its last entry is the final state, not what leaves the last layer.
    for layer in TAPS[:-1]:
        close(states.taps[layer], expected.decoder_hidden_states[layer][0])
    close(states.log_z, expected.logits[0].logsumexp(-1))
    close(states.candidates.logits, expected.logits[0].topk(5).values)
    head = reference.get_output_embeddings().weight.detach()
    np.testing.assert_array_equal(states.candidates.ids[:, 0], expected.logits[0].argmax(-1))
    assert states.final.shape == (len(target), head.shape[1])


def test_states_of_a_source_alone_are_the_encoders(backbone, reference):
    source, _ = pair(backbone)
    wants = Wants((0, 2, DEPTH), final=True, log_z=True, candidates=5, codec="f32")
    states = alone(backbone, source, source[:0], 7, wants)
    with torch.no_grad():
        expected = reference.get_encoder()(batch(source), output_hidden_states=True)
    assert (states.position, states.log_z, states.candidates) == (len(source) - 7, None, None)
    for place, layer in enumerate(wants.layers):
        close(states.taps[place], expected.hidden_states[layer][0, -7:])
    close(states.final, expected.last_hidden_state[0, -7:])


def test_decode_gives_the_same_states_as_prefill(backbone):
    source, target = pair(backbone, source=PAGE + 3)
    whole, cache = alone(backbone, source, target), Cache(backbone.pool)
    assert backbone.read([span_of(cache, source, target[:0], 0)]) == [None]
    for row in range(len(target)):
        (states,) = backbone.read([Span(cache, target[row : row + 1], 1, EVERYTHING)])
        assert states.position == len(source) + row
        same(states, whole, slice(row, row + 1))
    cache.release()


def test_a_pass_of_many_is_each_alone(backbone):
    pairs = [
        pair(backbone, source, target, seed)
        for seed, (source, target) in enumerate([(9, 4), (PAGE, 9), (2 * PAGE + 1, 2), (1, 1)])
    ]
    caches = [Cache(backbone.pool) for _ in pairs]
    backbone.read([span_of(caches[0], pairs[0][0], pairs[0][1][:2], 0)])
    spans = [Span(caches[0], pairs[0][1][2:], len(pairs[0][1]) - 2, EVERYTHING)]
    spans += [
        span_of(cache, *one, len(one[1])) for cache, one in zip(caches[1:], pairs[1:], strict=True)
    ]
    for place, (states, one) in enumerate(zip(backbone.read(spans), pairs, strict=True)):
        expected = alone(backbone, *one)
        same(states, expected, slice(2 if place == 0 else 0, None))
    for cache in caches:
        cache.release()


def test_a_source_takes_the_memory_of_as_many_positions(t5):
    source, target = pair(t5, source=PAGE + 1)
    cache, before = Cache(t5.pool), t5.pool.used
    t5.read([span_of(cache, source, target, 1)])
    assert (cache.source, cache.position) == (len(source), len(source) + len(target))
    assert t5.pool.used - before == 2
    cache.crop(len(source) - 1)
    assert (cache.source, cache.position, t5.pool.used) == (0, 0, before)


def test_a_crop_and_a_fork_go_on_with_the_same_source(backbone):
    source, target = pair(backbone)
    whole, cache = alone(backbone, source, target), Cache(backbone.pool)
    backbone.read([span_of(cache, source, target, 1)])
    cache.crop(len(source) + 3)
    forked = cache.fork()
    for one in (cache, forked):
        (states,) = backbone.read([Span(one, target[3:], len(target) - 3, EVERYTHING)])
        same(states, whole, slice(3, None))
        one.release()


def test_a_read_that_fails_leaves_no_source_behind(pulled_of):
    pulled = pulled_of("bart")
    own = Seq2SeqBackbone(
        load_model(pulled.folder, "f32"), pulled.record.facts(), kv_bytes=KV_BYTES
    )
    source, target = pair(own)

    def fail(*_):
        raise RuntimeError("out of memory")

    broken = own.model.get_decoder().layers[2].register_forward_hook(fail)
    cache = Cache(own.pool)
    with pytest.raises(RuntimeError):
        own.read([span_of(cache, source, target, 1)])
    assert (cache.position, cache.source, own.pool.used) == (0, 0, 0)
    broken.remove()
    (states,) = own.read([span_of(cache, source, target, len(target))])
    same(states, alone(own, source, target))


def test_taps_alone_need_no_layer_behind_them(t5):
    source, target = pair(t5)
    wants = Wants((0, 2), final=False, log_z=False, candidates=0, codec="f32")
    close(alone(t5, source, target, wants=wants).taps, alone(t5, source, target).taps[[0, 2]])


def test_a_long_source_is_read_in_one_pass():
    scheduler, cache = Scheduler(lambda: 0.0), Cache(None)
    reading = Reading(
        Waiter("one"), "step", cache, ids_of(MOST_TOKENS + 90), 1, NEXT, source=MOST_TOKENS + 50
    )
    scheduler.add(reading)
    (portion,) = scheduler.plan()
    assert portion.count >= MOST_TOKENS + 50
    assert reading.span(portion.count).source == MOST_TOKENS + 50


def test_features_of_pairs_over_http_are_the_states_of_a_forward(served: Running, reference_of):
    facts, reference = served.service.facts, reference_of("t5")
    wants = Wants((1, 3), final=True, log_z=True, candidates=0, codec="f32")
    pairs = [
        (ids_of(n, n), np.array([*facts.decoder_start, *ids_of(5, n)], np.uint32)) for n in (3, 80)
    ]
    asked = [
        Tokens(0, 0, len(target), np.concatenate([source, target]), 0, len(source))
        for source, target in pairs
    ]
    body = b"".join(map(versions.encode, asked))
    query = {"wants": json.dumps(wants.to_json())}
    answer = served.http.post("/v1/features", content=body, params=query)
    frames = list(FrameReader(facts.limits).feed(answer.content))
    for (source, target), frame in zip(pairs, frames, strict=True):
        states = versions.decode(frame)
        with torch.no_grad():
            expected = reference(
                input_ids=batch(source), decoder_input_ids=batch(target), output_hidden_states=True
            )
        close(states.taps[1], expected.decoder_hidden_states[3][0])
        close(states.log_z, expected.logits[0].logsumexp(-1))


def test_the_same_step_again_gives_the_same_bytes_and_a_new_source_begins_anew(served: Running):
    start = served.service.facts.decoder_start
    name = served.open(NEXT).session
    first = Tokens(1, 0, 1, np.array([*ids_of(9), *start], np.uint32), 0, 9)
    told = served.post(name, first).content
    assert served.post(name, first).content == told
    served.step(name, Tokens(2, 10, 1, ids_of(1)))
    other = Tokens(3, 0, 1, np.array([*ids_of(4, 1), *start], np.uint32), 0, 4)
    served.step(name, other)
    assert served.step(name, Tokens(4, 5, 1, ids_of(1))).position == 5
    served.step(name, Tokens(5, 0, 1, first.ids, 0, 9))
    assert served.post(name, Tokens(1, 0, 1, first.ids, 0, 9)).content == told


@pytest.mark.parametrize(
    ("tokens", "status", "says"),
    [
        (Tokens(1, 0, 1, ids_of(9)), 422, "needs a source"),
        (Tokens(1, 3, 1, ids_of(9)), 409, "position"),
        (Tokens(1, 0, 1, ids_of(2049), 0, 9), 413, "2048"),
        (Tokens(1, 0, 1, np.array([1, 600], np.uint32), 0, 1), 422, "600"),
    ],
)
def test_a_step_that_makes_no_sense_is_refused_and_changes_nothing(served, tokens, status, says):
    name, start = served.open(NEXT).session, served.service.facts.decoder_start
    fault = fault_in(served.post(name, tokens))
    assert fault.status == status
    assert says in str(fault)
    fine = Tokens(2, 0, 1, np.array([*ids_of(9), *start], np.uint32), 0, 9)
    assert served.step(name, fine).position == 9


def test_a_crop_into_a_source_is_refused(served: Running):
    name, start = served.open(NEXT).session, served.service.facts.decoder_start
    served.step(name, Tokens(1, 0, 9, np.array(ids_of(9), np.uint32), 0, 9))
    fault = fault_in(served.http.post(f"/v1/sessions/{name}/crop", json={"position": 4}))
    assert "whole" in str(fault)
    # Nor by a step that begins at a row of the last answer.
    fault = fault_in(served.post(name, Tokens(2, 4, 1, ids_of(1))))
    assert fault.code == "position_mismatch"
    assert served.step(name, Tokens(3, 9, 1, np.array(start, np.uint32))).position == 9


def test_what_only_one_kind_of_backbone_can_do_is_refused_by_the_other(served, cloud):
    prefix = served.http.post("/v1/prefixes", content=versions.encode(Tokens(0, 0, 1, ids_of(5))))
    assert "prefix" in str(fault_in(prefix))
    name = cloud.open(NEXT).session
    assert "no encoder" in str(fault_in(cloud.post(name, Tokens(1, 0, 1, ids_of(5), 0, 4))))


def test_the_encoder_is_not_asked_for_layers_that_it_does_not_have(cache, pulled_of):
    with running(service_for(cache, pulled_of("t5"))) as cloud:
        cloud.wait()
        deepest = cloud.service.facts.layers
        object.__setattr__(cloud.service.facts, "encoder_layers", deepest - 1)
        wants = Wants((deepest,), final=False, log_z=False, candidates=0, codec="f32")
        name = cloud.open(wants).session
        fault = fault_in(cloud.post(name, Tokens(1, 0, 1, ids_of(5), 0, 5)))
        assert fault.code == "tap_out_of_range"


def test_a_composite_of_other_models_is_refused(tmp_path, pull_into):
    parts = {"vocab_size": 512, "num_hidden_layers": 1, "hidden_size": 32, "num_attention_heads": 2}
    bert = AutoConfig.for_model("bert", intermediate_size=32, **parts)
    gpt2 = AutoConfig.for_model("gpt2", vocab_size=512, n_layer=1, n_embd=32, n_head=2)
    gpt2.add_cross_attention = gpt2.is_decoder = True
    config = AutoConfig.for_model("encoder-decoder", encoder=bert.to_dict(), decoder=gpt2.to_dict())
    EncoderDecoderModel(config).save_pretrained(tmp_path / "odd")
    tiny.tiny_tokenizer().save_pretrained(tmp_path / "odd")
    with pytest.raises(BackboneRefused, match="gpt2"):
        pull_into(tmp_path / "odd")


def test_a_model_that_does_more_to_its_logits_is_refused(pulled_of):
    pulled = pulled_of("marian")
    model = load_model(pulled.folder, "f32")
    own = Seq2SeqBackbone(model, pulled.record.facts(), kv_bytes=KV_BYTES)
    own.try_out()
    model.final_logits_bias *= 2
    with pytest.raises(BackboneRefused, match="logits"):
        own.try_out()


def test_a_model_that_does_not_say_what_targets_begin_with_is_refused(folder_of, tmp_path):
    model = load_model(folder_of("bart"), "f32")
    model.generation_config.decoder_start_token_id = None
    model.config.decoder_start_token_id = None
    with pytest.raises(BackboneRefused, match="begin with"):
        decoder_start(model)


def test_the_fingerprint_knows_the_bias_of_the_logits(folder_of):
    model = load_model(folder_of("marian"), "f32")
    before = fingerprint(model)
    model.final_logits_bias[0, 3] += 1
    assert fingerprint(model) != before


def test_the_log_says_that_the_general_engine_runs_it(cache, pulled_of, caplog):
    with caplog.at_level(logging.INFO, "sideplug.cloud"):
        service_for(cache, pulled_of("bart"), weights="auto")
    assert "the general engine runs this backbone" in caplog.text
