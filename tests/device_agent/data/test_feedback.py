import numpy as np
import pytest
from scipy.stats import fisher_exact

from device_agent.data.feedback import CHANCE, Ratings, chance, turn_back
from device_agent.data.store import Store
from device_agent.plugins import PluginStore
from tests.device_agent.small_kit import HIDDEN, write_kit


@pytest.mark.parametrize(
    ("now", "before"),
    [((3, 7), (9, 1)), ((0, 1), (1, 0)), ((5, 5), (5, 5)), ((0, 0), (3, 4)), ((2, 0), (0, 9)),
     ((40, 60), (80, 20)), ((0, 4), (0, 0)), ((1, 30), (29, 2))],
)  # fmt: skip
def test_it_is_fishers_exact_test(now, before):
    table = [[now[1], now[0]], [before[1], before[0]]]
    expected = fisher_exact(table, alternative="greater").pvalue
    assert chance(Ratings(*now), Ratings(*before)) == pytest.approx(expected)


@pytest.fixture
def home(tmp_path):
    """Two versions; the second speaks, and the first did before it."""
    plugins = PluginStore(tmp_path)
    manifest = write_kit(tmp_path / "kit")
    for _ in range(2):
        scale = {"scale": np.zeros(HIDDEN, np.float32)}
        version = plugins.add(manifest, scale, {}, np.empty(0, np.uint32), {}, [])
        plugins.use(version.version)
    with Store(tmp_path / "store.sqlite") as store:
        yield plugins, store


def rate(store, model, up, down):
    for rating in ["up"] * up + ["down"] * down:
        store.add_feedback(model, [("user", "a")], "b", rating, None)


def test_when_feedback_turns_the_version_before_speaks_again_and_it_says_why(home):
    plugins, store = home
    rate(store, "me:1", up=10, down=1)
    given = 0
    while not turn_back(plugins, store):
        assert plugins.current().version == "2"
        rate(store, "me:2", up=0, down=1)
        given += 1
        assert given < 9
    assert given > 1, "one thumb is no proof"
    assert plugins.current().version == "1"
    assert plugins.reason == (
        f"version 2 got {given} thumbs down of {given}, me:1 before it 1 of 11"
    )
    plugins.use("2")
    assert plugins.reason is None


def test_equal_feedback_changes_nothing(home):
    plugins, store = home
    for model in ("me:1", "me:2"):
        rate(store, model, up=5, down=9)
    assert not turn_back(plugins, store)
    assert plugins.current().version == "2"


def test_without_feedback_on_what_spoke_before_there_is_no_comparison(home):
    plugins, store = home
    rate(store, "me:2", up=0, down=30)
    assert chance(Ratings(0, 30), Ratings(0, 0)) > CHANCE
    assert not turn_back(plugins, store)


def test_the_frozen_backbone_is_compared_with_as_well(home):
    plugins, store = home
    plugins.use(None)
    plugins.use("2")
    rate(store, "base", up=12, down=0)
    rate(store, "me:2", up=1, down=11)
    assert turn_back(plugins, store)
    assert plugins.current() is None


def test_nothing_before_is_nothing_to_go_back_to(tmp_path):
    with Store(tmp_path / "store.sqlite") as store:
        assert not turn_back(PluginStore(tmp_path), store)
