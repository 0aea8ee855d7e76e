"""The side plugin at work: it turns the backbone's states into the state that the head reads."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from device_agent.errors import DeviceError
from device_agent.runtime.kits import DamagedKit, Kit
from device_agent.runtime.memory_release import return_pages
from protocol.messages import States

Weights = dict[str, NDArray[np.float32]]


def onnx_session(
    path: Path, threads: int, *, arena: bool = False, profile: Path | None = None
) -> Any:
    """An ``onnxruntime.InferenceSession`` with the options that every graph here runs with.

    Args:
        path: The graph; its external data lie beside it.
        threads: For one operator; operators run one after another.
        arena: Keep the largest blocks it ever needed for the next run: a tenth faster where every
            run is alike and large.
        profile: A folder for the graph as it is run, ``graph.onnx``, and for the times of its nodes.
    """
    # Imported late: commands that compute nothing do not pay for it.
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    # Sizes change from run to run: what the runtime would remember of one shape is of no use.
    options.enable_mem_pattern = False
    # By default none: a device cannot spare what only the longest prompt ever needed.
    options.enable_cpu_mem_arena = arena
    # Spinning threads would burn the time in which the device waits for the cloud.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    if profile is not None:
        options.enable_profiling = True
        options.profile_file_prefix = os.fspath(profile / "run")
        options.optimized_model_filepath = os.fspath(profile / "graph.onnx")
    session = onnxruntime.InferenceSession(
        os.fspath(path), options, providers=["CPUExecutionProvider"]
    )
    return_pages()
    return session


class BrokenPlugin(DeviceError):
    """The plugin's weights have grown beyond all measure."""

    hint = "Go back to an earlier version with `sideplug plugins rollback`."

    def __init__(self) -> None:
        super().__init__("the plugin computes numbers that are not finite")


def checked_weights(kit: Kit, weights: Mapping[str, NDArray[np.float32]]) -> Weights:
    """The weights as a graph takes them.

    Raises:
        DamagedKit: They are not the kit's.
    """
    expected = {weight.name: tuple(weight.shape) for weight in kit.manifest.weights}
    if {name: array.shape for name, array in weights.items()} != expected:
        raise DamagedKit("infer.onnx", "takes other weights than the plugin has")
    return {name: np.ascontiguousarray(array, dtype=np.float32) for name, array in weights.items()}


class SidePlugin:
    """Trained weights in the kit's ``infer`` graph.

    Args:
        kit: Which network it is.
        weights: By name, in the manifest's shapes.
        threads: For its arithmetic.

    Raises:
        DamagedKit: The weights are not the kit's.
    """

    sequential = False
    """Whether it has to be given every token of a session, in order."""

    def __init__(self, kit: Kit, weights: Mapping[str, NDArray[np.float32]], threads: int) -> None:
        self.kit = kit
        self._weights = checked_weights(kit, weights)
        self._session = onnx_session(kit.path("infer.onnx"), threads)

    def beside(self) -> Self:
        """The same plugin for another session."""
        return self

    def follows(self, position: int) -> int:
        """How many of a session's first ``position`` tokens it need not be given again."""
        return position

    def state(self, states: States) -> NDArray[np.float32]:
        """What the head reads in place of the backbone's final state, (T, H).

        Args:
            states: Taps (K, T, H) of the kit's layers, and the final state (T, H).

        Raises:
            BrokenPlugin: The weights make numbers that are not finite.
        """
        if states.layers != self.kit.manifest.taps or states.final is None:
            raise ValueError(f"needs taps {self.kit.manifest.taps} and the final state")
        inputs = {"taps": states.taps, "final": states.final, **self._weights}
        (state,) = self._session.run(["state"], inputs)
        out: NDArray[np.float32] = state
        if not np.isfinite(out).all():
            raise BrokenPlugin()
        return out
