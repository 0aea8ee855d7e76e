"""The memory of the plugin that speaks, kept in step with what the person gives."""

from collections.abc import Sequence

from device_agent.cloud.features import fetch
from device_agent.cloud.link import Link
from device_agent.data.prefix import behind
from device_agent.data.store import StoredExample
from device_agent.errors import DeviceError
from device_agent.memory.file import MemoryFile, remember
from device_agent.memory.making import parts_of
from device_agent.plugins import PluginStore, PluginVersion
from device_agent.training.corpus import cache_of, digests, matching_kit, tokens_of
from device_agent.training.lock import training_lock
from device_agent.training.watcher import Watcher


class NoMemory(DeviceError):
    """The plugin that speaks has no memory."""

    hint = "`sideplug train` makes one."

    def __init__(self) -> None:
        super().__init__("there is no memory yet")


def open_memory(version: PluginVersion | None) -> tuple[PluginVersion, MemoryFile]:
    """The version and its memory.

    Raises:
        NoMemory: It has none.
    """
    memory = None if version is None else version.memory()
    if version is None or memory is None:
        raise NoMemory()
    return version, memory


def catch_up(link: Link, watcher: Watcher) -> int:
    """Remember the examples that came since; gives how many rows.

    Nothing is trained: an example is read once by the cloud, behind the personal prefix, and kept.

    Raises:
        NoMemory: The plugin that speaks has none.
        AlreadyTraining: Another process trains here.
        CloudUnreachable, Fault: Something has to be fetched and cannot be.
    """
    with training_lock(link.settings.home):
        version, memory = open_memory(PluginStore(link.settings.home).current())
        fresh = [one for one in link.store.examples() if one.sha256 not in memory.examples]
        version.require(link.facts().fingerprint)
        kit = matching_kit(link, version.kit_id, watcher)
        windows, owners = [], []
        given, whole = [stored.example for stored in fresh], kit.manifest.sequential
        cuts = tokens_of(link, given, whole=whole) if fresh else []
        held_out = version.card.get("held_out")
        for stored, cut in zip(fresh, cuts, strict=True):
            for window, name in zip(cut, digests(cut), strict=True):
                # What the plugin is judged by is never learned, by no part of it.
                if not (isinstance(held_out, list) and name in held_out):
                    windows.append(behind(window, version.prefix))
                    owners.append(stored.sha256)
        if not windows:
            return 0
        cache = cache_of(link, kit, version.encoding)
        fetch(lambda: link.cloud, cache, windows, watcher.fetching)
        parts = parts_of(cache, memory.basis, windows, owners)
        del memory
        remember(version.memory_path, version.memory_source, parts)
        return sum(len(part.tokens) for part in parts.values())


def known_rows(memory: MemoryFile, examples: Sequence[StoredExample]) -> dict[int, int]:
    """Rows that the memory holds of each example, by its number."""
    return {stored.id: memory.examples.get(stored.sha256, 0) for stored in examples}
