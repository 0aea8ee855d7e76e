"""The lean engine against transformers: every family it knows, sessions alone and together."""

import hashlib

import numpy as np
import pytest
import torch

from cloud_service.backbones.base import Span
from cloud_service.backbones.lean.compiled import compiled
from cloud_service.backbones.lean.engine import LeanBackbone
from cloud_service.backbones.lean.packing import pack
from cloud_service.backbones.lean.packs import Packs
from cloud_service.backbones.lean.shape import FAMILIES, shape_of
from cloud_service.backbones.loading import load_model
from cloud_service.backbones.pages import PAGE, Cache
from protocol.errors import Overloaded
from protocol.messages import Wants
from tests import tiny
from tests.cloud_service.reading import KV_BYTES, alone, read
from tests.cloud_service.running import EVERYTHING, FINAL, ids_of

EVERY_TAP = Wants(tuple(range(tiny.LAYERS + 1)), True, True, 5, "f32")
BEST = Wants((), False, False, 1, "f32")
LENGTHS = (1, 7, 33, PAGE, PAGE + 3, 2 * PAGE + 1)


@pytest.fixture(scope="session")
def lean_of(pulled_of, reference_of, tmp_path_factory):
    packs, made = Packs(tmp_path_factory.mktemp("lean")), {}

    def start(family, weights="f32", threads=2):
        if (family, weights, threads) not in made:
            model, record = reference_of(family), pulled_of(family).record
            arrays = packs.get(record.fingerprint, weights, lambda: pack(model, weights))
            made[family, weights, threads] = LeanBackbone(
                arrays,
                shape_of(model.config),
                record.facts(weights),
                kv_bytes=KV_BYTES,
                threads=threads,
            )
        return made[family, weights, threads]

    return start


@pytest.fixture(params=FAMILIES)
def lean(request, lean_of):
    return lean_of(request.param)


@pytest.fixture
def reference(lean, reference_of):
    return reference_of(lean.facts.family)


@pytest.fixture
def caches(lean):
    made = [Cache(lean.pool) for _ in LENGTHS]
    yield made
    for cache in made:
        cache.release()


def batch(ids):
    return torch.from_numpy(ids.astype(np.int64))[None]


def close(one, other, atol=1e-4):
    """Two answers for the same tokens, up to the order of summation."""
    assert one.position == other.position
    np.testing.assert_allclose(one.taps, other.taps, atol=atol)
    np.testing.assert_allclose(one.final, other.final, atol=atol)
    np.testing.assert_allclose(one.log_z, other.log_z, atol=atol)
    np.testing.assert_array_equal(one.candidates.ids, other.candidates.ids)
    np.testing.assert_allclose(one.candidates.logits, other.candidates.logits, atol=atol)


def test_every_tap_and_the_head_are_those_of_transformers(lean, reference):
    ids = ids_of(2 * PAGE + 9)
    states = alone(lean, ids, len(ids), EVERY_TAP)
    with torch.no_grad():
        base = reference.base_model(batch(ids), output_hidden_states=True)
        logits = reference(batch(ids)).logits[0]
    for layer in range(tiny.LAYERS):
        np.testing.assert_allclose(states.taps[layer], base.hidden_states[layer][0], atol=1e-4)
    np.testing.assert_allclose(states.final, base.last_hidden_state[0], atol=1e-4)
    np.testing.assert_allclose(states.log_z, logits.logsumexp(-1), atol=1e-4)
    best = logits.topk(5)
    np.testing.assert_allclose(states.candidates.logits, best.values, atol=1e-4)
    np.testing.assert_array_equal(states.candidates.ids, best.indices)


def test_the_last_tap_is_what_leaves_the_last_layer(lean, backbone_of):
    ids = ids_of(20)
    states = alone(lean, ids, 20, EVERY_TAP)
    general = alone(backbone_of(lean.facts.family), ids, 20, EVERY_TAP)
    np.testing.assert_allclose(states.taps[-1], general.taps[-1], atol=1e-4)


def test_sessions_together_are_answered_as_each_alone(lean, caches):
    read_so_far = [np.empty(0, np.uint32) for _ in LENGTHS]
    for counts in (LENGTHS, (1, 40, 1, 2, 1, 70), (1, 1, 1, 1, 1, 1)):
        texts = [ids_of(count, seed=count) for count in counts]
        spans = [
            Span(cache, text, min(len(text), 3), EVERYTHING)
            for cache, text in zip(caches, texts, strict=True)
        ]
        answers = lean.read(spans)
        read_so_far = [np.concatenate(pair) for pair in zip(read_so_far, texts, strict=True)]
        for span, text, states in zip(spans, read_so_far, answers, strict=True):
            close(states, alone(lean, text, span.wanted, EVERYTHING))


def test_spans_that_want_different_things_get_them(lean, caches):
    ids = ids_of(20)
    wants = (EVERYTHING, FINAL, Wants((1,), False, True, 0, "f32"), BEST)
    spans = [Span(cache, ids, 4, one) for cache, one in zip(caches, wants, strict=False)]
    spans.append(Span(caches[4], ids, 0, EVERYTHING))
    answers = lean.read(spans)
    assert answers[4] is None
    for one, states in zip(wants, answers, strict=False):
        assert states.taps.shape == (len(one.layers), 4, tiny.HIDDEN)
        assert (states.final is not None) == one.final
        assert (states.log_z is not None) == one.log_z
        assert (states.candidates is not None) == bool(one.candidates)


def test_a_cropped_session_goes_on_as_if_it_had_read_no_more(lean):
    ids, other = ids_of(2 * PAGE), ids_of(30, seed=1)
    for kept in (3, PAGE - 1, PAGE, PAGE + 20):
        cache = Cache(lean.pool)
        read(lean, cache, ids, 1, FINAL)
        cache.crop(kept)
        text = np.concatenate([ids[:kept], other])
        close(read(lean, cache, other, 30, EVERYTHING), alone(lean, text, 30, EVERYTHING))
        cache.release()


def test_sessions_on_one_prefix_do_not_see_each_other(lean):
    prefix = ids_of(PAGE + 9, seed=5)
    shared = Cache(lean.pool)
    read(lean, shared, prefix, 1, FINAL)
    texts = [ids_of(count, seed=count) for count in (1, 12, PAGE)]
    forks = [shared.fork() for _ in texts]
    spans = [Span(c, text, len(text), EVERYTHING) for c, text in zip(forks, texts, strict=True)]
    for text, states in zip(texts, lean.read(spans), strict=True):
        close(states, alone(lean, np.concatenate([prefix, text]), len(text), EVERYTHING))
    for cache in (shared, *forks):
        cache.release()
    assert lean.pool.used == 0


def test_greedy_over_sessions_side_by_side_is_what_generate_writes(lean, reference, caches):
    prompts = [ids_of(length, seed=length) for length in LENGTHS]
    added, written = prompts, [[] for _ in prompts]
    for _ in range(24):
        spans = [Span(cache, ids, 1, BEST) for cache, ids in zip(caches, added, strict=True)]
        added = [states.candidates.ids[0] for states in lean.read(spans)]
        for text, ids in zip(written, added, strict=True):
            text.append(int(ids[0]))
    for prompt, text in zip(prompts, written, strict=True):
        with torch.no_grad():
            whole = reference.generate(
                batch(prompt),
                attention_mask=torch.ones(1, len(prompt), dtype=torch.long),
                max_new_tokens=24,
                min_new_tokens=24,
                do_sample=False,
                eos_token_id=None,
                pad_token_id=0,
            )
        assert text == whole[0, len(prompt) :].tolist()


def test_a_pass_without_room_leaves_every_cache_as_it_was(lean, caches):
    ids = ids_of(PAGE + 5)
    read(lean, caches[0], ids, 1, FINAL)
    much = ids_of((lean.pool.pages + 1) * PAGE)
    with pytest.raises(Overloaded):
        lean.read([Span(caches[0], ids, 1, FINAL), Span(caches[1], much, 1, FINAL)])
    assert [len(cache.pages) for cache in caches] == [2, 0, 0, 0, 0, 0]
    assert caches[0].position == len(ids)


@pytest.mark.parametrize("weights", ["f32", "int8"])
def test_any_number_of_threads_computes_the_same(lean_of, weights):
    ids = ids_of(PAGE + 30)
    one, three = (lean_of("llama", weights, threads) for threads in (1, 3))
    first, second = (alone(lean, ids, len(ids), EVERY_TAP) for lean in (one, three))
    np.testing.assert_array_equal(first.taps, second.taps)
    np.testing.assert_array_equal(first.log_z, second.log_z)


@pytest.mark.parametrize(("weights", "most"), [("bf16", 1e-2), ("int8", 1e-2), ("int4", 0.3)])
def test_rounded_weights_change_the_next_token_by_little(lean_of, weights, most):
    ids = ids_of(PAGE + 30)
    every = Wants((), False, False, tiny.VOCABULARY, "f32")
    exact, rounded = (
        _probabilities(alone(lean_of("llama", kind), ids, len(ids), every))
        for kind in ("f32", weights)
    )
    divergence = (exact * np.log(exact / rounded)).sum(1).mean()
    assert 0 < divergence < most


def test_a_head_of_bytes_is_read_exactly(pulled_of, tmp_path):
    model = load_model(pulled_of("llama").folder, "f32").eval()
    rows = model.get_input_embeddings().weight.detach().view(tiny.VOCABULARY, -1, 32)
    scales = (rows.abs().amax(2, keepdim=True) / 127).clamp(min=1e-3).half().float()
    codes = (rows / scales).round().clamp(-127, 127)
    # The largest of a block keeps its code.
    codes.scatter_(2, rows.abs().argmax(2, keepdim=True), 127.0)
    model.get_input_embeddings().weight.data = (codes * scales).flatten(1)
    model.tie_weights()
    arrays = Packs(tmp_path).get("ab" * 32, "f32", lambda: pack(model, "f32"))
    assert arrays["head.codes"].dtype == np.int8
    facts = pulled_of("llama").record.facts()
    lean = LeanBackbone(arrays, shape_of(model.config), facts, kv_bytes=KV_BYTES, threads=2)
    ids = ids_of(39)
    states = alone(lean, ids, 39, EVERY_TAP)
    with torch.no_grad():
        logits = model(batch(ids)).logits[0]
        first = model.get_input_embeddings()(batch(ids))[0]
    np.testing.assert_array_equal(states.taps[0], first)
    np.testing.assert_allclose(states.log_z, logits.logsumexp(-1), atol=1e-4)
    np.testing.assert_allclose(states.candidates.logits, logits.topk(5).values, atol=1e-4)


def test_a_damaged_pack_is_made_again(reference_of, tmp_path, caplog):
    packs = Packs(tmp_path)
    made = packs.get("ab" * 32, "int4", lambda: pack(reference_of("llama"), "int4"))
    file = packs.file("ab" * 32, "int4")
    whole = file.read_bytes()
    assert hashlib.sha256(whole[32:]).digest() == whole[:32]
    for damaged in (whole[:1000] + b"\x01" + whole[1001:], whole[:-1], b""):
        file.write_bytes(damaged)
        again = packs.get("ab" * 32, "int4", lambda: pack(reference_of("llama"), "int4"))
        assert file.read_bytes() == whole
        for name, array in made.items():
            np.testing.assert_array_equal(again[name], array)
    assert caplog.text.count("damaged") == 3


def test_a_sound_pack_is_not_made_again(reference_of, tmp_path):
    packs = Packs(tmp_path)
    packs.get("ab" * 32, "f32", lambda: pack(reference_of("llama"), "f32"))
    packs.get("ab" * 32, "f32", lambda: pytest.fail("made again"))


def test_a_pack_that_cannot_be_written_leaves_nothing(tmp_path):
    packs = Packs(tmp_path)
    with pytest.raises(KeyError):
        packs.get("ab" * 32, "f32", dict.popitem.__get__({}))
    assert not list(tmp_path.rglob("*.pack"))


def _probabilities(states):
    found = np.zeros((len(states.candidates.ids), tiny.VOCABULARY))
    logits = states.candidates.logits.astype(np.float64)
    weights = np.exp(logits - logits.max(1, keepdims=True))
    np.put_along_axis(found, states.candidates.ids.astype(np.int64), weights, 1)
    return found / found.sum(1, keepdims=True)


def test_kernels_are_compiled_where_nothing_can_be_written(monkeypatch, caplog):
    def refuse(*_):
        raise RuntimeError("cannot cache function: no locator available")

    monkeypatch.setattr("numba.core.caching.FunctionCache.__init__", refuse)

    def double(numbers):
        numbers[0] *= 2

    numbers = np.array([21])
    compiled(double)(numbers)
    assert numbers[0] == 42
    assert "compiled anew at each start" in caplog.text


@pytest.mark.parametrize("depth", range(tiny.LAYERS + 1))
def test_who_wants_taps_alone_gets_them_and_no_layer_behind_them_runs(lean_of, depth):
    lean = lean_of("llama")
    text, wants = ids_of(20, seed=3), Wants((depth,), False, False, 0, "f32")
    expected, cache = alone(lean, text, len(text), EVERY_TAP), Cache(lean.pool)
    # No key or value is zero by itself: what is written shows.
    lean._store[:] = 0
    states = read(lean, cache, text, len(text), wants)
    np.testing.assert_allclose(states.taps[0], expected.taps[depth], atol=1e-4)
    assert np.count_nonzero(lean._store) == depth * len(text) * 2 * 2 * 16
    cache.release()
