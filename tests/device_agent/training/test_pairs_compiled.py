"""Pairs learned with an encoder-decoder: kits from the compiler, the real service, tiny random backbones."""

import logging
from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch
from transformers import PreTrainedModel

from adapters.compile import compile_kit
from adapters.plan import kit_id
from adapters.recipe import Recipe
from cloud_service.backbones.head_weights import head_weights
from cloud_service.backbones.loading import load_model
from cloud_service.backbones.seq2seq_families import SEQ2SEQ
from cloud_service.pull import pull
from cloud_service.registry import Registry
from device_agent.cloud.client import CloudClient
from device_agent.cloud.link import STORE, Link
from device_agent.cloud.session import RemoteSession
from device_agent.data.examples import Example
from device_agent.data.store import Store
from device_agent.generation.sampling import Sampling
from device_agent.generation.speaker import Speaker
from device_agent.plugins import PluginStore
from device_agent.settings import Settings
from device_agent.training.corpus import tokens_of
from device_agent.training.learning import learn
from device_agent.training.watcher import Watcher
from protocol.messages import Wants
from tests.cloud_service.running import Running, running, service_for
from tests.tiny import TRAINING_TEXT, tiny_folder

pytestmark = pytest.mark.slow

RECIPE = Recipe(name="small", taps=(0.5, 1.0), width=16, loss="full", rate=1e-2)
SOURCES = [f"{TRAINING_TEXT[i % 3]} Number {i}?" for i in range(24)]
PAIRS = [Example(messages=(("user", one), ("assistant", TRAINING_TEXT[1]))) for one in SOURCES]
NEW = 30


@dataclass(frozen=True)
class Served:
    cloud: Running
    url: str
    kit: str
    model: PreTrainedModel
    """As transformers runs it by itself."""


@pytest.fixture(scope="module", params=SEQ2SEQ)
def served(request, tmp_path_factory):
    torch.set_num_threads(1)
    cache = tmp_path_factory.mktemp("cache")
    folder = tiny_folder(request.param, tmp_path_factory.mktemp("models") / "tiny")
    pulled = pull(str(folder), Registry(cache), logging.debug)
    facts, head = pulled.record.facts(), head_weights(pulled.folder)
    kit = kit_id(RECIPE, facts)
    compile_kit(RECIPE, facts, head, cache / "kits" / kit, logging.debug)
    with running(service_for(cache, pulled)) as cloud:
        cloud.wait()
        model = load_model(pulled.folder, "f32").eval()
        yield Served(cloud, str(cloud.http.base_url), kit, model)


@pytest.fixture
def settings(served, tmp_path):
    return Settings(
        home=tmp_path, cloud=served.url, recipe=served.kit, threads=1, codec="f32", wire_kl=0
    )


def said(settings, version, source, *, times=1, **options):
    """Tokens of the last of several answers to the same source."""
    with Link(settings) as link, Speaker(link, version) as speaker:
        for _ in range(times):
            ids = speaker.ask([{"role": "user", "content": source}])
            pieces = list(speaker.answer(ids, Sampling(), NEW, **options))
        return ids, [piece.token for piece in pieces]


def train(settings, examples, **chosen):
    with Store(settings.home / STORE) as store:
        store.add_examples(examples, "test")
    with Link(settings) as link:
        return learn(link, {"threads": 1, **chosen}, Watcher())


def fresh_plugin(settings):
    """A version with the weights that a kit begins with."""
    with Link(settings) as link:
        kit = link.kit()
    about = {"codec": "f32", "speaks": "plugin", "examples": []}
    plugins = PluginStore(settings.home)
    made = plugins.add(kit.manifest, kit.initial(), about, np.zeros(0, np.uint32), {}, [])
    return plugins.get(made.version)


def likely(model, source, answer):
    """Whether each token of an answer is the one that transformers finds likeliest there, up to rounding."""
    facts = model.generation_config
    start = [facts.decoder_start_token_id]
    start += [] if facts.forced_bos_token_id is None else [facts.forced_bos_token_id]
    with torch.no_grad():
        logits = model(
            input_ids=torch.tensor([list(source)]),
            decoder_input_ids=torch.tensor([[*start, *answer[:-1]]]),
        ).logits[0, len(start) - 1 :]
    chosen = logits[torch.arange(len(answer)), torch.tensor(answer)]
    spread = (logits.amax(-1) - logits.mean(-1)).clamp_min(1e-6)
    return ((logits.amax(-1) - chosen) / spread).tolist()


@pytest.mark.parametrize("drafts", ["off", "5"])
def test_the_frozen_backbone_answers_on_the_device_as_in_transformers(served, settings, drafts):
    settings = replace(settings, drafts=drafts)
    for source in ("What?", TRAINING_TEXT[0], TRAINING_TEXT[3]):
        ids, answer = said(settings, None, source)
        # The device's head has 8 bits: of two tokens that are nearly as likely it may take the other.
        assert max(likely(served.model, ids, answer)) < 0.03


def test_a_fresh_plugin_changes_nothing(settings):
    _, base = said(settings, None, SOURCES[0])
    assert said(settings, fresh_plugin(settings), SOURCES[0])[1] == base


def test_a_source_that_is_answered_again_is_not_read_again(served, settings):
    settings = replace(settings, drafts="off")
    once = said(settings, None, SOURCES[1])[1]
    steps = served.cloud.service.metrics.tokens.labels("step")
    before = steps._value.get()
    assert said(settings, None, SOURCES[1], times=2, reuse=True)[1] == once
    ids, _ = said(settings, None, SOURCES[1])
    spent = steps._value.get() - before
    assert spent < 3 * (len(ids) + len(once) + 1) - len(ids) + 1


def test_pairs_are_learned(served, settings):
    lesson = train(settings, PAIRS, epochs=30)
    card = PluginStore(settings.home).versions()[-1].card
    assert lesson.promoted, card
    _, base = said(settings, None, "A new one?")
    _, learned = said(settings, PluginStore(settings.home).current(), "A new one?")
    assert learned != base
    with Link(settings) as link:
        tokenizer = link.tokenizer()
        # What was learned is what was never likely before.
        wanted = tokenizer.encode(TRAINING_TEXT[1], special=False).tolist()
    shared = {*wanted} & {*learned}
    assert len(shared) > len({*wanted} & {*base})


def test_documents_are_learned_as_halves(settings):
    story = Example(text=" ".join(TRAINING_TEXT[:3] * 40))
    assert train(settings, [story], epochs=6).promoted


def test_the_frozen_nll_of_pairs_is_that_of_transformers(served, settings):
    """Which tokens are read, where they stand and which are scored, all at once."""
    with Link(settings) as link:
        ((pair,),) = tokens_of(link, [PAIRS[0]])
        wants = Wants((), final=True, log_z=True, candidates=0, codec="f32")
        (states,) = link.cloud.features(
            [pair.fed], wants, [len(pair.fed) - pair.first], sources=[pair.source]
        )
    model = served.model
    with torch.no_grad():
        logits = model(
            input_ids=torch.tensor(pair.fed[None, : pair.source].astype(np.int64)),
            decoder_input_ids=torch.tensor(pair.fed[None, pair.source :].astype(np.int64)),
        ).logits[0, -len(pair.targets) :]
    np.testing.assert_allclose(states.log_z, logits.logsumexp(-1), rtol=1e-4, atol=1e-3)


def test_a_session_that_is_lost_gets_its_source_again(served):
    wants = Wants((1, 3), final=True, log_z=False, candidates=0, codec="f32")
    start = served.cloud.service.facts.decoder_start
    with CloudClient(served.url) as cloud:
        cloud.facts()
        lost, kept = RemoteSession(cloud, wants), RemoteSession(cloud, wants)
        for session in (lost, kept):
            session.begin(9)
            session.step([*range(3, 12), *start])
        cloud.close_session(lost._opened.session)
        for token in (7, 8):
            one, other = lost.step([token]), kept.step([token])
            np.testing.assert_allclose(one.final, other.final, rtol=1e-4, atol=1e-3)
        assert lost.source == 9
        with pytest.raises(ValueError, match="cannot crop"):
            lost.crop(5)
        lost.crop(9)
        lost.step([*start])
        lost.begin(2)
        assert lost.step([3, 4, *start]).position == 2 + len(start) - 1
        lost.close()
        kept.close()
