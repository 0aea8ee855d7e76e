"""Energy that the machine has used, where a gauge can be read: Intel's and AMD's RAPL, or a battery."""

from dataclasses import dataclass
from pathlib import Path

SYSTEM = Path("/sys/class")
NOT_READABLE = "not readable"


@dataclass(frozen=True, slots=True)
class Gauge:
    """One source of joules."""

    name: str
    files: tuple[Path, ...]
    """Counters that add up, or go down."""
    joules: float
    """In a unit of a counter."""
    wraps: tuple[int, ...] = ()
    """Where counters begin anew; none for a battery, whose counters go down."""

    def read(self) -> tuple[int, ...]:
        """The counters now. Raises OSError or ValueError when they cannot be read any more."""
        return tuple(int(file.read_text()) for file in self.files)

    def used(self, before: tuple[int, ...], after: tuple[int, ...]) -> float:
        """Joules between two readings."""
        if not self.wraps:
            return self.joules * sum(b - a for b, a in zip(before, after, strict=True))
        steps = zip(before, after, self.wraps, strict=True)
        return self.joules * sum((a - b) % wrap for b, a, wrap in steps)


def find_gauge(system: Path = SYSTEM) -> Gauge | None:
    """The best gauge that this process may read; None when there is none."""
    return _rapl(system) or _battery(system)


def _rapl(system: Path) -> Gauge | None:
    """Packages alone: their parts are within them."""
    zones = sorted(
        path
        for path in system.glob("powercap/intel-rapl:*")
        if path.name.count(":") == 1 and (path / "energy_uj").is_file()
    )
    files = tuple(zone / "energy_uj" for zone in zones)
    try:
        wraps = tuple(int((zone / "max_energy_range_uj").read_text()) for zone in zones)
        gauge = Gauge("RAPL", files, 1e-6, wraps)
        gauge.read()
    except (OSError, ValueError):
        return None
    return gauge if files else None


def _battery(system: Path) -> Gauge | None:
    """One that is being discharged, in microwatt hours."""
    for path in sorted(system.glob("power_supply/*/energy_now")):
        gauge = Gauge("battery", (path,), 3600e-6)
        try:
            discharging = (path.parent / "status").read_text().strip() == "Discharging"
            gauge.read()
        except (OSError, ValueError):
            continue
        if discharging:
            return gauge
    return None
