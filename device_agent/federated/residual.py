"""
What an update left out, kept for the next one: error feedback.

A device that sends only the largest numbers of an update adds the others to its next one (Stich,
Cordonnier and Jaggi, "Sparsified SGD with Memory", 2018, algorithm 1). The rest of a round belongs to
that round: a round that is asked for again, since it was killed or its answer was lost, begins with
what the round before it had left, so that nothing is ever added twice.
"""

import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from device_agent.atomic import write_whole
from device_agent.federated.shared import FOLDER, RESIDUAL
from protocol.federation import Floats, Round, Shapes, Sparse, sparse, whole

Named = Mapping[str, Floats]


def sparse_update(home: Path, asked: Round, added: Named, shapes: Shapes) -> Sparse:
    """The share of an update that the round asks for; the rest is kept for the next round.

    Raises:
        MalformedMessage: A number is not finite; nothing is kept of it.
    """
    before = _before(home, asked, shapes)
    owed = {name: np.asarray(added[name] + before[name], np.float32) for name in shapes}
    sent = sparse(owed, asked.kept)
    arrived = whole(sent, shapes, asked.kept)
    left = {name: np.asarray(owed[name] - arrived[name]) for name in shapes}
    _keep(home, asked, before, left)
    return sent


def _before(home: Path, asked: Round, shapes: Shapes) -> Named:
    """What the round before ``asked`` has left, zeros where there was none."""
    nothing = {name: np.zeros(shape, np.float32) for name, shape in shapes.items()}
    about, found = _read(home)
    if about.get("kit") != asked.kit or about.get("rounds") != asked.rounds:
        return nothing
    last = about.get("round")
    if not isinstance(last, int) or last > asked.number:
        return nothing
    part = "before" if last == asked.number else "after"
    kept = {name: found.get(f"{part}.{name}") for name in shapes}
    fits = all(
        one is not None and one.shape == shapes[name] and bool(np.isfinite(one).all())
        for name, one in kept.items()
    )
    return {name: one for name, one in kept.items() if one is not None} if fits else nothing


def _keep(home: Path, asked: Round, before: Named, after: Named) -> None:
    from safetensors.numpy import save

    about = {"kit": asked.kit, "round": asked.number, "rounds": asked.rounds}
    parts = {"before": before, "after": after}
    arrays = {f"{part}.{name}": one for part, held in parts.items() for name, one in held.items()}
    write_whole(_path(home), save(arrays, metadata={"sideplug": json.dumps(about)}))


def _read(home: Path) -> tuple[dict[str, object], Mapping[str, Floats]]:
    """What is there; nothing when it cannot be read, which costs no more than a rest."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(_path(home), framework="np") as file:
            about = json.loads((file.metadata() or {})["sideplug"])
            return about, {str(name): file.get_tensor(name) for name in file.keys()}
    except (OSError, SafetensorError, ValueError, KeyError):
        return {}, {}


def _path(home: Path) -> Path:
    return home / FOLDER / RESIDUAL
