"""
What the person who runs the service is told, each with the next thing to do.

* CloudError
  * BadSetting: a flag, a variable or a line of the TOML file makes no sense
  * BackboneNotPulled: the cache holds no backbone of that name
  * BackboneDamaged: the cache holds one that cannot be read
  * BackboneRefused: the model cannot be served
  * PullFailed: it could not be fetched
    * WrongDigest: what was fetched is not what was published
  * CompileFailed: a kit could not be made

What is said to a device instead is a ``protocol.errors.Fault``.
"""

from collections.abc import Sequence


class CloudError(Exception):
    """One sentence on what happened, and a hint on what to do next."""

    def __init__(self, sentence: str, hint: str = "") -> None:
        super().__init__(sentence)
        self.sentence = sentence
        self.hint = hint


class BadSetting(CloudError):
    """A setting makes no sense."""


class BackboneNotPulled(CloudError):
    """The cache holds no backbone of that name."""

    def __init__(self, name: str, known: Sequence[str]) -> None:
        here = f"; here are {', '.join(known)}" if known else ""
        super().__init__(
            f"backbone {name} has not been pulled{here}", f"Run: sideplug-cloud pull {name}"
        )


class BackboneDamaged(CloudError):
    """The cache holds a backbone that cannot be read."""

    def __init__(self, folder: str, reason: str) -> None:
        super().__init__(
            f"the backbone in {folder} cannot be read: {reason}",
            "Delete that folder and pull the backbone again.",
        )


class BackboneRefused(CloudError):
    """The model cannot be served."""


class PullFailed(CloudError):
    """A backbone could not be fetched."""


class WrongDigest(PullFailed):
    """What was fetched is not what was published."""

    def __init__(self, name: str, expected: str, got: str) -> None:
        super().__init__(
            f"{name} has sha256 {got}, but {expected} was published",
            "It was changed on the way or at its source; it has been deleted. Pull again.",
        )


class CompileFailed(CloudError):
    """A kit could not be made."""
