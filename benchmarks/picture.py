"""Pictures of what was measured."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any


def draw_training(
    path: Path, frozen: dict[str, Any], lora: dict[str, Any], ours: Sequence[dict[str, Any]]
) -> str:
    """
    Draws how far validation fell below the frozen backbone's against CPU seconds.

    The arms validate on different text, so each is shown against the frozen figure on its own.

    Returns:
        The picture's path.

    """
    figure = _canvas(7.5, 4.5)
    axes = figure.add_subplot()
    for run in lora["runs"]:
        plan = run["plan"]
        label = f"LoRA, {plan['precision']}, rate {plan['rate']:g}"
        before = frozen["validation"]["nll"]
        curve = [(row["cpu_seconds"], row["validation_nll"] - before) for row in run["history"]]
        axes.plot(*zip(*curve, strict=True), "o--", label=label)
    for arm in ours:
        before = arm["validation"]["base"]
        curve = [(row["cpu_seconds"], row["validation"] - before) for row in arm["history"]]
        axes.plot(*zip(*curve, strict=True), "s-", label=f"device, seed {arm['seed']}")
    axes.axhline(0, color="grey", linewidth=1, label="frozen backbone")
    axes.set_xscale("log")
    axes.set_xlabel("CPU seconds of the training process")
    axes.set_ylabel("validation NLL against frozen, nats a token")
    axes.legend()
    figure.savefig(path, dpi=130)
    return str(path)


Series = Mapping[str, Mapping[Any, float]]
"""Name of a line -> its points by place on the x axis."""


def draw_panels(
    path: Path, panels: Mapping[str, Series], x_label: str, y_label: str, log_x: bool = False
) -> str:
    """
    Draws a panel beside another, each with the same kinds of lines.

    Args:
        path: Of the picture.
        panels: By title.
        x_label: For all.
        y_label: For all.
        log_x: Whether the x axis is logarithmic.

    Returns:
        The picture's path.

    """
    figure = _canvas(4.2 * len(panels) + 2.2, 4.2)
    every = figure.subplots(1, len(panels), sharey=True, squeeze=False)[0]
    for axes, (title, series) in zip(every, panels.items(), strict=True):
        for name, points in series.items():
            axes.plot(list(points), list(points.values()), "o-", label=name)
        axes.set_title(title)
        axes.set_xlabel(x_label)
        if log_x:
            axes.set_xscale("log")
    every[0].set_ylabel(y_label)
    names = {
        label: line
        for axes in every
        for line, label in zip(*axes.get_legend_handles_labels(), strict=True)
    }
    figure.legend(names.values(), names.keys(), loc="outside right center")
    figure.savefig(path, dpi=130)
    return str(path)


def draw_trade(path: Path, lines: Mapping[str, Mapping[float, float]]) -> str:
    """
    Draws the divergence that each encoding costs against its bytes, both logarithmic.

    Args:
        path: Of the picture.
        lines: Name -> nats by bytes of a decoded token.

    Returns:
        The picture's path.

    """
    figure = _canvas(7.5, 4.5)
    axes = figure.add_subplot()
    for name, points in lines.items():
        places = sorted(points)
        dashed = "--" if "plugin" in name else "-"
        axes.plot(places, [points[place] for place in places], f"o{dashed}", label=name)
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xlabel("bytes down for a decoded token")
    axes.set_ylabel("mean divergence of the next token, nats")
    axes.legend()
    figure.savefig(path, dpi=130)
    return str(path)


def _canvas(width: float, height: float) -> Any:
    """An empty figure of a size in inches."""
    # Imported late: it takes a second, and most benchmarks draw nothing.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure
