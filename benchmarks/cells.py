"""
Results of a long run, kept one by one, so that what is interrupted goes on where it was.

A results folder holds `run.json`, which says what the results are of, a JSON file for each result,
and `work/` with whatever is still needed to go on.
"""

import json
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from benchmarks.errors import BenchmarkError
from benchmarks.report import write_json

RUN = "run.json"

Cell = dict[str, Any]


class OtherRun(BenchmarkError):
    """The folder holds results of a run with other settings."""


class Cells:
    """
    Results by name.

    Args:
        folder: Where they are kept.
        settings: All that decides the results and is not in their names.

    Raises:
        OtherRun: The folder holds results of other settings.

    """

    def __init__(self, folder: Path, settings: Mapping[str, Any]) -> None:
        self._folder = folder
        self.workspace = folder / "work"
        self.workspace.mkdir(parents=True, exist_ok=True)
        run, ours = folder / RUN, json.loads(json.dumps(settings))
        if run.is_file():
            theirs = json.loads(run.read_text(encoding="utf-8"))
            other = sorted(k for k in {*ours, *theirs} if ours.get(k) != theirs.get(k))
            if other:
                raise OtherRun(
                    f"{folder} holds results with another {', '.join(other)};"
                    " choose another --results folder, or delete that one"
                )
        else:
            write_json(ours, run)

    def get(self, name: str, make: Callable[[], Cell]) -> Cell:
        """The result of that name (parts of it may be separated by /), made when it is not there."""
        path = self._path(name)
        if not path.is_file():
            made = make()
            path.parent.mkdir(parents=True, exist_ok=True)
            write_json(made, path)
        found: Cell = json.loads(path.read_text(encoding="utf-8"))
        return found

    def has(self, name: str) -> bool:
        return self._path(name).is_file()

    def _path(self, name: str) -> Path:
        return self._folder / f"{name}.json"


@contextmanager
def cells(folder: Path | None, settings: Mapping[str, Any]) -> Iterator[Cells]:
    """The results in ``folder``; in one that vanishes without it."""
    if folder is not None:
        yield Cells(folder, settings)
        return
    with tempfile.TemporaryDirectory() as temporary:
        yield Cells(Path(temporary), settings)
