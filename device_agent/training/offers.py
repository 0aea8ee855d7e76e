"""The recipes whose kits a device can have, measured on it, and the one to train by."""

from collections.abc import Mapping, Sequence

from device_agent.cloud.client import CloudUnreachable
from device_agent.cloud.link import Link
from device_agent.data.prefix import NO_PREFIX
from device_agent.data.store import StoredExample
from device_agent.hardware.cost_file import CostFile
from device_agent.hardware.training_cost import NotMeasured, TrainingCost
from device_agent.runtime.kits import Kit, KitStore
from device_agent.training.bounds import Bounds
from device_agent.training.choosing import EXACT, Candidate, Choice, NothingFits, choose
from device_agent.training.corpus import matching_kit, needed
from device_agent.training.rehearsal import Rehearsal, rehearsal
from device_agent.training.watcher import Watcher
from protocol.kit import KitManifest

LEAST_TOKENS = 64
"""Steps are not made smaller than that to save memory: their gradients would be noise."""


def choose_here(
    link: Link,
    examples: Sequence[StoredExample],
    bounds: Bounds,
    chosen: Mapping[str, object],
    recipe: str | None,
    threads: int,
    watcher: Watcher,
    costs: CostFile,
) -> Choice:
    """Measure what is on offer, as far as it is not known yet, and choose.

    Args:
        link: The cloud and the home folder.
        examples: All that is to be learned.
        bounds: Of memory and time.
        chosen: Training options that are settled: ``batch_tokens``, ``epochs``; None for a kit's own,
            or fewer tokens where these take too much memory.
        recipe: The only one to be considered; None for all on offer.
        threads: The most that there may be; small steps can be faster on fewer.
        watcher: Told what is measured.
        costs: What is known.

    Raises:
        NothingFits: Nothing on offer takes so little memory.
        NotMeasured: Nothing on offer can be trained with.
        TooLittleText: There are too few examples.
        CloudUnreachable, Fault: Something has to be fetched and cannot be.
    """
    candidates, failures = [], []
    rows = _Rows(link, examples, rehearsal(link))
    for name in [recipe] if recipe else _offered(link):
        # Its files are in memory in training: no need to fetch what is too large by itself.
        if bounds.memory is not None and _file_bytes(_manifest(link, name)) > bounds.memory:
            continue
        kit = matching_kit(link, name, watcher)
        try:
            candidates.append(_candidate(kit, rows, bounds, chosen, threads, watcher, costs))
        except NotMeasured as error:
            watcher.note(f"left out: {error}")
            failures.append(error)
    if candidates:
        return choose(candidates, bounds)
    if failures:
        raise failures[0]
    raise NothingFits(bounds.memory or 0)


def _candidate(
    kit: Kit,
    rows: "_Rows",
    bounds: Bounds,
    chosen: Mapping[str, object],
    threads: int,
    watcher: Watcher,
    costs: CostFile,
) -> Candidate:
    """A kit with as many tokens a step as there is memory for, on the threads that are fastest so."""
    schedule, settled = kit.manifest.schedule, chosen.get("batch_tokens")
    sizes = [int(str(settled))] if settled else _sizes(schedule.batch_tokens)

    def cost(tokens: int, threads: int) -> TrainingCost:
        if not costs.knows(kit, tokens, threads):
            told = f"{tokens} tokens a step, threads: {threads}"
            watcher.note(f"measuring {kit.manifest.recipe}, {told}")
        return costs.cost(kit, tokens, threads)

    def fits(found: TrainingCost) -> bool:
        return bounds.memory is None or found.peak <= bounds.memory

    def best(tokens: int) -> int:
        found = {count: cost(tokens, count) for count in _counts(threads)}
        # The fastest that fits; where none does, the smallest.
        return min(
            found,
            key=lambda count: (
                (False, found[count].step) if fits(found[count]) else (True, found[count].peak)
            ),
        )

    fitting = (size for size in sizes if fits(cost(size, best(size))))
    tokens = next(fitting, sizes[-1])
    count = best(tokens)
    return Candidate(
        kit.manifest.recipe,
        str(kit.manifest.recipe_json.get("rule", EXACT[0])),
        tokens,
        count,
        -(-rows.count(kit) // tokens),
        int(str(chosen.get("epochs") or schedule.epochs)),
        cost(tokens, count),
    )


def _sizes(most: int) -> list[int]:
    """Tokens a step: as the kit has it, then half and half again."""
    sizes = [most]
    while sizes[-1] // 2 >= LEAST_TOKENS:
        sizes.append(sizes[-1] // 2)
    return sizes


def _counts(most: int) -> list[int]:
    """Threads: one, then twice and twice again, and the most."""
    counts = [2**power for power in range(most.bit_length()) if 2**power < most]
    return [*counts, most]


class _Rows:
    """How many rows an epoch reads."""

    def __init__(self, link: Link, examples: Sequence[StoredExample], rehearsed: Rehearsal) -> None:
        self._link, self._examples, self._rehearsed = link, examples, rehearsed
        self._needed: dict[bool, list[tuple[int, bool]]] = {}

    def count(self, kit: Kit) -> int:
        """By a kit's schedule, which may read answers more often."""
        whole, answers = kit.manifest.sequential, kit.manifest.schedule.answers
        if whole not in self._needed:
            found = needed(self._link, self._examples, NO_PREFIX, self._rehearsed, whole=whole)
            texts = [(len(it.rows), it.document) for it in found.prefixed.windows]
            texts += [(len(it.rows), True) for it in found.known.practised]
            self._needed[whole] = texts
        return sum(rows if once else rows * answers for rows, once in self._needed[whole])


def _offered(link: Link) -> list[str]:
    """Recipes whose kits the cloud has ready; those that are here where it is away."""
    try:
        return link.cloud.kits()
    except CloudUnreachable:
        return KitStore(link.settings.home).recipes()


def _manifest(link: Link, recipe: str) -> KitManifest:
    known = KitStore(link.settings.home).find(recipe)
    return known.manifest if known else link.cloud.kit(recipe)


def _file_bytes(manifest: KitManifest) -> int:
    return sum(file.size for file in manifest.files.values())
