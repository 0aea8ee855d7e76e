"""Many sessions in one pass: each is answered as if it were alone. Every family of the table."""

import numpy as np
import pytest
import torch

from cloud_service.backbones.base import Span
from cloud_service.backbones.families import family_named, layers_of
from cloud_service.backbones.pages import PAGE, Cache
from protocol.messages import Wants
from tests import tiny
from tests.cloud_service.reading import alone, read
from tests.cloud_service.running import EVERYTHING, FINAL, ids_of

NOTHING = Wants((), False, False, 0, "f32")
GREEDY = Wants((1, 3), True, False, 1, "bf16")
WINDOW = 24
LENGTHS = (1, 7, WINDOW + 9, PAGE, PAGE + 3, 2 * PAGE + 1)


def close(one, other):
    """Two answers for the same tokens, up to the order of summation."""
    assert one.position == other.position
    assert one.layers == other.layers
    np.testing.assert_allclose(one.taps, other.taps, atol=1e-4)
    for part in ("final", "log_z"):
        first, second = getattr(one, part), getattr(other, part)
        assert (first is None) == (second is None)
        if first is not None:
            np.testing.assert_allclose(first, second, atol=1e-4)
    assert (one.candidates is None) == (other.candidates is None)
    if one.candidates is not None:
        np.testing.assert_array_equal(one.candidates.ids, other.candidates.ids)
        np.testing.assert_allclose(one.candidates.logits, other.candidates.logits, atol=1e-4)


@pytest.fixture
def caches(backbone):
    made = [Cache(backbone.pool) for _ in LENGTHS]
    yield made
    for cache in made:
        cache.release()


def test_texts_of_any_length_are_answered_as_each_alone(backbone, caches):
    texts = [ids_of(length, seed=length) for length in LENGTHS]
    spans = [
        Span(cache, text, len(text), wants)
        for cache, text, wants in zip(
            caches, texts, (EVERYTHING, FINAL, GREEDY, NOTHING, EVERYTHING, GREEDY), strict=True
        )
    ]
    for span, states in zip(spans, backbone.read(spans), strict=True):
        close(states, alone(backbone, span.ids, span.wanted, span.wants))


def test_prefill_decode_and_cropped_sessions_go_on_together_as_each_alone(backbone, caches):
    texts = [ids_of(length, seed=length) for length in LENGTHS]
    lone = [Cache(backbone.pool) for _ in LENGTHS]
    for cache, other, text in zip(caches, lone, texts, strict=True):
        for one in (cache, other):
            read(backbone, one, text, 1, NOTHING)
            one.crop(len(text) * 3 // 4)
    for step, counts in enumerate([(1, 30, 1, 1, 50, 1), (WINDOW + 5, 1, 1, 2, 1, 1)]):
        spans = [
            Span(cache, ids_of(count, seed=count + step), min(count, 2), EVERYTHING)
            for cache, count in zip(caches, counts, strict=True)
        ]
        together = backbone.read(spans)
        for span, other, states in zip(spans, lone, together, strict=True):
            close(states, read(backbone, other, span.ids, span.wanted, EVERYTHING))
            assert span.cache.position == other.position
    for other in lone:
        other.release()


def test_sessions_on_one_prefix_are_answered_as_if_each_had_read_it(backbone):
    prefix = ids_of(PAGE + 9, seed=5)
    shared = Cache(backbone.pool)
    read(backbone, shared, prefix, 1, NOTHING)
    texts = [ids_of(count, seed=count) for count in (1, 12, PAGE)]
    forked = [shared.fork() for _ in texts]
    spans = [
        Span(cache, text, len(text), EVERYTHING) for cache, text in zip(forked, texts, strict=True)
    ]
    for text, states in zip(texts, backbone.read(spans), strict=True):
        close(states, alone(backbone, np.concatenate([prefix, text]), len(text), EVERYTHING))
    again = shared.fork()
    close(
        read(backbone, again, texts[1], 12, EVERYTHING),
        alone(backbone, np.concatenate([prefix, texts[1]]), 12, EVERYTHING),
    )
    for cache in (shared, again, *forked):
        cache.release()


def test_greedy_over_sessions_side_by_side_is_what_generate_writes(backbone, reference):
    prompts, new = [ids_of(length, seed=length) for length in (3, 40, 17, 90)], WINDOW
    expected = []
    for prompt in prompts:
        with torch.no_grad():
            whole = reference.generate(
                torch.from_numpy(prompt.astype(np.int64))[None],
                attention_mask=torch.ones(1, len(prompt), dtype=torch.long),
                max_new_tokens=new,
                min_new_tokens=new,
                do_sample=False,
                eos_token_id=None,
                pad_token_id=0,
            )
        expected.append(whole[0, len(prompt) :].tolist())
    caches = [Cache(backbone.pool) for _ in prompts]
    written = [[] for _ in prompts]
    best = Wants(layers=(), final=False, log_z=False, candidates=1, codec="f32")
    added = list(prompts)
    for _ in range(new):
        answers = backbone.read(
            [Span(cache, ids, 1, best) for cache, ids in zip(caches, added, strict=True)]
        )
        added = [states.candidates.ids[0] for states in answers]
        for text, ids in zip(written, added, strict=True):
            text.append(int(ids[0]))
    assert written == expected
    for cache in caches:
        cache.release()


def test_a_chunk_of_which_nothing_is_wanted_has_no_answer(backbone, caches):
    ids = ids_of(40)
    spans = [Span(caches[0], ids[:30], 0, EVERYTHING), Span(caches[1], ids, 3, EVERYTHING)]
    nothing, three = backbone.read(spans)
    assert nothing is None
    assert backbone.read([Span(caches[2], ids, 0, EVERYTHING)]) == [None]
    close(three, alone(backbone, ids, 3, EVERYTHING))
    close(read(backbone, caches[0], ids[30:], 3, EVERYTHING), three)


def test_a_pass_that_fails_leaves_every_cache_as_it_was(backbone, caches):
    ids = ids_of(PAGE + 5)
    before = read(backbone, caches[0], ids, 1, FINAL)

    def fail(*_):
        raise RuntimeError("out of memory")

    broken = backbone.model.base_model.register_forward_hook(fail)
    with pytest.raises(RuntimeError):
        backbone.read([Span(cache, ids, 1, FINAL) for cache in caches])
    broken.remove()
    assert [cache.position for cache in caches] == [len(ids), 0, 0, 0, 0, 0]
    assert [len(cache.pages) for cache in caches] == [2, 0, 0, 0, 0, 0]
    close(read(backbone, caches[1], ids, 1, FINAL), before)


def test_every_tap_of_a_batch_is_that_of_transformers(backbone, reference, caches):
    every = Wants(tuple(range(tiny.LAYERS + 1)), True, False, 0, "f32")
    texts = [ids_of(length, seed=length) for length in LENGTHS]
    spans = [Span(cache, text, len(text), every) for cache, text in zip(caches, texts, strict=True)]
    for text, states in zip(texts, backbone.read(spans), strict=True):
        with torch.no_grad():
            ids = torch.from_numpy(text.astype(np.int64))[None]
            expected = reference.base_model(ids, output_hidden_states=True)
        for layer in range(tiny.LAYERS):
            np.testing.assert_allclose(
                states.taps[layer], expected.hidden_states[layer][0], atol=1e-4
            )
        np.testing.assert_allclose(states.final, expected.last_hidden_state[0], atol=1e-4)


TAP_TWO = Wants((0, 2), False, False, 0, "f32")


def test_who_wants_taps_alone_gets_them_and_no_layer_behind_them_runs(backbone, caches):
    text = ids_of(20, seed=3)
    expected = alone(backbone, text, len(text), EVERYTHING)
    layers = layers_of(backbone.model.base_model, family_named(backbone.facts.family))
    ran = []
    hooks = [
        layer.register_forward_pre_hook(lambda *_, number=number: ran.append(number))
        for number, layer in enumerate(layers)
    ]
    found = [read(backbone, caches[0], part, len(part), TAP_TWO) for part in (text[:15], text[15:])]
    for hook in hooks:
        hook.remove()
    assert ran == [0, 1] * 2
    taps = np.concatenate([states.taps for states in found], axis=1)
    wanted = [EVERYTHING.layers.index(layer) for layer in TAP_TWO.layers]
    np.testing.assert_allclose(taps, expected.taps[wanted], atol=1e-4)
    close(alone(backbone, text, len(text), EVERYTHING), expected)


def test_who_wants_taps_alone_holds_nobody_else_back(backbone, caches):
    texts = [ids_of(length, seed=length) for length in LENGTHS[:4]]
    spans = [
        Span(cache, text, wanted, wants)
        for cache, text, wanted, wants in zip(
            caches, texts, (1, 7, 5, 0), (TAP_TWO, EVERYTHING, TAP_TWO, TAP_TWO), strict=False
        )
    ]
    together = backbone.read(spans)
    assert together[3] is None
    for span, states in zip(spans[:3], together, strict=False):
        close(states, alone(backbone, span.ids, span.wanted, span.wants))
    (nothing,) = backbone.read([Span(caches[4], texts[1], 0, TAP_TWO)])
    assert nothing is None
