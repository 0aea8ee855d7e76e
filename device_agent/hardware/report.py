"""What the hardware bench found: a document for programs, tables, and a picture."""

import json
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

from device_agent.errors import DeviceError
from device_agent.hardware.energy import NOT_READABLE
from device_agent.hardware.granularity import LINKS

Document = Mapping[str, Any]

FORMAT = 1
PARTS = ("load", "forward", "backward", "optimizer")
_COLOURS = ("#888888", "#2a6fb0", "#d08700", "#2f8f4e")
_BAR, _LABEL, _WIDTH = 22, 190, 760


class NoReport(DeviceError):
    """A file to compare is not a report of this bench."""

    hint = "Make one with `sideplug bench hardware --output FILE`."

    def __init__(self, path: Path, reason: str) -> None:
        super().__init__(f"{path} is no report of the hardware bench: {reason}")


def derived(step: Mapping[str, Any], peak: float) -> dict[str, float | None]:
    """Figures that follow from a step's own: seconds, tokens a second, utilisation, tokens a joule."""
    seconds = sum(float(step[part]) for part in PARTS)
    joules = step["joules"]
    return {
        "seconds": seconds,
        "tokens_per_second": step["tokens"] / seconds,
        "mfu": step["flops"] / seconds / peak,
        # Tokens a second for each watt are tokens for each joule.
        "tokens_per_joule": None if not joules else step["tokens"] / joules,
    }


def read(path: Path) -> dict[str, Any]:
    """A document that was written by ``--output``.

    Raises:
        NoReport: It is something else.
    """
    try:
        found = json.loads(path.read_bytes())
        if not isinstance(found, dict) or found.get("format") != FORMAT:
            raise NoReport(path, "it has another format")
        for row in found["steps"]:
            derived(row["step"], found["peak_flops"])
            {link: row["round"]["links"][link]["granularity"] for link in LINKS}
        str(found["machine"]["cpu"]), float(found["bandwidth"])
    except OSError as error:
        raise NoReport(path, error.strerror or str(error)) from error
    except (ValueError, KeyError, TypeError, ZeroDivisionError) as error:
        raise NoReport(path, f"{type(error).__name__}: {error}") from error
    return found


def as_text(found: Document) -> str:
    """Tables for a terminal."""
    machine, gauge = found["machine"], found["energy"]
    lines = [
        f"{machine['cpu']}, {found['threads']} threads",
        f"peak {found['peak_flops'] / 1e9:.1f} GFLOP/s, copy {found['bandwidth'] / 1e9:.1f} GB/s,"
        f" energy {gauge or NOT_READABLE}",
        "",
        f"{'arm':24}{'tokens':>7}{'load':>9}{'forward':>9}{'backward':>9}{'optim.':>9}{'ms':>9}"
        f"{'tok/s':>8}{'MFU':>7}{'MB':>7}{'tok/J':>7}",
    ]
    for row in found["steps"]:
        step, more = row["step"], row["derived"]
        parts = "".join(f"{1000 * step[part]:9.1f}" for part in PARTS)
        joules = more["tokens_per_joule"]
        lines.append(
            f"{step['arm']:24}{step['tokens']:7}{parts}{1000 * more['seconds']:9.1f}"
            f"{more['tokens_per_second']:8.0f}{more['mfu']:7.1%}{step['resident'] / 1e6:7.0f}"
            f"{'-' if joules is None else f'{joules:.1f}':>7}"
        )
    lines += [
        "",
        f"a round of {found['round_tokens']} tokens: T_compute, bytes both ways, and by link"
        " T_communicate (granularity)",
    ]
    for row in found["steps"]:
        told = row["round"]
        links = ", ".join(
            f"{link} {told['links'][link]['communicate']:.3g} s ({told['links'][link]['granularity']:.3g})"
            for link in LINKS
        )
        lines.append(
            f"{row['step']['arm']:24}{row['step']['tokens']:7} {told['compute']:8.2f} s"
            f" {told['bytes'] / 1e6:9.2f} MB  {links}"
        )
    return "\n".join([*lines, *(f"left out: {reason}" for reason in found["left_out"])])


def compared(documents: Sequence[Document]) -> str:
    """Machines side by side: a column each."""
    names = [f"{i}: {one['machine']['cpu']}"[:27] for i, one in enumerate(documents, start=1)]
    lines = [f"{'':34}" + "".join(f"{name:>29}" for name in names)]

    def row(label: str, cells: Sequence[str]) -> None:
        lines.append(f"{label:34}" + "".join(f"{cell:>29}" for cell in cells))

    row("threads", [str(one["threads"]) for one in documents])
    row("peak GFLOP/s", [f"{one['peak_flops'] / 1e9:.1f}" for one in documents])
    row("copy GB/s", [f"{one['bandwidth'] / 1e9:.1f}" for one in documents])
    steps = [
        {(one["step"]["arm"], one["step"]["tokens"]): one for one in document["steps"]}
        for document in documents
    ]
    for key in dict.fromkeys(key for found in steps for key in found):
        label = f"{key[0]}, {key[1]} tokens"
        cells = [_cell(found.get(key)) for found in steps]
        row(label, cells)
    lines.append("cells: tokens a second, model FLOP utilisation, granularity at 20 Mbit/s")
    return "\n".join(lines)


def _cell(row: Mapping[str, Any] | None) -> str:
    if row is None:
        return "-"
    more, link = row["derived"], row["round"]["links"]["20 Mbit/s"]
    return f"{more['tokens_per_second']:.0f}, {more['mfu']:.1%}, {link['granularity']:.3g}"


def draw(found: Document) -> str:
    """A bar for each step, cut into its parts, milliseconds a token; SVG."""
    rows = found["steps"]
    widest = max(row["derived"]["seconds"] / row["step"]["tokens"] for row in rows)
    height = 60 + (_BAR + 6) * len(rows)
    bars = "".join(_bar(row, place, widest) for place, row in enumerate(rows))
    legend = "".join(
        f'<text x="{20 + 90 * place}" y="{height - 10}" fill="{colour}">{part}</text>'
        for place, (part, colour) in enumerate(zip(PARTS, _COLOURS, strict=True))
    )
    title = f"{found['machine']['cpu']}, {found['threads']} threads: ms a token"
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {height}" '
        f'font-family="sans-serif" font-size="11"><rect width="100%" height="100%" fill="white"/>'
        f'<text x="20" y="18" font-size="14">{escape(title)}</text>{bars}{legend}</svg>\n'
    )


def _bar(row: Mapping[str, Any], place: int, widest: float) -> str:
    step, y = row["step"], 30 + place * (_BAR + 6)
    scale = (_WIDTH - _LABEL - 80) / widest / step["tokens"]
    x, drawn = float(_LABEL), ""
    for part, colour in zip(PARTS, _COLOURS, strict=True):
        width = step[part] * scale
        drawn += f'<rect x="{x:.1f}" y="{y}" width="{width:.1f}" height="{_BAR}" fill="{colour}"/>'
        x += width
    label = escape(f"{step['arm']}, {step['tokens']} tokens")
    each = 1000 * row["derived"]["seconds"] / step["tokens"]
    return (
        f'<text x="{_LABEL - 8}" y="{y + 15}" text-anchor="end">{label}</text>{drawn}'
        f'<text x="{x + 6:.1f}" y="{y + 15}">{each:.2f}</text>'
    )
