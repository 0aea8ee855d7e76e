"""A federation on disk: where it is, and what each round brought. It goes on from here after any end."""

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from cloud_service.errors import CloudError
from cloud_service.federated.plan import Plan

Named = dict[str, NDArray[np.float32]]

STATE, LOG = "state.safetensors", "rounds.jsonl"
FREE = ("rounds", "devices", "least", "round_seconds", "most_epsilon")
"""What may be chosen anew when a federation goes on."""


class OtherFederation(CloudError):
    """What is on disk was begun with other settings."""


class DamagedFederation(CloudError):
    """What is on disk cannot be read."""


@dataclass(slots=True)
class State:
    """Where a federation is."""

    weights: Named
    round: int = 0
    """Rounds that are over."""
    moments: Named = field(default_factory=dict)
    accounting: dict[str, object] | None = None


@dataclass(frozen=True, slots=True)
class Told:
    """One line of the log."""

    round: int
    seconds: float
    asked: int
    """Devices."""
    answered: int
    """Whose updates were taken."""
    refused: list[dict[str, object]]
    missing: int
    """That did not answer in time, or went away."""
    void: bool
    """Whether the weights stayed as they were."""
    bytes_up: int
    """From devices to the server, all bodies."""
    bytes_down: int
    figures: dict[str, float]
    """Means over the devices, weighted as their updates."""
    epsilon: float | None


class Record:
    """One federation's folder.

    Args:
        folder: Made when missing.
        kit: Id of the kit whose weights are shared.
        plan: How it runs.
    """

    def __init__(self, folder: Path, kit: str, plan: Plan) -> None:
        self._folder = folder
        fixed = {name: value for name, value in asdict(plan).items() if name not in FREE}
        if not plan.kept:
            # Those that were begun before there was a choice go on.
            fixed.pop("kept")
        if not plan.private:
            # Noise is accounted for by how many devices there are.
            fixed.pop("delta")
        else:
            fixed["devices"] = plan.devices
        self._identity = hashlib.sha256(
            json.dumps({"kit": kit, **fixed}, sort_keys=True).encode()
        ).hexdigest()

    def load(self) -> State | None:
        """Where it was; None when it has not begun.

        Raises:
            OtherFederation: It was begun with other settings.
            DamagedFederation: The file is not what was written.
        """
        path = self._folder / STATE
        if not path.is_file():
            return None
        try:
            with safe_open(path, framework="np") as file:
                about = json.loads(file.metadata()["sideplug"])
                arrays: Named = {name: file.get_tensor(name) for name in file.keys()}
            round_, identity = int(about["round"]), str(about["identity"])
        except (OSError, SafetensorError, ValueError, KeyError, TypeError) as error:
            raise DamagedFederation(f"{path} cannot be read: {error}", _ANEW) from error
        if identity != self._identity:
            raise OtherFederation(f"{path} was begun with another kit or plan", _ANEW)
        return State(
            _under("weights.", arrays), round_, _under("moments.", arrays), about["accounting"]
        )

    def save(self, state: State) -> None:
        """Replace what was there, whole or not at all."""
        arrays = {f"weights.{name}": array for name, array in state.weights.items()}
        arrays |= {f"moments.{name}": array for name, array in state.moments.items()}
        about = {
            "round": state.round,
            "identity": self._identity,
            "accounting": state.accounting,
        }
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        draft = self._folder / f"{STATE}.part"
        with draft.open("wb") as file:
            file.write(save(arrays, metadata={"sideplug": json.dumps(about)}))
            file.flush()
            os.fsync(file.fileno())
        os.replace(draft, self._folder / STATE)

    def log(self, told: Told) -> None:
        """Add a round's line."""
        with (self._folder / LOG).open("a", encoding="utf-8") as file:
            file.write(json.dumps(asdict(told)) + "\n")


_ANEW = "Choose another --name, or delete that folder to begin anew."


def _under(prefix: str, arrays: Mapping[str, Any]) -> Named:
    return {n.removeprefix(prefix): a for n, a in arrays.items() if n.startswith(prefix)}
