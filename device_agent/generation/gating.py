"""Whether the cloud may speak by itself where no token needs this device, and how it tells which do."""

from device_agent.cloud.link import Link
from device_agent.generation.sampling import Sampling
from device_agent.plugins import PluginVersion
from device_agent.runtime.kits import Kit
from device_agent.settings import CLASSIFIER
from protocol import versions
from protocol.gate import SINCE, Gate
from protocol.kit import GATE_BIAS, GATE_ROW


def gate_of(link: Link, version: PluginVersion, kit: Kit) -> Gate | None:
    """The gate by the settings; None where they want none, the cloud knows of none, or the plugin has no classifier
    and its own is wanted: every token is the device's then."""
    threshold = link.settings.gate_threshold
    if threshold is None or not versions.speaks(link.facts().protocol, SINCE):
        return None
    if link.settings.gate_by != CLASSIFIER:
        return Gate(threshold)
    if not kit.manifest.gated:
        return None
    weights = version.weights()
    # As short as float32 allows: a float64's digits would double the request.
    row = tuple(float(str(number)) for number in weights[GATE_ROW])
    return Gate(threshold, row, float(weights[GATE_BIAS]))


def goes_through(sampling: Sampling) -> bool:
    """Whether tokens chosen like that are the ones that the cloud would say: the likeliest ones."""
    return sampling.temperature == 0 and sampling.repetition == 1
