"""How long passes of the model take, learned from those that were."""


class PassTimes:
    """Seconds of a pass by its tokens, in powers of two, each a mean that forgets."""

    LARGEST = 4096
    """Tokens of the largest pass that is ever thought of."""
    FIRST = 64
    """Tokens of a pass as long as nothing is known."""
    _NEWS = 0.2
    """Weight of the newest pass."""

    def __init__(self) -> None:
        self._seconds: dict[int, float] = {}
        self.brief: float | None = None
        """Seconds of a pass that holds brief steps only."""

    def learn(self, tokens: int, seconds: float, brief: bool) -> None:
        """Note a pass; ``brief`` when it held brief steps only."""
        size = _rounded(tokens)
        self._seconds[size] = self._mixed(self._seconds.get(size), seconds)
        if brief:
            self.brief = self._mixed(self.brief, seconds)

    def tokens_within(self, seconds: float) -> int:
        """Return the most tokens, a power of two, whose pass is expected to take so long at most."""
        if not self._seconds:
            return self.FIRST
        size = self.LARGEST
        while size > 1 and self._expected(size) > seconds:
            size //= 2
        return size

    def _expected(self, size: int) -> float:
        # A larger pass takes no less, and one of twice the tokens at most twice as long: so one slow
        # pass does not keep its size from ever being tried again.
        bound = min(known * max(1.0, size / held) for held, known in self._seconds.items())
        *_, small, large = [0, 0, *sorted(held for held in self._seconds if held < size)]
        if not small:
            return bound
        # What a token more has cost, from the two sizes below.
        slope = max(0.0, self._seconds[large] - self._seconds[small]) / (large - small)
        return min(bound, self._seconds[large] + slope * (size - large))

    def _mixed(self, before: float | None, now: float) -> float:
        return now if before is None else (1 - self._NEWS) * before + self._NEWS * now


def _rounded(tokens: int) -> int:
    return 1 << (tokens - 1).bit_length()
