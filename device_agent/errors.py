"""What can go wrong on the device itself, each with the next thing to do.

What the cloud answers is a ``protocol.errors.Fault``; what happens here is a ``DeviceError``.
"""

from typing import ClassVar


class DeviceError(Exception):
    """The device cannot go on. ``str`` of it is one sentence; ``hint`` says what to do next."""

    hint: ClassVar[str] = ""

    @property
    def code(self) -> str:
        """The class name, as it stands in ``--json`` output."""
        return type(self).__name__
