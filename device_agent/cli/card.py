"""What each part of a plugin gives, as a table on the screen."""

from collections.abc import Iterator

from device_agent.evaluate import Evaluation

PARTS = {
    "base": "frozen backbone",
    "prefix": "+ your prefix",
    "memory": "+ prefix and memory",
    "plugin": "+ prefix and plugin",
    "whole": "everything",
}
"""Names of the figures of an ``Evaluation``, as a person reads them."""


def parts_in_words(held_out: Evaluation, general: Evaluation | None = None) -> Iterator[str]:
    """Lines of a table: every part that there is, on the person's text and on nobody's own."""
    columns = [held_out] if general is None else [held_out, general]
    yield f"nats a token (lower is better), {held_out.tokens} tokens of yours" + (
        "" if general is None else f" and {general.tokens} of general text"
    )
    for name, words in PARTS.items():
        found = [getattr(column, name) for column in columns]
        if found[0] is not None:
            yield f"  {words:20}" + "".join(
                _cell(nll, one.base) for nll, one in zip(found, columns, strict=True)
            )


def _cell(nll: float, base: float) -> str:
    return f"{nll:9.4f} {nll - base:+8.4f}"
