"""Moving to another backbone, against clouds on real sockets."""

import json
from dataclasses import replace

import pytest

from device_agent import cli
from device_agent.cloud.link import STORE, Link
from device_agent.data.examples import Example
from device_agent.data.store import Store
from device_agent.generation.speaker import Speaker
from device_agent.plugins import PluginStore
from device_agent.runtime.kits import WrongBackbone
from device_agent.training.learning import learn
from device_agent.training.migration import AlreadyThere, BackboneElsewhere, migrate
from device_agent.training.watcher import Watcher
from tests.device_agent.teaching import ALPHABET, TeachingCloud, teaching_home


@pytest.fixture
def world(tmp_path):
    """A home that has learned with a prefix, its cloud, and another cloud with another backbone."""
    other = TeachingCloud(tmp_path / "other", positions=96)
    other.become("newer", "e" * 64)
    with teaching_home(tmp_path, positions=96) as (cloud, settings), other.serving():
        settings = replace(settings, prefix=48, memory="on")
        with Store(settings.home / STORE) as store:
            store.add_examples([Example(text=ALPHABET)], "test")
        with Link(settings) as link:
            assert learn(link, {"threads": 1}, Watcher()).promoted
        yield cloud, other, settings


def move(settings, to="newer"):
    with Link(settings, sleep=lambda _: None) as link:
        return migrate(link, to, {"threads": 1}, Watcher())


def test_all_is_made_again_for_the_other_backbone_and_speaks(world):
    _, other, settings = world
    there = replace(settings, cloud=other.url)
    moved = move(there)
    assert moved.before.version == "1"
    current = PluginStore(settings.home).current()
    assert (current.version, current.fingerprint) == ("2", "e" * 64)
    assert current.kit_id == "for-newer"
    assert current.prefix.tolist() in other.sessions.read
    assert len(current.memory().tokens) > 400
    assert moved.lesson.before is None, "figures of two backbones cannot be compared"
    with Link(there) as link, Speaker(link, current):
        pass


def test_the_old_version_stays_for_the_old_cloud(world):
    cloud, other, settings = world
    move(replace(settings, cloud=other.url))
    plugins = PluginStore(settings.home)
    plugins.use("1")
    with Link(settings) as link, Speaker(link, plugins.current()):
        pass
    with Link(replace(settings, cloud=other.url)) as link, pytest.raises(WrongBackbone):
        Speaker(link, plugins.current())
    assert cloud.facts.fingerprint == "f" * 64


def test_what_is_not_better_than_the_new_backbone_alone_leaves_the_old_one_speaking(world):
    _, other, settings = world
    there = replace(settings, cloud=other.url, prefix=0, memory="off")
    with Link(there, sleep=lambda _: None) as link:
        moved = migrate(link, "newer", {"threads": 1, "rate": 1e-9, "epochs": 1}, Watcher())
    assert not moved.lesson.promoted
    assert PluginStore(settings.home).current().version == "1"


def test_a_cloud_with_another_backbone_than_the_named_one_is_refused(world):
    _, _, settings = world
    with pytest.raises(BackboneElsewhere, match="hosts toy, not newer"):
        move(settings)
    assert len(PluginStore(settings.home).versions()) == 1


def test_there_is_nothing_to_move_to_the_same_backbone(world):
    _, _, settings = world
    with pytest.raises(AlreadyThere):
        move(settings, to="toy")


def test_the_command_says_what_changed(world, capsys, monkeypatch):
    _, other, settings = world
    for name in ("home", "recipe", "threads", "prefix"):
        monkeypatch.setenv(f"SIDEPLUG_{name.upper()}", str(getattr(settings, name)))
    monkeypatch.setenv("SIDEPLUG_CLOUD", settings.cloud)
    assert cli.main(["migrate", "--to", "newer"]) == 1
    assert "--cloud" in capsys.readouterr().err
    assert cli.main(["migrate", "--to", "newer", "--cloud", other.url, "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["to"], told["promoted"]) == ("newer", True)
    assert told["from"] == {"version": "1", "backbone": "toy"}
