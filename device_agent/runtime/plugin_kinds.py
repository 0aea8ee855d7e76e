"""What runs a kit's trained weights: a network beside the backbone, or the backbone's last blocks."""

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from device_agent.runtime.kits import Kit
from device_agent.runtime.side_plugin import SidePlugin
from device_agent.runtime.tail_plugin import TailPlugin

Plugin = SidePlugin | TailPlugin


def plugin_of(kit: Kit, weights: Mapping[str, NDArray[np.float32]], threads: int) -> Plugin:
    """The weights at work.

    Raises:
        DamagedKit: The weights are not the kit's.
    """
    kind = TailPlugin if kit.manifest.sequential else SidePlugin
    return kind(kit, weights, threads)
