import numpy as np
import pytest

from device_agent.runtime.kits import DamagedKit
from device_agent.runtime.side_plugin import BrokenPlugin, SidePlugin
from protocol.messages import States
from tests.device_agent.small_kit import HIDDEN, TAPS, small_kit


def states(tokens=3, layers=TAPS):
    rng = np.random.default_rng(0)
    taps = rng.standard_normal((len(layers), tokens, HIDDEN)).astype(np.float32)
    final = rng.standard_normal((tokens, HIDDEN)).astype(np.float32)
    return States(position=0, layers=layers, taps=taps, final=final)


def test_the_state_is_what_the_graph_says(tmp_path):
    scale = np.linspace(-1, 1, HIDDEN, dtype=np.float32)
    plugin = SidePlugin(small_kit(tmp_path), {"scale": scale}, threads=1)
    given = states()
    expected = given.final + scale * given.taps.sum(axis=0)
    np.testing.assert_allclose(plugin.state(given), expected, rtol=1e-5, atol=1e-6)


def test_any_number_of_tokens_goes_through_one_plugin(tmp_path):
    kit = small_kit(tmp_path)
    plugin = SidePlugin(kit, kit.initial(), threads=1)
    for tokens in (1, 7, 2):
        given = states(tokens)
        np.testing.assert_array_equal(plugin.state(given), given.final)


@pytest.mark.parametrize(
    "weights",
    [
        {},
        {"scale": np.zeros(HIDDEN + 1, np.float32)},
        {"scale": np.zeros(HIDDEN, np.float32), "more": np.zeros(1, np.float32)},
    ],
    ids=["missing", "another shape", "one too many"],
)
def test_weights_that_are_not_the_kits_are_refused(tmp_path, weights):
    with pytest.raises(DamagedKit):
        SidePlugin(small_kit(tmp_path), weights, threads=1)


def test_states_of_other_layers_are_refused(tmp_path):
    kit = small_kit(tmp_path)
    plugin = SidePlugin(kit, kit.initial(), threads=1)
    with pytest.raises(ValueError, match="needs taps"):
        plugin.state(states(layers=(0, 2)))


def test_weights_without_measure_are_told_and_not_sampled_from(tmp_path):
    scale = np.full(HIDDEN, 3e38, np.float32)
    plugin = SidePlugin(small_kit(tmp_path), {"scale": scale}, threads=1)
    with pytest.raises(BrokenPlugin, match="finite"):
        plugin.state(states())
