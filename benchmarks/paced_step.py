"""
One arm's steps, each taken when it is asked for, so that arms can take turns.

`python -m benchmarks.paced_step FILE` reads one JSON object from FILE: `kind`, a row of ACTS, and
`about`, what that row takes. It takes one step, which loads and arranges, and prints an empty
object; then one step for each line it reads, whose seconds and CPU seconds it prints. At the input's end it prints
`peak_memory`, the largest resident set of the process in bytes.
"""

import json
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

Act = Callable[[], object]


def main(path: str) -> int:
    """Takes steps until nobody asks for one any more."""
    asked = json.loads(Path(path).read_text(encoding="utf-8"))
    with ACTS[asked["kind"]](**asked["about"]) as act:
        act()
        _say({})
        for _ in sys.stdin:
            began, cpu = time.perf_counter(), time.process_time()
            act()
            taken = time.perf_counter() - began
            _say({"seconds": taken, "cpu_seconds": time.process_time() - cpu})
    # Imported late, as all of ours: each arm has in memory what it needs alone.
    from device_agent.runtime.memory_use import peak_memory

    _say({"peak_memory": peak_memory()})
    return 0


@contextmanager
def _torch_step(plan: dict[str, Any]) -> Iterator[Act]:
    """A training step by a plan of benchmarks.lora."""
    from benchmarks.lora import Plan, steps

    taken = steps(Plan(**plan))
    yield lambda: next(taken)


@contextmanager
def _kit_step(folder: str, tokens: int, threads: int) -> Iterator[Act]:
    """A training step of a kit on made-up features, read from the disk as in training."""
    from device_agent.hardware.steps import TimedStep, made_up
    from device_agent.runtime.head import Head

    kit = _kit(folder)
    with TemporaryDirectory() as features:
        rows = made_up(kit, Path(features), tokens)
        yield TimedStep(kit, Head(kit, threads), rows, threads, tokens).whole


@contextmanager
def _kit_forward(folder: str, tokens: int, threads: int) -> Iterator[Act]:
    """A fresh plugin's pass over a text, as when the device makes states itself."""
    import numpy as np

    from device_agent.runtime.plugin_kinds import plugin_of
    from protocol.messages import States

    kit = _kit(folder)
    manifest, rng = kit.manifest, np.random.default_rng(0)
    plugin = plugin_of(kit, kit.initial(), threads)
    taps = rng.standard_normal((len(manifest.taps), tokens, manifest.hidden), np.float32)
    yield lambda: plugin.state(States(0, manifest.taps, taps, taps[-1], None))


def _kit(folder: str) -> Any:
    from device_agent.runtime.kits import Kit
    from protocol.kit import KitManifest

    manifest = json.loads(Path(folder, "manifest.json").read_bytes())
    return Kit(KitManifest.from_json(manifest), Path(folder))


ACTS: Mapping[str, Any] = {"torch": _torch_step, "kit": _kit_step, "forward": _kit_forward}
"""Context managers that give a step to be taken."""


def _say(found: dict[str, Any]) -> None:
    print(json.dumps(found), flush=True)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
