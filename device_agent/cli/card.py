"""What each part of a plugin gives, as a table on the screen."""

from collections.abc import Iterator

PARTS = {
    "base": "frozen backbone",
    "prefix": "+ your prefix",
    "memory": "+ prefix and memory",
    "plugin": "+ prefix and plugin",
    "whole": "everything",
    "unprefixed": "  prefix off",
}
"""Names of the figures in the JSON of an ``Evaluation``, as a person reads them."""


def nll_of(evaluation: object, part: str) -> float | None:
    """A figure in the JSON of an ``Evaluation``; None when it is not there."""
    found = evaluation.get(part) if isinstance(evaluation, dict) else None
    nll = found.get("nll") if isinstance(found, dict) else None
    return nll if isinstance(nll, float) else None


def parts_in_words(
    held_out: object, general: object = None, requests: object = None
) -> Iterator[str]:
    """Lines of a table: every part that there is, on the person's text, on nobody's own, and in chats."""
    columns = {"your text": held_out, "general text": general, "general requests": requests}
    known = {name: told for name, told in columns.items() if isinstance(told, dict)}
    yield "nats a token and change, lower is better"
    yield f"  {'':20}" + "".join(f"{name:>19}" for name in known)
    yield f"  {'tokens':20}" + "".join(f"{told.get('tokens', '?'):>19}" for told in known.values())
    for part, words in PARTS.items():
        if nll_of(held_out, part) is not None:
            yield f"  {words:20}" + "".join(_cell(told, part) for told in known.values())


def _cell(evaluation: object, part: str) -> str:
    nll, base = nll_of(evaluation, part), nll_of(evaluation, "base")
    return f"{'?':>19}" if nll is None or base is None else f"{nll:10.4f} {nll - base:+8.4f}"
