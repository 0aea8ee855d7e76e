"""What training makes small, by name. To add one: a module and a row."""

from collections.abc import Mapping

from adapters.losses.base import Loss
from adapters.losses.full import Full
from adapters.losses.shortlist import Shortlist

LOSSES: Mapping[str, Loss] = {"full": Full(), "shortlist": Shortlist()}
