"""The backbone's last blocks on the device: compiled kits, a real service, a tiny random backbone."""

import logging
from dataclasses import replace

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM

from adapters.compile import compile_kit
from adapters.plan import kit_id
from adapters.recipe import Recipe
from cloud_service.backbones.block_weights import block_weights
from cloud_service.backbones.head_weights import head_weights
from cloud_service.pull import pull
from cloud_service.registry import Registry
from device_agent.cloud.features import fetch
from device_agent.cloud.link import STORE, Link
from device_agent.cloud.session import RemoteSession
from device_agent.data.examples import Example
from device_agent.data.store import Store
from device_agent.generation.generate import generate
from device_agent.generation.sampling import Sampling
from device_agent.generation.speaker import Speaker
from device_agent.plugins import PluginStore
from device_agent.runtime.head import Head
from device_agent.runtime.tail_plugin import TailPlugin
from device_agent.settings import Settings
from device_agent.training.batches import FeatureRows
from device_agent.training.corpus import cache_of, tokens_of
from device_agent.training.evaluate import evaluate
from device_agent.training.learning import learn
from device_agent.training.watcher import Watcher
from protocol.messages import States, Wants
from tests.cloud_service.running import running, service_for
from tests.tiny import LAYERS, TRAINING_TEXT, VOCABULARY, tiny_folder

pytestmark = pytest.mark.slow

_TAIL = Recipe(
    name="two", target="tail", taps=(), blocks=2, width=4, dropout=0.0, decay=0.0,
    shortlist=96, negatives=32, rate=1e-2, batch_tokens=256,
)  # fmt: skip
RECIPES = {
    "two": _TAIL,
    "one": replace(_TAIL, name="one", blocks=1, loss="full"),
    "every": replace(_TAIL, name="every", blocks=LAYERS, rule="recompute"),
    "four-bits": replace(_TAIL, name="four-bits", compression="int4"),
}
STORY = " ".join(TRAINING_TEXT[:3] * 40)
PROMPT = np.arange(40) * 13 % VOCABULARY


class Served:
    """A service with a tiny backbone, and its kits, each compiled when it is first asked for."""

    def __init__(self, url, cache, pulled):
        self.url, self.folder = url, pulled.folder
        self._kits, self._pulled, self._made = cache / "kits", pulled, {}

    def kit(self, name):
        """Id of the kit of a recipe."""
        if name not in self._made:
            recipe, facts = RECIPES[name], self._pulled.record.facts()
            self._made[name] = kit_id(recipe, facts)
            head, blocks = head_weights(self.folder), block_weights(self.folder)
            folder = self._kits / self._made[name]
            compile_kit(recipe, facts, head, folder, logging.debug, blocks=blocks)
        return self._made[name]


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    torch.set_num_threads(1)
    cache = tmp_path_factory.mktemp("cache")
    folder = tiny_folder("llama", tmp_path_factory.mktemp("models") / "tiny")
    pulled = pull(str(folder), Registry(cache), logging.debug)
    # The engine that needs no compiling: the kits do.
    with running(service_for(cache, pulled, engine="general")) as service:
        service.wait()
        yield Served(str(service.http.base_url), cache, pulled)


@pytest.fixture
def settings(served, tmp_path):
    return Settings(
        home=tmp_path,
        cloud=served.url,
        recipe=served.kit("two"),
        threads=1,
        codec="f32",
        memory="off",
    )


def wants_of(kit, final):
    return Wants(kit.manifest.taps, final=final, log_z=False, candidates=0, codec="f32")


def greedy(link, kit, plugin, count, prompt=PROMPT):
    with RemoteSession(link.cloud, wants_of(kit, final=plugin is None)) as session:
        pieces = generate(
            session, plugin, Head(kit, 1), link.tokenizer(), prompt, Sampling(), (), (), count
        )
        return [piece.token for piece in pieces]


@pytest.mark.parametrize("recipe", ["two", "one", "every"])
def test_greedy_text_with_a_fresh_tail_is_the_whole_models(served, settings, recipe):
    model = AutoModelForCausalLM.from_pretrained(served.folder, dtype=torch.float32).eval()
    with Link(replace(settings, recipe=served.kit(recipe))) as link:
        kit = link.kit()
        found = greedy(link, kit, TailPlugin(kit, kit.initial(), 1), 30)
        assert found == greedy(link, kit, None, 30)
    with torch.no_grad():
        whole = model.generate(
            torch.from_numpy(PROMPT)[None], max_new_tokens=30, do_sample=False, eos_token_id=None
        )
    assert found == whole[0, len(PROMPT) :].tolist()


def states_of(link, kit, ids, wanted=None, final=True):
    with RemoteSession(link.cloud, wants_of(kit, final=final)) as session:
        return session.step(ids, wanted or len(ids))


def test_a_session_that_is_cropped_goes_on_as_if_nothing_had_been_behind(settings):
    other = np.arange(9) * 7 % VOCABULARY
    with Link(settings) as link:
        kit = link.kit()
        plugin = TailPlugin(kit, kit.initial(), 1)
        states = states_of(link, kit, PROMPT)
        plugin.state(states)
        text = np.concatenate([PROMPT[:20], other])
        replaced = states_of(link, kit, text)
    assert plugin.follows(100) == len(PROMPT)
    behind = replace(replaced, position=20, taps=replaced.taps[:, 20:], final=replaced.final[20:])
    np.testing.assert_allclose(plugin.state(behind), behind.final, rtol=1e-3, atol=1e-4)
    assert plugin.follows(100) == 29
    assert plugin.beside().follows(100) == 0
    assert plugin.follows(100) == 29


def test_tokens_left_out_are_noticed(settings):
    with Link(settings) as link:
        kit = link.kit()
        states = states_of(link, kit, PROMPT)
    plugin = TailPlugin(kit, kit.initial(), 1)
    with pytest.raises(ValueError, match="left out"):
        plugin.state(States(3, states.layers, states.taps, states.final))
    with pytest.raises(ValueError, match="needs tap"):
        plugin.state(States(0, (0,), states.taps, states.final))


def train(settings, examples, **chosen):
    with Store(settings.home / STORE) as store:
        store.add_examples(examples, "test")
    with Link(settings) as link:
        return learn(link, {"threads": 1, **chosen}, Watcher())


@pytest.mark.parametrize("recipe", ["two", "one", "every", "four-bits"])
def test_every_tail_learns(served, settings, recipe):
    settings = replace(settings, recipe=served.kit(recipe))
    lesson = train(settings, [Example(text=STORY)], epochs=4)
    losses = [entry["loss"] for entry in lesson.trained.course.history]
    assert losses[-1] < losses[0]
    assert lesson.after < lesson.evaluation.base - 0.5
    assert lesson.promoted


def test_a_trained_tail_speaks_and_the_backbone_stays_itself(settings):
    lesson = train(settings, [Example(text=STORY)], epochs=4)
    version = PluginStore(settings.home).current()
    assert lesson.promoted
    assert version.speaks == "plugin"
    assert not len(version.prefix)
    with Link(settings) as link, Speaker(link, version) as speaker:
        prompt = speaker.read("The lamp in the harbour")
        kit = link.kit(version.kit_id)
        expected = greedy(link, kit, TailPlugin(kit, version.weights(), 1), 12, prompt)
        frozen = greedy(link, kit, None, 12, prompt)
        assert expected != frozen

        def answer(who, **chosen):
            return [piece.token for piece in who.answer(prompt, Sampling(), 12, **chosen)]

        assert answer(speaker) == expected
        assert answer(speaker, base=True) == frozen
        assert answer(speaker, reuse=True) == expected
        twin = speaker.beside(link)
        assert answer(twin) == expected
        assert answer(speaker, reuse=True) == expected
        twin.close()


def test_conversations_are_learned_with_what_was_asked_in_sight(settings):
    said = [("Who keeps the lamp?", "The harbour office."), ("What costs tea?", "A promise.")]
    chats = [
        Example(messages=(("user", f"{asked} {n}"), ("assistant", answer)))
        for n in range(20)
        for asked, answer in said
    ]
    lesson = train(replace(settings, memory="on"), chats, epochs=3)
    assert lesson.evaluation.plugin < lesson.evaluation.base - 1
    assert lesson.evaluation.whole < lesson.evaluation.base - 1


def test_the_figures_are_those_of_the_whole_model_in_torch(served, settings):
    model = AutoModelForCausalLM.from_pretrained(served.folder, dtype=torch.float32).eval()
    with Link(settings) as link:
        kit = link.kit()
        (texts,) = tokens_of(link, [Example(text=STORY[:2500])], whole=True)
        cache = cache_of(link, kit, None)
        fetch(lambda: link.cloud, cache, texts)
    assert len(texts) > 1
    head, rows = Head(kit, 1), FeatureRows(cache, texts)
    found = evaluate(kit.manifest, head, TailPlugin(kit, kit.initial(), 1), rows)
    total = 0.0
    for text in texts:
        ids = torch.from_numpy(text.ids.astype(np.int64))
        with torch.no_grad():
            logits = model(ids[None, :-1]).logits[0].double()
        total += float(torch.nn.functional.cross_entropy(logits, ids[1:], reduction="sum"))
    assert found.base == pytest.approx(total / len(rows), abs=0.01)
    assert found.plugin == pytest.approx(found.base, abs=0.01)
