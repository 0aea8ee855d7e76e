"""
What an update left out, kept for the next one: error feedback.

A device that sends only the largest numbers of an update adds the others to its next one (Stich,
Cordonnier and Jaggi, "Sparsified SGD with Memory", 2018, algorithm 1).
"""

from pathlib import Path

import numpy as np

from device_agent.federated.carried import Carried, Named
from device_agent.federated.shared import FOLDER, RESIDUAL
from protocol.federation import Round, Shapes, Sparse, sparse, whole


def sparse_update(home: Path, asked: Round, added: Named, shapes: Shapes) -> Sparse:
    """The share of an update that the round asks for; the rest is kept for the next round.

    Raises:
        MalformedMessage: A number is not finite; nothing is kept of it.
    """
    about = {"kit": asked.kit, "rounds": asked.rounds}
    rest = Carried(home / FOLDER / RESIDUAL, about, shapes)
    nothing = {name: np.zeros(shape, np.float32) for name, shape in shapes.items()}
    before = rest.before(asked.number) or nothing
    owed = {name: np.asarray(added[name] + before[name], np.float32) for name in shapes}
    sent = sparse(owed, asked.kept)
    arrived = whole(sent, shapes, asked.kept)
    left = {name: np.asarray(owed[name] - arrived[name]) for name in shapes}
    rest.keep(asked.number, before, left)
    return sent
