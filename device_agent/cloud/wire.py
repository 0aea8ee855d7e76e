"""How states travel between this device and the cloud: whole, or as coordinates in a kit's public basis."""

from typing import NamedTuple

from device_agent.cloud.link import Link
from device_agent.runtime.kits import Kit
from protocol import versions
from protocol.basis import Basis
from protocol.encoding import Encoding, smallest
from protocol.facts import BackboneFacts
from protocol.messages import Wants

SINCE = 1
"""The minor version that brought coordinates."""


class Wire(NamedTuple):
    """What is asked for, and what reads the answer."""

    wants: Wants
    basis: Basis | None


def choose_encoding(link: Link, kit: Kit) -> Encoding | None:
    """The smallest encoding that was measured to hold the settings' bound and that the cloud speaks.

    None where there is none, as with a cloud of an earlier version: then states travel whole.
    """
    if not link.settings.wire_kl:
        return None
    facts = link.facts()
    spoken = [one for one in kit.manifest.encodings if _speaks(facts, one.encoding)]
    found = smallest(spoken, link.settings.wire_kl)
    return None if found is None else found.encoding


def wire_of(
    link: Link,
    kit: Kit,
    encoding: Encoding | None,
    *,
    taps: bool = True,
    final: bool = True,
    log_z: bool = False,
) -> Wire:
    """What a plugin reads of a token.

    Args:
        link: Whose settings name the codec of states that travel whole.
        kit: The plugin's.
        encoding: Of the coordinates, or None.
        taps: Whether taps are read; the frozen backbone needs none.
        final: Whether the final state is read; who computes the last blocks needs none.
        log_z: Whether log Z comes with them.
    """
    layers = kit.manifest.taps if taps else ()
    whole = Wants(layers, final=final, log_z=log_z, candidates=0, codec=link.settings.codec)
    basis = kit.basis()
    if encoding is None or basis is None:
        return Wire(whole, None)
    chosen = Encoding(encoding.final if final else (), encoding.taps if taps else ())
    wants = Wants(layers, final, log_z, 0, whole.codec, basis=kit.manifest.id, encoding=chosen)
    return Wire(wants, basis)


def _speaks(facts: BackboneFacts, encoding: Encoding) -> bool:
    codecs = {section.codec for section in (*encoding.final, *encoding.taps)}
    return versions.speaks(facts.protocol, SINCE) and codecs <= set(facts.codecs)
