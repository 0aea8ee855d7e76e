import numpy as np
import pytest
import torch

from device_agent.data.examples import Encoded
from device_agent.generation.posterior import averaged
from device_agent.runtime.head import Head
from device_agent.runtime.kits import Kit
from device_agent.runtime.side_plugin import SidePlugin
from device_agent.training.batches import FeatureRows
from device_agent.training.evaluate import Evaluation, compare, evaluate, score, unprefixed
from tests.device_agent.small_kit import HIDDEN, random_head, write_kit
from tests.device_agent.teaching import filled_cache, states_of


def text(count, seed):
    rng = np.random.default_rng(seed)
    scored = (rng.random(count) < 0.7).astype(np.float32)
    return Encoded(rng.integers(0, 90, count + 1).astype(np.uint32), scored)


TEXTS = [text(count, seed) for seed, count in enumerate((700, 30, 900))]
"""More rows than pass through the vocabulary at a time."""


def truth(head, scale):
    """Cross-entropy by torch, in float64."""
    total, count = 0.0, 0.0
    for one in TEXTS:
        states = states_of(one.fed, head)
        moved = states.final + scale * states.taps.sum(0)
        logits = torch.from_numpy(head.logits(moved))
        each = torch.nn.functional.cross_entropy(
            logits, torch.from_numpy(one.ids[1:].astype(np.int64)), reduction="none"
        )
        total += float((each.numpy() * one.scored).sum())
        count += float(one.scored.sum())
    return total / count


@pytest.fixture(params=[None, 4.0], ids=["plain", "capped"])
def scored(request, tmp_path):
    head = random_head(softcap=request.param)
    kit = Kit(write_kit(tmp_path / "kit", head), tmp_path / "kit")
    rows = FeatureRows(filled_cache(tmp_path / "features", kit, TEXTS, head), TEXTS)
    scale = np.random.default_rng(9).normal(0, 0.3, HIDDEN).astype(np.float32)
    plugin = SidePlugin(kit, {"scale": scale}, 1)
    return head, scale, evaluate(kit.manifest, Head(kit, 1), plugin, rows), kit, rows


def test_the_figures_are_those_of_torch(scored):
    head, scale, found, _, _ = scored
    # Features are float16 on disk.
    assert found.base == pytest.approx(truth(head, np.zeros(HIDDEN)), abs=1e-3)
    assert found.plugin == pytest.approx(truth(head, scale), abs=1e-3)
    assert found.tokens == sum(int(one.scored.sum()) for one in TEXTS)


def test_a_fresh_plugin_changes_nothing(scored):
    _, _, _, kit, rows = scored
    fresh = SidePlugin(kit, {"scale": np.zeros(HIDDEN, np.float32)}, 1)
    found = evaluate(kit.manifest, Head(kit, 1), fresh, rows)
    assert found.plugin == pytest.approx(found.base, abs=1e-4)


def test_without_a_plugin_the_backbone_is_judged_alone(scored):
    _, _, both, kit, rows = scored
    alone = evaluate(kit.manifest, Head(kit, 1), None, rows)
    assert (alone.base, alone.plugin) == (both.base, None)


def test_perplexities_go_with_the_figures():
    told = Evaluation(tokens=7, base=np.log(8.0), plugin=np.log(2.0)).to_json()
    assert told["tokens"] == 7
    assert told["base"]["perplexity"] == pytest.approx(8)
    assert told["plugin"]["perplexity"] == pytest.approx(2)
    assert "plugin" not in Evaluation(tokens=7, base=1.0, plugin=None).to_json()


def test_a_plugin_gone_wild_has_a_figure_that_json_can_hold():
    assert np.isfinite(Evaluation(1, 1.0, 5000.0).to_json()["plugin"]["perplexity"])


def documents(scored):
    """The same texts, some of them documents."""
    kit, head = scored[3], scored[0]
    texts = [*TEXTS, Encoded(np.arange(80, dtype=np.uint32), np.ones(79, np.float32))]
    texts += [Encoded(np.full(90, 5, np.uint32), np.ones(89, np.float32))]
    return texts, kit, head


def test_documents_are_doubted_and_conversations_are_not(scored, tmp_path):
    texts, kit, head = documents(scored)
    rows = FeatureRows(filled_cache(tmp_path / "more", kit, texts, head), texts)
    plugin = SidePlugin(kit, {"scale": np.full(HIDDEN, 0.5, np.float32)}, 1)
    reader = Head(kit, 1)
    found = compare(kit.manifest, reader, plugin, rows, rows)
    plain = score(kit.manifest, reader, plugin, rows)
    talk = rows.starts[3]
    expected = plain.plugin.copy()
    starts = (rows.starts[3:] - talk).tolist()
    expected[talk:] = averaged(plain.plugin[talk:], plain.base[talk:], starts)
    assert found.plugin == pytest.approx(plain.mean(expected))
    assert abs(expected[talk:] - plain.plugin[talk:]).max() > 0.1
    assert found.base == pytest.approx(plain.mean(plain.base))


def test_without_its_prefix_a_plugin_is_doubted_as_well(scored, tmp_path):
    texts, kit, head = documents(scored)
    rows = FeatureRows(filled_cache(tmp_path / "more", kit, texts, head), texts)
    plugin = SidePlugin(kit, {"scale": np.full(HIDDEN, 0.5, np.float32)}, 1)
    parts = (kit.manifest, Head(kit, 1), plugin, rows)
    assert unprefixed(*parts) == pytest.approx(compare(*parts, rows).plugin)
