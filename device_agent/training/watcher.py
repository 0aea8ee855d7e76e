"""What a caller may want to see of a long task."""

from contextlib import AbstractContextManager, nullcontext

from device_agent.training.course import Progress


class Watcher:
    """Each method may be left as it is."""

    def note(self, sentence: str) -> None:
        """Something the person should know."""

    def kit(self, name: str, done: int, size: int) -> None:
        """A file of the kit is coming, in bytes."""

    def fetching(self, done: int, total: int) -> None:
        """Features are coming, in tokens."""

    def training(self, progress: Progress) -> None:
        """A step or a validation is done."""

    def interruptible(self) -> AbstractContextManager[None]:
        """Entered while ``stop`` is asked."""
        return nullcontext()

    def stop(self) -> bool:
        """Asked before every step: whether to end and keep what was learned."""
        return False
