"""Kits from the compiler, features from the real service: a tiny random backbone over real HTTP."""

import logging
from dataclasses import replace

import numpy as np
import pytest
import torch

from adapters.compile import compile_kit
from adapters.plan import kit_id
from adapters.recipe import Recipe
from cloud_service.backbones.head_weights import head_weights
from cloud_service.pull import pull
from cloud_service.registry import Registry
from device_agent.cloud.features import fetch
from device_agent.cloud.link import STORE, Link
from device_agent.data.examples import Example
from device_agent.data.store import Store
from device_agent.runtime.head import Head
from device_agent.runtime.side_plugin import SidePlugin, onnx_session
from device_agent.settings import Settings
from device_agent.training.batches import FeatureRows
from device_agent.training.corpus import cache_of, tokens_of
from device_agent.training.evaluate import evaluate
from device_agent.training.learning import learn
from device_agent.training.shortlist import Shortlist
from device_agent.training.step import TrainingStep
from device_agent.training.watcher import Watcher
from tests.cloud_service.running import running, service_for
from tests.tiny import TRAINING_TEXT, tiny_folder

pytestmark = pytest.mark.slow

RECIPES = (
    Recipe(name="short", taps=(0.5, 1.0), width=16, shortlist=96, negatives=32, rate=1e-2),
    Recipe(name="whole", taps=(0.5, 1.0), width=16, loss="full", rate=1e-2),
    Recipe(name="spa", target="spa", taps=(), width=16, rate=1e-2, shortlist=96, negatives=32),
    Recipe(
        name="sparse", target="sparse_ladder", taps=(0.5, 1.0), width=16, loss="full", rate=1e-2
    ),
)
STORY = " ".join(TRAINING_TEXT[:3] * 40)


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    """Address of a service, and the ids of its kits by recipe."""
    torch.set_num_threads(1)
    cache = tmp_path_factory.mktemp("cache")
    folder = tiny_folder("llama", tmp_path_factory.mktemp("models") / "tiny")
    pulled = pull(str(folder), Registry(cache), logging.debug)
    facts, head, ids = pulled.record.facts(), head_weights(pulled.folder), {}
    for recipe in RECIPES:
        ids[recipe.name] = kit_id(recipe, facts)
        compile_kit(recipe, facts, head, cache / "kits" / ids[recipe.name], logging.debug)
    with running(service_for(cache, pulled)) as service:
        service.wait()
        yield str(service.http.base_url), ids, folder


@pytest.fixture
def settings(served, tmp_path):
    url, ids, _ = served
    return Settings(home=tmp_path, cloud=url, recipe=ids["short"], threads=1, prefix=0)


def train(settings, examples, **chosen):
    with Store(settings.home / STORE) as store:
        store.add_examples(examples, "test")
    with Link(settings) as link:
        return learn(link, {"threads": 1, **chosen}, Watcher())


@pytest.mark.parametrize("recipe", ["short", "whole", "spa", "sparse"])
def test_every_recipe_learns(served, settings, recipe):
    settings = replace(settings, recipe=served[1][recipe])
    lesson = train(settings, [Example(text=STORY)], epochs=8)
    losses = [entry["loss"] for entry in lesson.trained.course.history]
    assert losses[-1] < losses[0]
    assert lesson.after < lesson.evaluation.base
    assert lesson.promoted


@pytest.mark.parametrize("recipe", ["short", "whole", "spa", "sparse"])
def test_writing_over_what_is_read_changes_nothing(served, settings, recipe):
    with Link(replace(settings, recipe=served[1][recipe])) as link:
        kit = link.kit()
    head, rng = Head(kit, 1), np.random.default_rng(0)
    shortlist = Shortlist.of(head, np.arange(kit.manifest.shortlist or head.vocabulary))
    sizes = shortlist.sizes(24, kit.manifest.negatives)
    schedule = {"rate": 1e-2, "total": 9.0, "warmup": 1.0}
    step = TrainingStep(kit, shortlist, 24, sizes, schedule, 1)
    step.load(kit.initial())
    for name, array in step.inputs.items():
        array[...] = rng.uniform(0.1, 1, array.shape) if name != "targets" else 3
    step.own_rows[:] = rng.normal(0, 0.1, step.own_rows.shape)
    feeds = {
        **step.inputs,
        "rows": np.concatenate([shortlist.rows, step.own_rows]),
        "bias": np.concatenate([shortlist.bias, step.own_bias]),
        **{name: np.array(value, np.float32) for name, value in schedule.items()},
        **{name: array.copy() for name, array in step.state().items()},
    }
    session = onnx_session(kit.path("train.onnx"), 1)
    names = [given.name for given in session.get_outputs()]
    for count in range(1, 4):
        feeds["count"] = np.array(count, np.float32)
        apart = dict(zip(names, session.run(names, feeds), strict=True))
        loss, norm = step.run(count)
        assert (loss, norm) == (float(apart["loss"]), float(apart["norm"]))
        feeds |= {name: apart[f"next.{name}"] for name in step.state()}
        for name, array in step.state().items():
            assert (array == feeds[name]).all(), name


@pytest.mark.parametrize("codec", ["f32", "bf16", "int8"])
def test_every_codec_learns(settings, codec):
    lesson = train(replace(settings, codec=codec), [Example(text=STORY)], epochs=4)
    assert lesson.after < lesson.evaluation.base


def test_behind_a_prefix_it_learns_as_well(settings):
    lesson = train(replace(settings, prefix=64), [Example(text=STORY)], epochs=8)
    assert lesson.evaluation.prefix is not None
    assert lesson.after < lesson.evaluation.base


def test_conversations_are_learned(settings):
    said = [("Who keeps the lamp?", "The harbour office."), ("What costs tea?", "A promise.")]
    chats = [
        Example(messages=(("user", f"{asked} {n}"), ("assistant", answer)))
        for n in range(20)
        for asked, answer in said
    ]
    lesson = train(settings, chats, epochs=6)
    assert lesson.after < lesson.evaluation.base - 1


def test_the_figures_are_those_of_the_whole_model_in_torch(served, settings):
    from transformers import AutoModelForCausalLM

    _, _, folder = served
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    settings = replace(settings, codec="f32")
    with Link(settings) as link:
        kit = link.kit()
        (texts,) = tokens_of(link, [Example(text=STORY[:1500])])
        cache = cache_of(link, kit, None)
        fetch(lambda: link.cloud, cache, texts)
    head, rows = Head(kit, 1), FeatureRows(cache, texts)
    found = evaluate(kit.manifest, head, SidePlugin(kit, kit.initial(), 1), rows)
    total = 0.0
    for text in texts:
        ids = torch.from_numpy(text.ids.astype(np.int64))
        with torch.no_grad():
            logits = model(ids[None, :-1]).logits[0].double()
        total += float(torch.nn.functional.cross_entropy(logits, ids[1:], reduction="sum"))
    # What is between them: float16 on disk, and a head of 8 bits.
    assert found.base == pytest.approx(total / len(rows), abs=0.01)
    assert found.plugin == pytest.approx(found.base, abs=0.01)
