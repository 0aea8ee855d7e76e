"""To another backbone: weights, prefix and memory belong to one, what the person gave belongs to none."""

from typing import NamedTuple

from device_agent.cloud.link import Link
from device_agent.errors import DeviceError
from device_agent.plugins import PluginStore, PluginVersion
from device_agent.training.learning import Lesson, learn
from device_agent.training.watcher import Watcher


class BackboneElsewhere(DeviceError):
    """The cloud hosts another backbone than the one to move to."""

    hint = "Name a cloud that hosts it: --cloud ADDRESS."

    def __init__(self, wanted: str, found: str) -> None:
        super().__init__(f"the cloud hosts {found}, not {wanted}")


class AlreadyThere(DeviceError):
    """The plugin belongs to that backbone already."""

    hint = "`sideplug train` learns what is new."

    def __init__(self, version: str, name: str) -> None:
        super().__init__(f"version {version} is made for {name} already")


class Migration(NamedTuple):
    """What a move gave."""

    before: PluginVersion | None
    """What spoke until now; it stays on the disk."""
    lesson: Lesson
    """The new one speaks when it is better than the new backbone by itself: figures of two backbones
    cannot be compared, as their tokens differ."""


def migrate(link: Link, to: str, chosen: dict[str, object], watcher: Watcher) -> Migration:
    """Train anew on everything in the store, for the backbone that the cloud hosts now.

    Until the new plugin has been found to be better than its backbone alone, the old one stays.

    Args:
        link: The cloud with the new backbone, and the home folder.
        to: Name of the new backbone, as the cloud tells it.
        chosen: Training options by name.
        watcher: Sees what happens.

    Raises:
        BackboneElsewhere: The cloud hosts another one.
        AlreadyThere: There is nothing to move.
        NothingToLearn, TooLittleText, AlreadyTraining, CloudUnreachable, Fault: As ``learn`` does.
    """
    facts = link.facts()
    if facts.name != to:
        raise BackboneElsewhere(to, facts.name)
    before = PluginStore(link.settings.home).current()
    if before is not None and before.fingerprint == facts.fingerprint:
        raise AlreadyThere(before.version, to)
    return Migration(before, learn(link, chosen, watcher))
