"""Whether the cloud may speak by itself where no token needs this device, and how it tells which do."""

from device_agent.cloud.link import Link
from device_agent.errors import DeviceError
from device_agent.generation.sampling import Sampling
from device_agent.plugins import PluginVersion
from device_agent.runtime.kits import Kit
from device_agent.settings import CLASSIFIER
from protocol import versions
from protocol.gate import Gate
from protocol.kit import GATE_BIAS, GATE_ROW

SINCE = 2
"""The minor version that brought gates."""


class NoClassifier(DeviceError):
    """The plugin has no classifier that could tell which tokens need the device."""

    hint = "Train with --recipe ladder-gate-errors (the cloud has to offer it), or use --gate-by confidence."

    def __init__(self, version: str, recipe: str) -> None:
        super().__init__(f"version {version} was trained by recipe {recipe}, without a classifier")


def gate_of(link: Link, version: PluginVersion, kit: Kit) -> Gate | None:
    """The gate by the settings; None where they want none, or the cloud knows of none.

    Raises:
        NoClassifier: The plugin's own is wanted, and it has none.
    """
    threshold = link.settings.gate_threshold
    if threshold is None or not versions.speaks(link.facts().protocol, SINCE):
        return None
    if link.settings.gate_by != CLASSIFIER:
        return Gate(threshold)
    if not kit.manifest.gated:
        raise NoClassifier(version.version, kit.manifest.recipe)
    weights = version.weights()
    # As short as float32 allows: a float64's digits would double the request.
    row = tuple(float(str(number)) for number in weights[GATE_ROW])
    return Gate(threshold, row, float(weights[GATE_BIAS]))


def goes_through(sampling: Sampling) -> bool:
    """Whether tokens chosen like that are the ones that the cloud would say: the likeliest ones."""
    return sampling.temperature == 0 and sampling.repetition == 1
