"""The compiled training step on onnxruntime: buffers that are bound once, nothing allocated a step."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from device_agent.runtime.kits import Kit
from device_agent.runtime.side_plugin import onnx_session
from device_agent.training.shortlist import Shortlist, Sizes
from protocol.kit import KitManifest

Floats = NDArray[np.float32]
Named = dict[str, Floats]


class TrainingStep:
    """One set of weights and moments, which a step overwrites.

    The graph may write over what it reads: every update waits for the norm of all gradients, and by
    then nothing else has to read the weights.

    Attributes:
        inputs: The buffers that a step reads, by the graph's names; fill them before ``run``:
            ``taps`` (K, T, H), ``final`` (T, H), ``targets`` (T,), ``scored`` (T,), and as the kit
            has them ``positions`` (T,), ``reach`` (T, T), ``rest`` (T,), ``outside`` (N, H), ``outside_bias`` (N,), ``mask`` (M, T, R).
        rows: The shortlist's rows of the head, (S, H).
        bias: Theirs, (S,).
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
        profile: Path | None = None,
    ) -> None:
        """Load the graph and bind it.

        Args:
            kit: With ``train.onnx``.
            shortlist: The rows that every step scores.
            tokens: Rows of every batch, T.
            sizes: How many rows each step brings itself.
            schedule: ``rate`` (its peak), ``total`` and ``warmup`` (both in steps).
            threads: For one operator.
            profile: A folder for the graph as it is run and the times of its nodes; see ``profiled``.
        """
        path = kit.path("train.onnx")
        self._session = onnx_session(path, threads, arena=True, profile=profile)
        taken = {taken.name for taken in self._session.get_inputs()}
        scored = len(shortlist.ids)
        rows = np.zeros((scored + sizes.own, kit.manifest.hidden), np.float32)
        bias = np.zeros(scored + sizes.own, np.float32)
        rows[:scored], bias[:scored] = shortlist.rows, shortlist.bias
        self.rows, self.bias = rows[:scored], bias[:scored]
        self.own_rows, self.own_bias = rows[scored:], bias[scored:]
        fixed: dict[str, NDArray[Any]] = {"rows": rows, "bias": bias}
        fixed |= {name: np.array(value, np.float32) for name, value in schedule.items()}
        self._count = np.zeros((), np.float32)
        buffers = _buffers(kit.manifest, tokens, sizes.negatives)
        self.inputs = {name: array for name, array in buffers.items() if name in taken}
        self._results = {"loss": np.zeros((), np.float32), "norm": np.zeros((), np.float32)}
        self._state = _zeros(kit.manifest)
        shared = {**fixed, **self.inputs, "count": self._count}
        values = {name: _value(array) for name, array in shared.items() if name in taken}
        values |= {name: _value(array) for name, array in self._results.items()}
        values |= {name: _value(array) for name, array in self._state.items()}
        self._binding = _bind(self._session, values)
        self._names = [weight.name for weight in kit.manifest.weights]

    def load(
        self, weights: Mapping[str, Floats], moments: Mapping[str, Floats] | None = None
    ) -> None:
        """Begin from ``weights``, and from ``moments`` (``first.<name>``, ``second.<name>``) or zeros."""
        for name, array in self._state.items():
            if name in weights:
                array[...] = weights[name]
            else:
                array[...] = 0 if moments is None else moments[name]

    def weights(self) -> Named:
        """The weights now: views, which the next step overwrites."""
        return {name: self._state[name] for name in self._names}

    def state(self) -> Named:
        """Weights and moments now, by the graph's names: views, which the next step overwrites."""
        return self._state

    def run(self, count: int, *, last: bool = False) -> tuple[float, float]:
        """One step.

        Args:
            count: Its number in the whole run, counted from 1.
            last: Whether something else needs memory next: the step's own is given back.

        Returns:
            The loss before the step, and the norm of its gradient.
        """
        self._count[...] = count
        self._session.run_with_iobinding(self._binding, _releasing() if last else None)
        return float(self._results["loss"]), float(self._results["norm"])

    def end(self) -> None:
        """Give everything back but weights and moments: no further step is taken."""
        self._session = self._binding = None

    def profiled(self) -> Path:
        """End the profile that was asked for; gives its file."""
        return Path(self._session.end_profiling())


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
    if manifest.sequential:
        shapes |= {"positions": (tokens,), "reach": (tokens, tokens)}
    if manifest.mask:
        depth, width = manifest.mask
        shapes["mask"] = (depth, tokens, width)
    floats = {name: np.zeros(shape, np.float32) for name, shape in shapes.items()}
    return floats | {"targets": np.zeros(tokens, np.int64)}


def _zeros(manifest: KitManifest) -> Named:
    """Each weight and its two moments, as the graph names its inputs."""
    return {
        prefix + weight.name: np.zeros(weight.shape, np.float32)
        for prefix in ("", "first.", "second.")
        for weight in manifest.weights
    }


def _releasing() -> Any:
    """Options of a run after which onnxruntime keeps no memory for the next one."""
    import onnxruntime

    options = onnxruntime.RunOptions()
    options.add_run_config_entry("memory.enable_memory_arena_shrinkage", "cpu:0")
    return options


def _value(array: NDArray[Any]) -> Any:
    """An ``OrtValue`` over the array's own memory."""
    import onnxruntime

    return onnxruntime.OrtValue.ortvalue_from_numpy(array)


def _bind(session: Any, values: Mapping[str, Any]) -> Any:
    """Every input and output on its own memory; what comes out as ``next.X`` goes where X is."""
    binding = session.io_binding()
    for taken in session.get_inputs():
        binding.bind_ortvalue_input(taken.name, values[taken.name])
    for given in session.get_outputs():
        binding.bind_ortvalue_output(given.name, values[given.name.removeprefix("next.")])
    return binding
