"""Whether the cloud can be reached, told as a person wants to know it."""

from device_agent.cloud.link import Link
from device_agent.errors import DeviceError
from protocol.errors import Fault


def reachability(link: Link) -> dict[str, object]:
    """``{url, reachable, backbone}``; with ``fingerprint`` when it is reached, with ``problem`` when it is not."""
    known: dict[str, object] = {"url": link.cloud.url, "reachable": False, "backbone": None}
    try:
        facts = link.cloud.facts()
    except (DeviceError, Fault) as error:
        return {**known, "problem": str(error)}
    return {**known, "reachable": True, "backbone": facts.name, "fingerprint": facts.fingerprint}
