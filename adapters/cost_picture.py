"""Draws what the rules cost over the length of a sequence, relative to backprop, as SVG."""

from collections.abc import Mapping, Sequence
from html import escape

from adapters.cost import COUNTS, RULES, Shape

LENGTHS = tuple(2**power for power in range(5, 13))
"""Tokens, 32 to 4,096."""

_COLOURS: Mapping[str, str] = dict(
    zip(RULES, ("#444444", "#d08700", "#2a6fb0", "#2f8f4e"), strict=True)
)
_WIDTH, _HEIGHT, _MARGIN = 360, 220, 40
_HIGHEST = 2.0
"""Of the vertical axis: twice backprop's."""

_QUANTITIES = {"macs": "multiply-adds", "activations": "activations"}


def draw(shape: Shape) -> str:
    """Return a picture of four panels: arithmetic and memory, by both counts."""
    panels = []
    for row, count in enumerate(COUNTS):
        for column, quantity in enumerate(_QUANTITIES):
            place = f"translate({column * _WIDTH} {row * _HEIGHT + 24})"
            panels.append(f'<g transform="{place}">{_panel(shape, count, quantity)}</g>')
    width, height = 2 * _WIDTH, 2 * _HEIGHT + 44
    legend = "".join(
        f'<text x="{20 + 110 * place}" y="{height - 8}" fill="{colour}">{rule}</text>'
        for place, (rule, colour) in enumerate(_COLOURS.items())
    )
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" '
        f'font-family="sans-serif" font-size="11"><rect width="100%" height="100%" fill="white"/>'
        f'<text x="20" y="18" font-size="14">{escape(shape.name)}: relative to backprop</text>'
        f"{''.join(panels)}{legend}</svg>\n"
    )


def _panel(shape: Shape, count: str, quantity: str) -> str:
    series: dict[str, list[float]] = {}
    for length in LENGTHS:
        costs = COUNTS[count](shape, length)
        base = getattr(costs["backprop"], quantity)
        for rule, cost in costs.items():
            series.setdefault(rule, []).append(getattr(cost, quantity) / base)
    lines = "".join(_line(values, _COLOURS[rule]) for rule, values in series.items())
    ticks = "".join(
        f'<text x="{_x(place):.0f}" y="{_HEIGHT - 14}" text-anchor="middle">{length}</text>'
        for place, length in enumerate(LENGTHS)
    )
    marks = "".join(
        f'<text x="{_MARGIN - 6}" y="{_y(value) + 4:.0f}" text-anchor="end">{value:g}</text>'
        f'<path d="M{_MARGIN} {_y(value):.1f}H{_WIDTH - 16}" stroke="#dddddd"/>'
        for value in (0.0, 0.5, 1.0, 1.5, 2.0)
    )
    title = f'<text x="{_MARGIN}" y="14">{_QUANTITIES[quantity]}, {count}, over tokens</text>'
    return title + marks + ticks + lines


def _line(values: Sequence[float], colour: str) -> str:
    points = " ".join(f"{_x(i):.1f},{_y(min(v, _HIGHEST)):.1f}" for i, v in enumerate(values))
    return f'<polyline points="{points}" fill="none" stroke="{colour}" stroke-width="2"/>'


def _x(place: int) -> float:
    return _MARGIN + 8 + place * (_WIDTH - _MARGIN - 40) / (len(LENGTHS) - 1)


def _y(value: float) -> float:
    return _HEIGHT - 28 - value / _HIGHEST * (_HEIGHT - 54)
