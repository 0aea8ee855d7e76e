"""The shared part of a plugin: weights that many devices made together, as this one received them last.

Training begins with them, so that what it adds is the person's own. Nothing that it adds is written here,
and what is sent in a round is made from these weights alone.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from device_agent.atomic import write_whole
from device_agent.errors import DeviceError
from device_agent.federated.carried import Carried
from protocol.kit import KitManifest

FOLDER = "federated"
WEIGHTS = "shared.safetensors"
CHECKPOINT = "round.safetensors"
"""Of a round that was killed."""
RESIDUAL = "residual.safetensors"
"""What the last update left out."""
OWN = "own.safetensors"
"""All weights as trained here, of a kit that shares only some."""


class DamagedShared(DeviceError):
    """The shared weights cannot be read."""

    hint = "`sideplug federate leave` forgets them; join again to receive them anew."

    def __init__(self, path: Path, reason: str) -> None:
        super().__init__(f"{path} cannot be used: {reason}")


@dataclass(frozen=True, slots=True)
class Shared:
    """What came last."""

    kit: str
    """Id of the kit that the weights belong to."""
    round: int
    rounds: int
    weights: Mapping[str, NDArray[np.float32]]
    """By name, in the kit's shapes: those that the kit shares."""

    @property
    def digest(self) -> str:
        """Of the weights."""
        digest = hashlib.sha256()
        for name, array in sorted(self.weights.items()):
            digest.update(name.encode() + b"\0" + np.ascontiguousarray(array).tobytes())
        return digest.hexdigest()


def keep(home: Path, shared: Shared) -> None:
    """Replace what was there."""
    from safetensors.numpy import save

    about = json.dumps({"kit": shared.kit, "round": shared.round, "rounds": shared.rounds})
    write_whole(_path(home), save(dict(shared.weights), metadata={"sideplug": about}))


def find(home: Path) -> Shared | None:
    """What came last; None when nothing has.

    Raises:
        DamagedShared: It is not what was written.
    """
    from safetensors import SafetensorError, safe_open

    path = _path(home)
    if not path.is_file():
        return None
    try:
        with safe_open(path, framework="np") as file:
            about = json.loads((file.metadata() or {})["sideplug"])
            weights = {str(name): file.get_tensor(name) for name in file.keys()}
        return Shared(str(about["kit"]), int(about["round"]), int(about["rounds"]), weights)
    except (OSError, SafetensorError, ValueError, KeyError, TypeError) as error:
        raise DamagedShared(path, f"{type(error).__name__}: {error}") from error


def of_kit(home: Path, manifest: KitManifest) -> Shared | None:
    """What training with a kit begins with, all of its weights; None when there is nothing of this kit.

    Of a kit that shares only some weights the others are this device's own.
    """
    found = find(home)
    if found is None or found.kit != manifest.id:
        return None
    if not manifest.shared:
        return found
    own = own_weights(home, manifest).latest()
    return None if own is None else replace(found, weights={**own, **found.weights})


def own_weights(home: Path, manifest: KitManifest) -> Carried:
    """What this device carries from round to round of a kit that shares only some weights."""
    shapes = {weight.name: tuple(weight.shape) for weight in manifest.weights}
    return Carried(home / FOLDER / OWN, {"kit": manifest.id}, shapes)


def forget(home: Path) -> bool:
    """Delete the shared weights, and what is left of rounds; whether there were any weights."""
    there = _path(home).is_file()
    _path(home).unlink(missing_ok=True)
    forget_own(home)
    return there


def forget_own(home: Path) -> None:
    """Delete what is made of this person's text alone, and was not sent."""
    for name in (CHECKPOINT, RESIDUAL, OWN):
        (home / FOLDER / name).unlink(missing_ok=True)


def _path(home: Path) -> Path:
    return home / FOLDER / WEIGHTS
