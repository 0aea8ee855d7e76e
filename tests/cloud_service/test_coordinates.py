"""Answers in a kit's public basis: what a device reads of them is what whole states would have been."""

import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM

from cloud_service.public_states import READ_WHOLE, public_texts, say_something
from protocol import versions
from protocol.basis import FILE, Basis, Directions
from protocol.encoding import Encoding, Section
from protocol.errors import KitNotFound, MalformedMessage
from protocol.kit import BasisSpec
from protocol.messages import Coordinates, States, Wants
from protocol.stream import FrameReader
from tests import tiny
from tests.cloud_service.running import fault_in, ids_of, put_kit, running, service_for, tokens_of

LAYERS = (1, 3)
EXACT = Encoding((Section("f32", 40), Section("f32", 24)), (Section("f32", 128),))
SMALL = Encoding((Section("int6", 64),), (Section("int4", 128),))
FEWER = Encoding((Section("int8", 10),), (Section("f16", 5),))


def directions(space: int, seed: int) -> Directions:
    axes, _ = np.linalg.qr(np.random.default_rng(seed).standard_normal((space, space)))
    return Directions(
        np.full(space, 0.25, np.float32), axes.astype(np.float32), axes.T.astype(np.float32)
    )


BASIS = Basis(LAYERS, directions(tiny.HIDDEN, 0), directions(2 * tiny.HIDDEN, 1))


@pytest.fixture(scope="module")
def kit(cache, pulled_of):
    """A kit with a basis."""
    made = put_kit(cache, pulled_of("llama"), "spa-narrow")
    folder = cache / "kits" / made.id
    (folder / FILE).write_bytes(BASIS.to_bytes())
    manifest = replace(
        made,
        layers=tiny.LAYERS,
        hidden=tiny.HIDDEN,
        taps=LAYERS,
        basis=BasisSpec(*BASIS.widths),
        encodings=(),
    )
    (folder / "manifest.json").write_text(json.dumps(manifest.to_json()))
    yield manifest
    shutil.rmtree(folder)  # others count the cache's kits


@pytest.fixture(scope="module")
def cloud(cache, pulled_of, kit):
    with running(service_for(cache, pulled_of("llama"))) as made:
        made.wait()
        yield made


def wants(kit, encoding, **others):
    return Wants(LAYERS, True, True, 3, "f32", kit.id, encoding, **others)


def answered(cloud, asked, tokens):
    answer = cloud.post(cloud.open(asked).session, tokens)
    assert answer.status_code == 200, answer.text
    return versions.decode(answer.content)


WHOLE = Wants(LAYERS, True, True, 3, "f32")
TOKENS = tokens_of(ids_of(20), wanted=7)


def test_exact_coordinates_stand_for_the_states_themselves(cloud, kit):
    whole = answered(cloud, WHOLE, TOKENS)
    found = answered(cloud, wants(kit, EXACT), TOKENS)
    assert isinstance(whole, States)
    assert isinstance(found, Coordinates)
    back = BASIS.read(found)
    assert (back.layers, back.position) == (whole.layers, whole.position)
    assert np.allclose(back.taps, whole.taps, atol=1e-4)
    assert np.allclose(back.final, whole.final, atol=1e-4)
    assert np.array_equal(back.log_z, whole.log_z)
    assert np.array_equal(back.candidates.ids, whole.candidates.ids)


@pytest.mark.parametrize("encoding", [SMALL, FEWER])
def test_an_answer_is_the_projection_in_the_encoding_asked_for(cloud, kit, encoding):
    whole = answered(cloud, WHOLE, TOKENS)
    found = answered(cloud, wants(kit, encoding), TOKENS)
    expected = versions.decode(
        versions.encode(BASIS.written(whole, encoding.widths), encoding),
    )
    # The pass may round otherwise, which a code in one of a few bits can show.
    assert np.mean(np.isclose(found.final, expected.final, atol=1e-4)) > 0.98
    assert np.mean(np.isclose(found.taps, expected.taps, atol=1e-4)) > 0.98


def test_a_small_answer_is_small(cloud, kit):
    opened = cloud.open(Wants(LAYERS, True, False, 0, "f32", kit.id, SMALL))
    answer = cloud.post(opened.session, tokens_of(ids_of(5), wanted=1))
    assert len(answer.content) == 16 + 16 + 2 * 4 + SMALL.size(1)


def test_drafts_travel_as_coordinates_too(cloud, kit):
    asked = tokens_of(ids_of(20), wanted=1, drafts=3)
    whole, found = (answered(cloud, one, asked) for one in (WHOLE, wants(kit, EXACT)))
    assert np.array_equal(found.drafted, whole.drafted)
    assert np.allclose(BASIS.read(found).final, whole.final, atol=1e-4)


def test_what_is_drafted_is_likeliest_by_the_coordinates_that_arrive(cloud, kit, reference_of):
    lm_head = reference_of("llama").lm_head.weight.detach().numpy()
    asked = Wants(LAYERS, True, False, 0, "f32", kit.id, SMALL)
    for seed in range(10):
        tokens = tokens_of(ids_of(9, seed), wanted=1, drafts=4)
        states = BASIS.read(answered(cloud, asked, tokens))
        likeliest = (states.final @ lm_head.T).argmax(axis=1)
        assert states.drafted.tolist() == likeliest[:-1].tolist()


def test_features_come_as_coordinates(cloud, kit):
    texts = [tokens_of(ids_of(9, seed)) for seed in (1, 2)]
    content = b"".join(map(versions.encode, texts))
    found = []
    for asked in (WHOLE, wants(kit, EXACT)):
        query = {"wants": json.dumps(asked.to_json())}
        answer = cloud.http.post("/v1/features", params=query, content=content)
        reader = FrameReader(cloud.service.facts.limits)
        found.append([versions.decode(frame) for frame in reader.feed(answer.content)])
    for whole, coordinates in zip(*found, strict=True):
        assert np.allclose(BASIS.read(coordinates).taps, whole.taps, atol=1e-4)


def test_a_device_without_a_plugin_asks_for_the_final_state_alone(cloud, kit):
    asked = Wants((), True, False, 0, "f32", kit.id, Encoding(EXACT.final, ()))
    found = answered(cloud, asked, TOKENS)
    assert found.taps.shape == (7, 0)


@pytest.mark.parametrize(
    ("change", "error"),
    [
        ({"basis": "f" * 64}, KitNotFound),
        ({"basis": "no-digest"}, KitNotFound),
        ({"layers": [1, 2]}, MalformedMessage),
        ({"encoding": Encoding((Section("f32", 65),), EXACT.taps).to_json()}, MalformedMessage),
        ({"encoding": Encoding(EXACT.final, (Section("f32", 129),)).to_json()}, MalformedMessage),
    ],
)
def test_a_basis_that_is_not_there_is_refused(cloud, kit, change, error):
    asked = wants(kit, EXACT).to_json() | change
    answer = cloud.http.post(
        "/v1/sessions", json={"wants": asked, "protocol": "1.1", "prefix": None}
    )
    assert isinstance(fault_in(answer), error)
    query = {"wants": json.dumps(asked)}
    answer = cloud.http.post("/v1/features", params=query, content=versions.encode(TOKENS))
    assert isinstance(fault_in(answer), error)


def test_a_kit_without_a_basis_is_refused(cloud, cache, pulled_of):
    plain = put_kit(cache, pulled_of("llama"), "spa")
    folder = cache / "kits" / plain.id
    bare = replace(plain, basis=None, encodings=())
    (folder / "manifest.json").write_text(json.dumps(bare.to_json()))
    asked = wants(bare, EXACT).to_json()
    answer = cloud.http.post(
        "/v1/sessions", json={"wants": asked, "protocol": "1.1", "prefix": None}
    )
    assert isinstance(fault_in(answer), KitNotFound)


def test_a_backbone_says_the_same_twice(backbone_of):
    backbone = backbone_of("llama")
    pages = backbone.pool.free
    first, again = (say_something(backbone, LAYERS, 1, 6, 5) for _ in range(2))
    assert first.taps.shape == (2, 30, tiny.HIDDEN)
    assert np.array_equal(first.final, again.final)
    assert np.array_equal(first.taps, again.taps)
    assert backbone.pool.free == pages


def test_what_it_says_begins_as_it_is_told(backbone_of):
    backbone = backbone_of("llama")
    found = say_something(backbone, (0,), 5, 4, 2)
    begun = say_something(backbone, (0,), None, 4, 2)
    # The embedding of token 5 begins every other text.
    assert np.array_equal(found.taps[0, 0], found.taps[0, 2])
    assert not np.array_equal(begun.taps[0, 0], begun.taps[0, 2])
    assert np.array_equal(found.taps[0, 1], begun.taps[0, 1])


def test_public_texts_are_whole_texts_as_the_model_reads_them(cache, pulled_of):
    pulled = pulled_of("llama")
    model = AutoModelForCausalLM.from_pretrained(pulled.folder, dtype=torch.float32).eval()
    embedded, states = (public_texts(pulled, cache, layer) for layer in (0, 2))
    assert embedded.shape == states.shape == (READ_WHOLE, embedded.shape[1], tiny.HIDDEN)
    rows = model.get_input_embeddings().weight
    # Each row is some token's embedding, up to how weights are kept in a service.
    ids = torch.cdist(embedded.flatten(0, 1), rows).argmin(1).view(READ_WHOLE, -1)
    with torch.no_grad():
        expected = model(ids, output_hidden_states=True).hidden_states[2]
    assert (states - expected).norm() <= 0.05 * expected.norm()
