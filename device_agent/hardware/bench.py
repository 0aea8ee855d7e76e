"""The hardware bench as a whole: ceilings, every arm, rounds."""

import json
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from device_agent.errors import DeviceError
from device_agent.hardware.ceilings import ceilings, processor
from device_agent.hardware.energy import Gauge, find_gauge
from device_agent.hardware.granularity import RoundCost, round_cost, weights_of
from device_agent.hardware.report import FORMAT, derived
from device_agent.hardware.steps import StepCost, measure
from device_agent.runtime.arithmetic import one_thread
from device_agent.runtime.kits import Kit

TORCH = "adapters.torch_steps"
"""The program that measures fine-tuning in torch, which nothing of the device may import."""

HALF, SINGLE = 2, 4
"""Bytes of a weight that travels: ours in a round, and those of fine-tuning as it was published."""


class TorchFailed(DeviceError):
    """Fine-tuning in torch could not be measured."""

    hint = "See above for why; without --torch the kits alone are measured."

    def __init__(self, reason: str) -> None:
        super().__init__(f"fine-tuning in torch could not be measured: {reason}")


@dataclass(frozen=True, slots=True)
class Bench:
    """What is measured, and how."""

    threads: int
    sizes: Sequence[int]
    """Tokens of a step."""
    repeats: int
    round_tokens: int
    """That a device learns from in a round."""
    torch: Path | None = None
    """A backbone in Hugging Face layout, to be fine-tuned beside; None for none."""


def run(bench: Bench, kits: Sequence[Kit], say: Callable[[str], None]) -> dict[str, Any]:
    """Measure everything; the document that ``report`` shows.

    Raises:
        TorchFailed: The arms in torch were asked for, are installed, and failed.
    """
    gauge = find_gauge()
    say("measuring the machine")
    most = ceilings(bench.threads)
    rows: list[tuple[StepCost, RoundCost]] = []
    left_out: list[str] = []
    for kit in kits:
        say(f"measuring the steps of {kit.manifest.recipe}")
        rows.extend(_kit(bench, kit, gauge))
    missing = [name for name in ("torch", "peft") if find_spec(name) is None]
    if bench.torch is not None and missing:
        left_out.append(
            f"fine-tuning in torch: {' and '.join(missing)} (extra `bench`) not installed"
        )
    elif bench.torch is not None:
        say("measuring fine-tuning in torch")
        rows.extend(_torch(bench, bench.torch))
    return {
        "format": FORMAT,
        "machine": {"cpu": processor(), "system": sys.platform},
        "threads": bench.threads,
        "peak_flops": most.flops,
        "bandwidth": most.bandwidth,
        "energy": gauge and gauge.name,
        "round_tokens": bench.round_tokens,
        "steps": [
            {
                "step": cost.to_json(),
                "derived": derived(cost.to_json(), most.flops),
                "round": whole.to_json(),
            }
            for cost, whole in rows
        ],
        "left_out": left_out,
    }


def _kit(bench: Bench, kit: Kit, gauge: Gauge | None) -> Iterator[tuple[StepCost, RoundCost]]:
    with tempfile.TemporaryDirectory() as folder, one_thread():
        costs = measure(kit, bench.threads, bench.sizes, bench.repeats, Path(folder), gauge)
    for cost in costs:
        yield cost, round_cost(cost, bench.round_tokens, weights_of(kit.manifest), HALF)


def _torch(bench: Bench, folder: Path) -> Iterator[tuple[StepCost, RoundCost]]:
    """The same from a process of its own, whose memory is its own too."""
    command = [sys.executable, "-m", TORCH, str(folder), "--threads", str(bench.threads)]
    command += ["--repeats", str(bench.repeats), "--tokens", *map(str, bench.sizes)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
    try:
        if done.returncode != 0:
            raise ValueError(f"it ended with code {done.returncode}")
        for told in json.loads(done.stdout.strip().splitlines()[-1]):
            weights = int(told.pop("weights"))
            cost = StepCost(**told)
            yield cost, round_cost(cost, bench.round_tokens, weights, SINGLE)
    except (ValueError, IndexError, KeyError, TypeError) as error:
        raise TorchFailed(str(error)) from error
