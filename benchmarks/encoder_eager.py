"""Full fine-tuning of an encoder as it is usually done: torch, eager, its own AdamW over all weights."""

import torch

from adapters.encoder.graphs import BETAS, CLIP, DECAY
from adapters.encoder.network import loss_of, scores
from benchmarks.encoders import Batch, Encoder


class EagerStep:
    """The same network and loss as the compiled step; tables' gradients and moments are whole."""

    def __init__(self, encoder: Encoder, threads: int) -> None:
        torch.set_num_threads(threads)
        self._shape = encoder.shape
        made = {n: torch.from_numpy(w) for n, w in encoder.weights(0).items()}
        self._weights = {name: weight.requires_grad_() for name, weight in made.items()}
        self._optimizer = torch.optim.AdamW(
            self._weights.values(), lr=1e-5, betas=BETAS, weight_decay=DECAY
        )

    def run(self, batch: Batch) -> None:
        """One step."""
        given = {name: torch.from_numpy(array) for name, array in batch.inputs.items()}
        read = dict(self._weights)
        read["words"] = read["words"][given["distinct"]]
        read["places"] = read["places"][given["order"]]
        self._optimizer.zero_grad()
        loss_of(
            scores(self._shape, read, {}, given["ids"], given["seen"]), given["labels"]
        ).backward()
        torch.nn.utils.clip_grad_norm_(self._weights.values(), CLIP)
        self._optimizer.step()
