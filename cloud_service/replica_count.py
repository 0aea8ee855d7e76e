"""How many replicas there should be. Ray Serve's controller loads this, so it imports nothing heavy."""

import math
from typing import Any


class BySessions:
    """As many replicas as the open sessions fill."""

    def __init__(self, target: float) -> None:
        self._target = target

    def __call__(self, context: Any) -> tuple[int, dict[str, Any]]:
        """Return the wanted number within the bounds, and the state, which is none."""
        reported = (context.aggregated_metrics or {}).get("sessions", {})
        wanted = math.ceil(sum(reported.values()) / self._target)
        lowest = context.capacity_adjusted_min_replicas
        return min(max(wanted, lowest), context.capacity_adjusted_max_replicas), {}
