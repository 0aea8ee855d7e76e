"""The compiled training step on onnxruntime: buffers that are bound once, nothing allocated a step."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from device_agent.kits import Kit
from device_agent.shortlist import Shortlist, Sizes
from device_agent.side_plugin import onnx_session
from protocol.kit import KitManifest

Floats = NDArray[np.float32]
Named = dict[str, Floats]


class TrainingStep:
    """Weights and moments in two sets: a step reads one and writes the other, then they change places.

    Attributes:
        inputs: The buffers that a step reads, by the graph's names; fill them before ``run``:
            ``taps`` (K, T, H), ``final`` (T, H), ``targets`` (T,), ``scored`` (T,), and as the kit
            has them ``rest`` (T,), ``outside`` (N, H), ``outside_bias`` (N,), ``mask`` (M, T, R).
        own_rows: Rows of the head that the step scores behind the shortlist's, to be filled too, (E, H).
        own_bias: Theirs, (E,).
    """

    def __init__(
        self,
        kit: Kit,
        shortlist: Shortlist,
        tokens: int,
        sizes: Sizes,
        schedule: Mapping[str, float],
        threads: int,
    ) -> None:
        """Load the graph and bind it.

        Args:
            kit: With ``train.onnx``.
            shortlist: The rows that every step scores.
            tokens: Rows of every batch, T.
            sizes: How many rows each step brings itself.
            schedule: ``rate`` (its peak), ``total`` and ``warmup`` (both in steps).
            threads: For one operator.
        """
        self._session = onnx_session(kit.path("train.onnx"), threads, arena=True)
        taken = {taken.name for taken in self._session.get_inputs()}
        scored = len(shortlist.ids)
        rows = np.zeros((scored + sizes.own, kit.manifest.hidden), np.float32)
        bias = np.zeros(scored + sizes.own, np.float32)
        rows[:scored], bias[:scored] = shortlist.rows, shortlist.bias
        self.own_rows, self.own_bias = rows[scored:], bias[scored:]
        fixed: dict[str, NDArray[Any]] = {"rows": rows, "bias": bias}
        fixed |= {name: np.array(value, np.float32) for name, value in schedule.items()}
        self._count = np.zeros((), np.float32)
        buffers = _buffers(kit.manifest, tokens, sizes.negatives)
        self.inputs = {name: array for name, array in buffers.items() if name in taken}
        self._results = {"loss": np.zeros((), np.float32), "norm": np.zeros((), np.float32)}
        self._sets = [_zeros(kit.manifest), _zeros(kit.manifest)]
        shared = {**fixed, **self.inputs, "count": self._count}
        values = {name: _value(array) for name, array in shared.items() if name in taken}
        values |= {name: _value(array) for name, array in self._results.items()}
        state = [{name: _value(array) for name, array in one.items()} for one in self._sets]
        self._bindings = [
            _bind(self._session, values, state[0], state[1]),
            _bind(self._session, values, state[1], state[0]),
        ]
        self._current = 0
        self._names = [weight.name for weight in kit.manifest.weights]

    def load(
        self, weights: Mapping[str, Floats], moments: Mapping[str, Floats] | None = None
    ) -> None:
        """Begin from ``weights``, and from ``moments`` (``first.<name>``, ``second.<name>``) or zeros."""
        for name, array in self._sets[self._current].items():
            if name in weights:
                array[...] = weights[name]
            else:
                array[...] = 0 if moments is None else moments[name]

    def weights(self) -> Named:
        """The weights now: views, valid until the next step."""
        return {name: self.state()[name] for name in self._names}

    def state(self) -> Named:
        """Weights and moments now, by the graph's names: views, valid until the next step."""
        return self._sets[self._current]

    def run(self, count: int) -> tuple[float, float]:
        """One step.

        Args:
            count: Its number in the whole run, counted from 1.

        Returns:
            The loss before the step, and the norm of its gradient.
        """
        self._count[...] = count
        self._session.run_with_iobinding(self._bindings[self._current])
        self._current = 1 - self._current
        return float(self._results["loss"]), float(self._results["norm"])


def _buffers(manifest: KitManifest, tokens: int, negatives: int) -> dict[str, NDArray[Any]]:
    hidden = manifest.hidden
    shapes: dict[str, tuple[int, ...]] = {
        "taps": (len(manifest.taps), tokens, hidden),
        "final": (tokens, hidden),
        "scored": (tokens,),
        "rest": (tokens,),
        "outside": (negatives, hidden),
        "outside_bias": (negatives,),
    }
    if manifest.mask:
        depth, width = manifest.mask
        shapes["mask"] = (depth, tokens, width)
    floats = {name: np.zeros(shape, np.float32) for name, shape in shapes.items()}
    return floats | {"targets": np.zeros(tokens, np.int64)}


def _zeros(manifest: KitManifest) -> Named:
    """A set: each weight and its two moments, as the graph names its inputs."""
    return {
        prefix + weight.name: np.zeros(weight.shape, np.float32)
        for prefix in ("", "first.", "second.")
        for weight in manifest.weights
    }


def _value(array: NDArray[Any]) -> Any:
    """An ``OrtValue`` over the array's own memory."""
    import onnxruntime

    return onnxruntime.OrtValue.ortvalue_from_numpy(array)


def _bind(
    session: Any, values: Mapping[str, Any], old: Mapping[str, Any], new: Mapping[str, Any]
) -> Any:
    binding = session.io_binding()
    for taken in session.get_inputs():
        value = old[taken.name] if taken.name in old else values[taken.name]
        binding.bind_ortvalue_input(taken.name, value)
    for given in session.get_outputs():
        name = given.name.removeprefix("next.")
        binding.bind_ortvalue_output(
            given.name, values[name] if given.name in values else new[name]
        )
    return binding
