"""Whether a new version pleases less than what spoke before it: then that speaks again."""

from math import comb
from typing import NamedTuple

from device_agent.data.store import Store
from device_agent.plugins import NothingBefore, PluginStore, PluginVersion

CHANCE = 0.01
"""How likely chance alone may be. It is asked after every rating, so the usual 0.05 would be no measure."""


class Ratings(NamedTuple):
    """Thumbs that the answers of one version got."""

    up: int
    down: int


def chance(now: Ratings, before: Ratings) -> float:
    """How likely at least so many thumbs down would be now if nothing had changed.

    Fisher's exact test, one-sided: all thumbs given, the down ones fall on now's at random.
    """
    total, down, ours = sum(now) + sum(before), now.down + before.down, sum(now)
    ways = sum(
        comb(down, count) * comb(total - down, ours - count)
        for count in range(now.down, min(down, ours) + 1)
    )
    return ways / comb(total, ours)


def name_of(version: PluginVersion | None) -> str:
    """Under which feedback on a version is kept: ``me:3``, or ``base`` for the frozen backbone."""
    return "base" if version is None else f"me:{version.version}"


def turn_back(plugins: PluginStore, store: Store) -> bool:
    """Let what spoke before speak again if the ratings have turned; gives whether they have.

    Without enough ratings of both nothing happens: feedback on the one says nothing of the other.
    """
    try:
        now, before = plugins.current(), plugins.before()
    except NothingBefore:
        return False
    if now is None or (before is not None and before.fingerprint != now.fingerprint):
        return False
    ours, theirs = (Ratings(*store.ratings(name_of(one))) for one in (now, before))
    if chance(ours, theirs) >= CHANCE:
        return False
    plugins.rollback(
        f"version {now.version} got {ours.down} thumbs down of {sum(ours)},"
        f" {name_of(before)} before it {theirs.down} of {sum(theirs)}"
    )
    return True
