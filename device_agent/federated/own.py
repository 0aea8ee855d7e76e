"""
The weights that a kit does not share: every device keeps its own, and what is shared moves them.

Some recipes share a few weights alone, such as thresholds. In each round the kit's graph ``received.onnx``
lets the device's own weights follow what the others have made of the shared ones, all are trained, and only
what training added to the shared ones is sent.
"""

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from device_agent.federated.carried import Carried, Named
from device_agent.federated.shared import own_weights
from device_agent.runtime.kits import Kit
from device_agent.runtime.side_plugin import onnx_session
from protocol.federation import Floats


class Own:
    """All weights of a kit that shares some, as one device has them."""

    def __init__(self, home: Path, kit: Kit) -> None:
        self._kit = kit
        self._carried: Carried = own_weights(home, kit.manifest)

    def begun(self, number: int, came: Named) -> dict[str, Floats]:
        """What round ``number`` begins with, where the shared weights that came are ``came``."""
        before = self._before(number)
        moved = {name: np.asarray(one) for name, one in {**before, **came}.items()}
        session = onnx_session(self._kit.path("received.onnx"), 1)
        feeds = {**moved, **{f"before.{name}": before[name] for name in came}}
        taken = {port.name: feeds[port.name] for port in session.get_inputs()}
        names = [port.name for port in session.get_outputs()]
        for name, array in zip(names, session.run(names, taken), strict=True):
            moved[name.removeprefix("next.")] = array
        return moved

    def keep(self, number: int, trained: Named, came: Named) -> None:
        """Keep what the round has made of the own weights, and which shared ones it was given."""
        self._carried.keep(number, self._before(number), {**trained, **came})

    def _before(self, number: int) -> Mapping[str, Floats]:
        return self._carried.before(number) or self._kit.initial()
