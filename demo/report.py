"""What the demo shows at its end: before beside after, what it cost, and a picture of both."""

import dataclasses
import json
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
from matplotlib import pyplot
from rich.console import Console
from rich.table import Table

from demo.material import Lesson
from demo.story import Outcome

MEGABYTE = 1e6


def show(lesson: Lesson, outcome: Outcome, folder: Path) -> None:
    """Prints the tables; writes ``demo.json`` and ``demo.png`` into ``folder`` and names them."""
    console = Console()
    console.print(_results(outcome))
    console.print(_texts(lesson, outcome))
    console.print(_costs(outcome))
    record = folder / "demo.json"
    record.write_text(json.dumps(dataclasses.asdict(outcome), indent=2) + "\n", encoding="utf-8")
    picture = folder / "demo.png"
    _draw(outcome, picture)
    console.print(f"picture: {picture}    figures: {record}")


def _results(outcome: Outcome) -> Table:
    table = Table("", "before", "after", title="What changed", title_justify="left")
    base, plugin = outcome.evaluation["base"], outcome.evaluation[outcome.evaluation["speaks"]]
    table.add_row(
        "perplexity on held-out writing", f"{base['perplexity']:.1f}", f"{plugin['perplexity']:.1f}"
    )
    if outcome.before.right is not None and outcome.after.right is not None:
        table.add_row(
            "facts answered right, new wordings",
            f"{outcome.before.right:.0%}",
            f"{outcome.after.right:.0%}",
        )
    return table


def _texts(lesson: Lesson, outcome: Outcome) -> Table:
    table = Table("prompt", "before", "after", title="In its own words", title_justify="left")
    for prompt, old, new in zip(
        lesson.prompts, outcome.before.free, outcome.after.free, strict=True
    ):
        table.add_row(prompt, old.strip(), new.strip(), end_section=True)
    return table


def _costs(outcome: Outcome) -> Table:
    training, features = outcome.training, outcome.training["features"]
    table = Table("", "", title="What it cost", title_justify="left", show_header=False)
    rows = {
        "the whole lesson, seconds": f"{outcome.seconds:.0f}",
        "training on the device, seconds": f"{training['seconds']:.0f} "
        f"({training['cpu_seconds']:.0f} of CPU)",
        "features from the cloud": f"{features['tokens']:,} tokens, {features['seconds']:.0f} s",
        "bytes up and down for them": f"{features['bytes_up'] / MEGABYTE:.2f} MB up, "
        f"{features['bytes_down'] / MEGABYTE:.1f} MB down",
        "peak memory of the device process": f"{outcome.peak_bytes / MEGABYTE:.0f} MB",
        "size of the side plugin": f"{training['plugin_bytes'] / MEGABYTE:.1f} MB",
    }
    for name, value in rows.items():
        table.add_row(name, value)
    return table


def _draw(outcome: Outcome, path: Path) -> None:
    figure, (curve, bars) = pyplot.subplots(1, 2, figsize=(11, 4), layout="constrained")
    history = outcome.training["history"]
    curve.plot([h["epoch"] for h in history], [h["loss"] for h in history], label="training")
    curve.plot(
        [h["epoch"] for h in history],
        [h["validation"] for h in history],
        marker="o",
        label="validation",
    )
    curve.set(title="Loss on the device", xlabel="epoch", ylabel="nats per token")
    curve.legend(frameon=False)
    base, plugin = outcome.evaluation["base"], outcome.evaluation[outcome.evaluation["speaks"]]
    names, before, after = ["perplexity"], [base["perplexity"]], [plugin["perplexity"]]
    if outcome.before.right is not None and outcome.after.right is not None:
        names.append("facts right, %")
        before.append(100 * outcome.before.right)
        after.append(100 * outcome.after.right)
    places = range(len(names))
    old = bars.bar([place - 0.2 for place in places], before, 0.4, label="before")
    new = bars.bar([place + 0.2 for place in places], after, 0.4, label="after")
    for drawn in (old, new):
        bars.bar_label(drawn, fmt="%.1f")
    bars.set(title="Held-out writing and new questions", xticks=list(places), xticklabels=names)
    bars.legend(frameon=False)
    figure.savefig(path, dpi=120)
    pyplot.close(figure)
