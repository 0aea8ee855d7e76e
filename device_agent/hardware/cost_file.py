"""The costs of training that were measured on this device, in one file of the home."""

import json
from pathlib import Path

from device_agent.atomic import write_whole
from device_agent.hardware.ceilings import processor
from device_agent.hardware.training_cost import TrainingCost, measured_apart
from device_agent.runtime.kits import Kit
from protocol.errors import Fault
from protocol.fields import Fields

FILE = "training-costs.json"

MOST = 4096
"""Costs that are read from a file."""


class CostFile:
    """Measures what it does not know yet. Those of another processor or runtime are forgotten.

    Args:
        home: The folder.
    """

    def __init__(self, home: Path) -> None:
        self._path = home / FILE
        self._machine = _machine()
        self._costs = _read(self._path, self._machine)

    def knows(self, kit: Kit, tokens: int, threads: int) -> bool:
        """Whether this has been measured."""
        return _key(kit, tokens, threads) in self._costs

    def cost(self, kit: Kit, tokens: int, threads: int) -> TrainingCost:
        """What training by a kit with so many tokens a step, on so many threads, costs.

        Raises:
            NotMeasured: It cannot be trained with.
        """
        key = _key(kit, tokens, threads)
        if key not in self._costs:
            self._costs[key] = measured_apart(kit, tokens, threads)
            costs = {name: cost.to_json() for name, cost in self._costs.items()}
            whole = {"machine": self._machine, "costs": costs}
            write_whole(self._path, json.dumps(whole).encode())
        return self._costs[key]


def _key(kit: Kit, tokens: int, threads: int) -> str:
    return f"{kit.manifest.id}, {tokens} tokens, {threads} threads"


def _machine() -> str:
    """What costs depend on besides kit, tokens and threads."""
    # Imported late: commands that compute nothing do not pay for it.
    import onnxruntime

    return f"{processor()}, onnxruntime {onnxruntime.__version__}"


def _read(path: Path, machine: str) -> dict[str, TrainingCost]:
    """All that was measured on such a machine; nothing where the file is not as it was written."""
    try:
        found = Fields(json.loads(path.read_bytes()), "costs")
        if found.text("machine") != machine:
            return {}
        costs = found.mapping("costs", MOST)
        return {name: TrainingCost.from_json(cost) for name, cost in costs.items()}
    except (OSError, ValueError, Fault):
        return {}
