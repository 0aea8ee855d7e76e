"""Files of a person, read as examples: all of a file, or nothing of it."""

import json
from collections.abc import Callable
from pathlib import Path

from device_agent.data.examples import Example
from device_agent.errors import DeviceError

ROLES = ("system", "user", "assistant")


class BadDocument(DeviceError):
    """A file cannot be learned from. Nothing of it was kept."""

    hint = (
        "Learn from .txt and .md files, or from .jsonl files with one object a line: "
        '{"text": "…"}, {"messages": [{"role": "user", "content": "…"}, …]} or {"source": "…", "target": "…"}.'
    )

    def __init__(self, path: Path, reason: str, line: int | None = None) -> None:
        place = f"{path}, line {line}" if line else str(path)
        super().__init__(f"{place}: {reason}")
        self.path = path
        self.line = line


def read_documents(path: Path) -> list[Example]:
    """The examples in a file.

    Raises:
        BadDocument: It is missing, empty, of an unknown kind, not UTF-8, or a line of it is wrong.
    """
    reader = _reader_of(path)
    try:
        data = path.read_bytes()
    except OSError as error:
        raise BadDocument(path, error.strerror or str(error)) from error
    return reader(path, _text_of(path, data))


def examples_in(path: Path, data: bytes) -> list[Example]:
    """The examples in a file of that name with these bytes, which need not be on this disk.

    Raises:
        BadDocument: As of ``read_documents``.
    """
    return _reader_of(path)(path, _text_of(path, data))


def _reader_of(path: Path) -> "Reader":
    reader = READERS.get(path.suffix.lower())
    if reader is None:
        raise BadDocument(path, f"files that end in {path.suffix or 'nothing'!r} cannot be read")
    return reader


def _text_of(path: Path, data: bytes) -> str:
    try:
        # utf-8-sig: some editors put a byte order mark in front.
        text = data.decode("utf-8-sig").replace("\r\n", "\n")
    except UnicodeDecodeError as error:
        raise BadDocument(path, f"byte {error.start} is not UTF-8 text") from error
    if not text.strip():
        raise BadDocument(path, "the file is empty")
    return text


def _read_text(_path: Path, text: str) -> list[Example]:
    return [Example(text=text.strip())]


def _read_lines(path: Path, text: str) -> list[Example]:
    examples = []
    # Not splitlines: it cuts at characters that JSON allows inside a text.
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        try:
            examples.append(example_of(json.loads(line)))
        except json.JSONDecodeError as error:
            raise BadDocument(path, f"is not JSON: {error.msg}", number) from error
        except ValueError as error:
            raise BadDocument(path, str(error), number) from error
        except RecursionError as error:
            raise BadDocument(path, "is nested too deeply", number) from error
    return examples


def example_of(record: object) -> Example:
    """The example in one line of a JSONL file. Raises ValueError with the reason."""
    if not isinstance(record, dict):
        raise ValueError("is not an object")
    # Not "source": beside a text or messages, that says where they come from.
    if sum(name in record for name in ("text", "messages", "target")) != 1:
        raise ValueError('needs either "text", or "messages", or "source" and "target"')
    if "text" in record:
        return Example(text=_words(record["text"], '"text"'))
    if "messages" in record:
        return Example(messages=_turns(record["messages"]))
    # A pair is a conversation: so it can be learned with a backbone of either kind.
    asked, answered = _words(record.get("source"), '"source"'), _words(record["target"], '"target"')
    return Example(messages=(("user", asked), ("assistant", answered)))


def _turns(messages: object) -> tuple[tuple[str, str], ...]:
    if not isinstance(messages, list) or not messages:
        raise ValueError('"messages" must be a list of turns')
    turns = tuple(_turn(message) for message in messages)
    if not any(role == "assistant" for role, _ in turns):
        raise ValueError("there is no turn of the assistant to learn from")
    return turns


def _turn(message: object) -> tuple[str, str]:
    if not isinstance(message, dict) or message.get("role") not in ROLES:
        raise ValueError(f'each turn needs a "role" out of {", ".join(ROLES)}')
    return message["role"], _words(message.get("content"), '"content"')


def _words(value: object, name: str) -> str:
    if not isinstance(value, str) or not value.strip():
        raise ValueError(f"{name} must be a text that is not empty")
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise ValueError(f"{name} holds half a character") from error
    return value


Reader = Callable[[Path, str], list[Example]]

READERS: dict[str, Reader] = {
    ".txt": _read_text,
    ".md": _read_text,
    ".jsonl": _read_lines,
}
"""Reader by file ending. To add a kind of file: a function and a row."""
