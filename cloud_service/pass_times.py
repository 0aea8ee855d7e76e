"""How long passes of the model take, learned from those that were."""


class PassTimes:
    """Seconds of a pass by its size, which is what its tokens take, in tokens with nothing before them; two
    sizes an octave, each a mean that forgets."""

    LARGEST = 4096
    """The largest pass that is ever thought of."""
    FIRST = 64
    """A pass as long as nothing is known."""
    _NEWS = 0.2
    """Weight of the newest pass."""
    _FORGOTTEN = 1000
    """After so many passes of other sizes a size is unknown again: it may have been bad luck."""

    def __init__(self) -> None:
        self._passes = 0
        self._seconds: dict[int, float] = {}
        self._last: dict[int, int] = {}
        """The number of each size's newest pass."""
        self.brief: float | None = None
        """Seconds of a pass that holds brief steps only."""

    def learn(self, work: float, seconds: float, brief: bool) -> None:
        """Note a pass; ``brief`` when it held brief steps only."""
        self._passes += 1
        size = next(one for one in _SIZES if one >= min(work, self.LARGEST))
        self._seconds[size] = self._mixed(self._seconds.get(size), seconds)
        self._last[size] = self._passes
        for old in [held for held, at in self._last.items() if self._passes - at > self._FORGOTTEN]:
            del self._seconds[old], self._last[old]
        if brief:
            self.brief = self._mixed(self.brief, seconds)

    def tokens_within(self, seconds: float) -> int:
        """Return the largest size whose pass is expected to take so long at most."""
        if not self._seconds:
            return self.FIRST
        within = (size for size in reversed(_SIZES) if self._expected(size) <= seconds)
        return next(within, _SIZES[0])

    def _expected(self, size: int) -> float:
        # A larger pass takes no less, and one of twice the tokens at most twice as long.
        bound = min(known * max(1.0, size / held) for held, known in self._seconds.items())
        held = sorted(self._seconds)
        if size in self._seconds or size < held[0] or len(held) == 1:
            return bound
        # What a token more costs: between the sizes around this one, or from the first to the last.
        small = max(one for one in held if one < size)
        large = min((one for one in held if one > size), default=0)
        start, end = (small, large) if large else (held[0], held[-1])
        slope = (self._seconds[end] - self._seconds[start]) / (end - start)
        if slope <= 0:
            return bound
        return min(bound, self._seconds[small] + slope * (size - small))

    def _mixed(self, before: float | None, now: float) -> float:
        return now if before is None else (1 - self._NEWS) * before + self._NEWS * now


_SIZES: list[int] = sorted(
    {size for n in range(13) for size in (2**n, 3 * 2**n // 2)} - {3 * 2**11}
)
