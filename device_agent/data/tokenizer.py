"""Text to tokens and back, as the backbone's own tokenizer does it."""

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Self

import numpy as np
from numpy.typing import NDArray

from device_agent.errors import DeviceError
from device_agent.runtime.memory_release import return_pages

if TYPE_CHECKING:
    import tokenizers

INCOMPLETE = "\ufffd"
"""What stands in decoded text for bytes that are no whole character yet."""


class BadTokenizer(DeviceError):
    """A tokenizer file cannot be read."""

    hint = "Delete the file; it will be fetched again."

    def __init__(self, path: Path, reason: str) -> None:
        super().__init__(f"{path} is no tokenizer: {reason}")


class Tokenizer:
    """The backbone's ``tokenizer.json``. Ids are uint32 (T,)."""

    def __init__(self, core: "tokenizers.Tokenizer") -> None:
        # What pads or cuts would change the text a person wrote.
        core.no_padding()
        core.no_truncation()
        self._core = core

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read ``tokenizer.json``.

        Raises:
            BadTokenizer: It is missing or no tokenizer.
        """
        # Imported late: the tokenizer library is one of the larger parts of this process.
        import tokenizers

        try:
            core = tokenizers.Tokenizer.from_file(str(path))
        except Exception as error:  # the library raises bare Exception for every kind of bad file
            raise BadTokenizer(path, str(error)) from error
        return_pages()
        return cls(core)

    def encode(self, text: str, special: bool = True) -> NDArray[np.uint32]:
        """Ids of ``text``, (T,).

        Args:
            text: Marks of special tokens in it become those tokens, as the template language needs.
            special: Whether the tokenizer adds what it puts around every text, such as a first token.
        """
        return np.array(self._core.encode(text, add_special_tokens=special).ids, dtype=np.uint32)

    def decode(self, ids: Iterable[int]) -> str:
        """The text of ``ids``, without special tokens; unfinished characters become U+FFFD."""
        return self._core.decode([int(i) for i in ids], skip_special_tokens=True)


class TextStream:
    """Text of tokens that come one at a time; a character appears when its last byte has come."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        # Some decoders drop a space from the first token they see, so the tokens shown last are
        # decoded again in front of the new ones, and what they give is cut off.
        self._shown: list[int] = []
        self._waiting: list[int] = []

    def push(self, token: int) -> str:
        """The text that ``token`` completes; empty while a character is unfinished."""
        self._waiting.append(token)
        text = self._new_text()
        if not text or text.endswith(INCOMPLETE):
            return ""
        self._shown, self._waiting = self._waiting, []
        return text

    def close(self) -> str:
        """What is left over, unfinished characters included."""
        text = self._new_text()
        self._shown, self._waiting = self._waiting, []
        return text

    def _new_text(self) -> str:
        before = self._tokenizer.decode(self._shown)
        return self._tokenizer.decode(self._shown + self._waiting)[len(before) :]
