"""The curves of a training benchmark as a picture."""

from collections.abc import Sequence
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
    # Imported late: it takes a second, and the other benchmarks draw nothing.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7.5, 4.5), layout="constrained")
    FigureCanvasAgg(figure)
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
