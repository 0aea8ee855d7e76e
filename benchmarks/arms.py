"""The two ways to run one model, side by side: split over HTTP, and whole in one process."""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from benchmarks.peer import WholeModel, whole_model
from benchmarks.services import Backbone, Cloud, cloud
from benchmarks.split import SplitModel, split_model


@dataclass(frozen=True, slots=True)
class Arms:
    """The same model, the same number of threads; only one computes at a time."""

    cloud: Cloud
    split: SplitModel
    whole: WholeModel


@contextmanager
def arms(
    backbone: Backbone, weights: str, threads: int, codec: str, dtype: str | None = None
) -> Iterator[Arms]:
    """Both arms of a backbone, ready to be asked; ``dtype`` of the whole is ``weights`` if not said."""
    with (
        tempfile.TemporaryDirectory() as home,
        cloud(backbone, weights, threads) as service,
        split_model(Path(home), service.url, threads, codec) as split,
        whole_model(backbone.folder, dtype or weights, threads) as whole,
    ):
        yield Arms(service, split, whole)
