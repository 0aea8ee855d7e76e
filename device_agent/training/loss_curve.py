"""Losses by step, kept short enough to be noted again and again and to be drawn."""

from typing import NamedTuple, Self

MOST = 120
"""Points of a curve."""


class Point(NamedTuple):
    """Some steps in a row."""

    step: int
    """The last of them."""
    loss: float
    """Their mean."""
    steps: int
    """How many they are."""


class LossCurve:
    """When there are too many points, each two neighbours become one, their mean."""

    def __init__(self) -> None:
        self._points: list[Point] = []

    def note(self, step: int, loss: float) -> None:
        """The loss of a step.

        A step that is not after the last one begins anew there: the run was interrupted and goes on from its
        checkpoint, or from its beginning.
        """
        while self._points and self._points[-1].step >= step:
            self._points.pop()
        span = max((point.steps for point in self._points), default=1)
        if self._points and self._points[-1].steps < span:
            self._points[-1] = _joined(self._points[-1], Point(step, loss, 1))
        else:
            self._points.append(Point(step, loss, 1))
        if len(self._points) > MOST:
            ends = zip(self._points[::2], self._points[1::2], strict=False)
            odd = self._points[len(self._points) & ~1 :]
            self._points = [_joined(one, other) for one, other in ends] + odd

    def to_json(self) -> list[list[float]]:
        """``[[step, mean loss, steps in it], …]``, ``MOST`` at most."""
        return [list(point) for point in self._points]

    @classmethod
    def from_json(cls, told: object) -> Self:
        """The curve that ``to_json`` told; an empty one when there is none."""
        curve = cls()
        if isinstance(told, list):
            curve._points = [Point(int(step), loss, int(steps)) for step, loss, steps in told]
        return curve


def _joined(one: Point, other: Point) -> Point:
    steps = one.steps + other.steps
    return Point(other.step, (one.loss * one.steps + other.loss * other.steps) / steps, steps)
