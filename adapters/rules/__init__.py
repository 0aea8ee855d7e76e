"""How weights can move, by name. To add one: a module and a row."""

from collections.abc import Mapping

from adapters.rules.backprop import backprop
from adapters.rules.base import Rule

RULES: Mapping[str, Rule] = {"backprop": backprop}
