"""
What a device carries from one round to the next, and never sends.

It belongs to a round: a round that is asked for again, since it was killed or its answer was lost, begins
with what the round before it had left, so that nothing counts twice.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from device_agent.atomic import write_whole
from protocol.federation import Floats, Shapes

Named = Mapping[str, Floats]


@dataclass(frozen=True, slots=True)
class Carried:
    """Arrays in one file, as two rounds have left them."""

    path: Path
    about: Mapping[str, object]
    """JSON values: what is there with others counts as nothing."""
    shapes: Shapes

    def before(self, number: int) -> Named | None:
        """What the round before ``number`` has left; None when nothing fits."""
        last, found = self._read()
        if last is None or last > number:
            return None
        return self._part("before" if last == number else "after", found)

    def latest(self) -> Named | None:
        """What the last round has left; None when nothing fits."""
        last, found = self._read()
        return None if last is None else self._part("after", found)

    def keep(self, number: int, before: Named, after: Named) -> None:
        """Keep what round ``number`` has begun with, and what it leaves."""
        from safetensors.numpy import save

        parts = {"before": before, "after": after}
        arrays = {
            f"{part}.{name}": held[name] for part, held in parts.items() for name in self.shapes
        }
        about = json.dumps({**self.about, "round": number})
        write_whole(self.path, save(arrays, metadata={"sideplug": about}))

    def _part(self, part: str, found: Named) -> Named | None:
        kept = {name: found.get(f"{part}.{name}") for name in self.shapes}
        fits = all(
            one is not None and one.shape == self.shapes[name] and bool(np.isfinite(one).all())
            for name, one in kept.items()
        )
        return {name: one for name, one in kept.items() if one is not None} if fits else None

    def _read(self) -> tuple[int | None, Named]:
        """The last round, and what is there of it; none when that is of something else, or cannot be read: a
        device that has just joined has nothing."""
        from safetensors import SafetensorError, safe_open

        try:
            with safe_open(self.path, framework="np") as file:
                about = json.loads((file.metadata() or {})["sideplug"])
                last = about.pop("round", None)
                if about != self.about or not isinstance(last, int):
                    return None, {}
                return last, {str(name): file.get_tensor(name) for name in file.keys()}
        except (OSError, SafetensorError, ValueError, KeyError, TypeError, AttributeError):
            return None, {}
