"""The backbone's output head on the device: 8 bits a weight, read from disk where it is needed.

Two ways to the same weights: ``head.onnx`` gives the logits of the whole vocabulary fast, with
rounded activations; the memory map of its data gives single rows exactly.
"""

import math
import mmap
from typing import Any

import numpy as np
from numpy.typing import NDArray

from device_agent.runtime.highest import highest
from device_agent.runtime.kits import DamagedKit, Kit
from device_agent.runtime.side_plugin import onnx_session

ZERO_POINT = 128
"""Code of the number zero in ``head.codes``."""

EXACT = 16
"""How many of the highest logits are computed again without rounding. That moves a logit by 0.04 (standard deviation), so
the likeliest token was always one of the first two."""

_CHUNK = 32
"""Rows taken from the memory map at a time: each may bring in 64 KB of pages, and pages count as memory."""


class Head:
    """Rows and logits of the LM head; V tokens, H wide.

    Args:
        kit: Whose head it is.
        threads: For the logits.

    Raises:
        DamagedKit: A file has another size than the manifest's shapes need.
    """

    def __init__(self, kit: Kit, threads: int) -> None:
        manifest = kit.manifest
        self.vocabulary, self.hidden = manifest.vocabulary, manifest.hidden
        self._kit, self._threads, self._softcap = kit, threads, manifest.softcap
        self._maps: list[mmap.mmap] = []
        blocks = -(-manifest.hidden // manifest.head_block)
        codes = (manifest.vocabulary, blocks, manifest.head_block)
        self._codes = self._mapped("head.codes", "u1", codes)
        self._scales = self._mapped("head.scales", "<f4", codes[:2])
        self._bias = self._mapped("head.bias", "<f4", codes[:1])
        self._session: Any = None

    def rows(self, ids: NDArray[Any]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Weights of some tokens.

        Args:
            ids: (S,), any integers below V.

        Returns:
            Rows (S, H) and bias (S,): ``logit = state @ row + bias``, before the soft cap.
        """
        wanted = np.asarray(ids, dtype=np.int64)
        rows = np.empty((len(wanted), self.hidden), np.float32)
        for start in range(0, len(wanted), _CHUNK):
            part = wanted[start : start + _CHUNK]
            values = self._codes[part].astype(np.float32)  # (s, blocks, block)
            values -= ZERO_POINT
            values *= self._scales[part][..., None]
            rows[start : start + len(part)] = values.reshape(len(part), -1)[:, : self.hidden]
            self._trim()
        return rows, self._bias[wanted]

    def prepare(self) -> None:
        """Load what ``logits`` needs, which it does otherwise when it is first asked."""
        if self._session is None:
            self._session = onnx_session(self._kit.path("head.onnx"), self._threads)

    def logits(self, states: NDArray[np.float32]) -> NDArray[np.float32]:
        """Logits of the whole vocabulary, the 16 highest of each row exact.

        Args:
            states: What the head reads, (T, H).

        Returns:
            (T, V), soft-capped where the backbone does so.
        """
        self.prepare()
        states = np.ascontiguousarray(states, dtype=np.float32)
        (logits,) = self._session.run(["logits"], {"state": states})
        out: NDArray[np.float32] = logits
        for state, row in zip(states, out, strict=True):
            self._make_exact(state, row)
        return out

    def _make_exact(self, state: NDArray[np.float32], logits: NDArray[np.float32]) -> None:
        """Compute the highest of ``logits`` (V,) again, in place."""
        top = highest(logits, EXACT)
        rows, bias = self.rows(top)
        exact = rows @ state + bias
        if self._softcap is not None:
            exact = self._softcap * np.tanh(exact / self._softcap)
        logits[top] = exact

    def _trim(self) -> None:
        """Hand the pages of the memory map back; what is needed again comes from the system's cache.

        Each row read brings 64 KB of its neighbours along: within ten tokens that would be all of it.
        """
        if hasattr(mmap, "MADV_DONTNEED"):
            for pages in self._maps:
                pages.madvise(mmap.MADV_DONTNEED)

    def _mapped(self, name: str, dtype: str, shape: tuple[int, ...]) -> NDArray[Any]:
        path = self._kit.path(name)
        needed, size = math.prod(shape) * np.dtype(dtype).itemsize, path.stat().st_size
        if size != needed:
            raise DamagedKit(name, f"has {size} bytes where {needed} are needed")
        with path.open("rb") as file:
            pages = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        self._maps.append(pages)
        return np.frombuffer(pages, dtype=dtype).reshape(shape)
