"""The command ``sideplug-cloud cost``: what a training step of a model costs, by each rule."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from adapters.cost import COUNTS, SHAPES, Shape, shape_of
from cloud_service.errors import BadSetting
from cloud_service.registry import Registry


def find_shape(model: str, cache: Path) -> Shape:
    """
    Return the sizes of a published configuration, a pulled backbone, a folder or a ``config.json``.

    Raises:
        BadSetting: A configuration does not say its sizes.
        BackboneNotPulled: There is no such model here.

    """
    if model in SHAPES:
        return SHAPES[model]
    path = Path(model)
    folder = path if path.exists() else Registry(cache).find(model).folder
    file = folder / "config.json" if folder.is_dir() else folder
    try:
        return shape_of(model, json.loads(file.read_text(encoding="utf-8")))
    except (OSError, ValueError, KeyError) as error:
        raise BadSetting(f"{file} does not give the model's sizes: {error}") from None


def as_text(answer: Mapping[str, Any]) -> str:
    """Return the comparison as tables for the eye."""
    lines = [
        f"{answer['model']}, {answer['tokens']} tokens, {answer['weights'] / 1e6:.1f} M weights; "
        f"PEPITA computes less than backprop from {answer['break_even_tokens']:,.0f} tokens on"
    ]
    for count in COUNTS:
        rows = answer[count]
        base = rows["backprop"]
        lines += ["", f"{count:24}{'GMACs':>10}{'':8}{'GFLOPs':>10}{'activations':>16}{'':8}memory"]
        for rule, row in rows.items():
            fits = {None: "", True: "  fits", False: "  does not fit"}[row.get("fits")]
            lines.append(
                f"  {rule:22}{row['macs'] / 1e9:10.1f}{_change(row, base, 'macs')}"
                f"{row['flops'] / 1e9:10.1f}{row['activation_bytes'] / 1e6:13.1f} MB"
                f"{_change(row, base, 'activation_bytes')}{row['memory_bytes'] / 1e6:10.1f} MB{fits}"
            )
    return "\n".join(lines)


def _change(row: Mapping[str, Any], base: Mapping[str, Any], name: str) -> str:
    return f"{100 * (row[name] / base[name] - 1):+6.0f} %"
