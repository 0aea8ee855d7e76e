"""
Every way a compilation can be refused.

* AdapterError
  * RecipeRefused
  * HeadMismatch
  * UnusedWeight
  * CompileMismatch
  * FolderTaken
"""

from collections.abc import Sequence
from pathlib import Path


class AdapterError(Exception):
    """The recipe, the backbone and the compiler do not come together."""


class RecipeRefused(AdapterError):
    """A recipe's field holds what no kit can be made of."""

    def __init__(self, field: str, must: str, value: object) -> None:
        super().__init__(f"{field} must {must}, but is {value!r}")
        self.field = field
        self.must = must
        self.value = value


class HeadMismatch(AdapterError):
    """The LM head is not the one that the backbone's facts describe."""

    def __init__(self, part: str, expected: object, got: object) -> None:
        super().__init__(f"the head's {part} must be {expected}, but is {got}")
        self.part = part
        self.expected = expected
        self.got = got


class UnusedWeight(AdapterError):
    """Weights that take no part in the loss; a traced step would never move them."""

    def __init__(self, names: Sequence[str]) -> None:
        super().__init__(f"weights without a gradient: {', '.join(names)}")
        self.names = tuple(names)


class CompileMismatch(AdapterError):
    """A compiled graph does not compute what torch computes."""

    def __init__(self, graph: str, output: str, difference: float, allowed: float) -> None:
        super().__init__(
            f"{graph}: {output} differs from torch by {difference:.2g} of its size, allowed is {allowed:.2g}"
        )
        self.graph = graph
        self.output = output
        self.difference = difference
        self.allowed = allowed


class FolderTaken(AdapterError):
    """The folder for the kit holds something else."""

    def __init__(self, folder: Path, expected: str) -> None:
        super().__init__(f"{folder} exists and is not kit {expected}: remove it or choose another")
        self.folder = folder
        self.expected = expected
