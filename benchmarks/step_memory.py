"""
The memory of one compiled training step, measured in a process of its own.

`python -m benchmarks.step_memory FILE` reads one JSON object a line from FILE: the graph and the
length of its free axes. It prints one JSON object: `activations`, the bytes by which the resident
set grew during a step, at its highest, without the runtime's arena; and `arena`, the bytes that the
arena keeps for such steps. Start it with a low MALLOC_MMAP_THRESHOLD_, or what is freed stays
resident and hides what is taken next.
"""

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime

from device_agent.runtime.memory_release import release_memory

_CLEAR_PEAK = "5"
"""What Linux takes in `clear_refs` for: forget the peak of the resident set."""


def main(path: str) -> int:
    """Measures one step."""
    asked = json.loads(Path(path).read_text(encoding="utf-8"))
    found = {
        "activations": _growth(asked["graph"], asked["sizes"]),
        "arena": _kept(asked["graph"], asked["sizes"]),
    }
    print(json.dumps(found))
    return 0


def _growth(graph: str, sizes: Mapping[str, int]) -> int:
    """By how much a step raises the resident set, at its highest."""
    session, binding, _held = _bound(graph, sizes, arena=False)
    session.run_with_iobinding(binding)  # what the kernels keep for themselves is not the step's
    release_memory()
    Path("/proc/self/clear_refs").write_text(_CLEAR_PEAK, encoding="ascii")
    before = _status("VmRSS")
    session.run_with_iobinding(binding)
    return _status("VmHWM") - before


def _kept(graph: str, sizes: Mapping[str, int]) -> int:
    """What the arena holds after a step: the difference that giving it back makes."""
    session, binding, _held = _bound(graph, sizes, arena=True)
    session.run_with_iobinding(binding)
    release_memory()
    before = _status("VmRSS")
    options = onnxruntime.RunOptions()
    options.add_run_config_entry("memory.enable_memory_arena_shrinkage", "cpu:0")
    session.run_with_iobinding(binding, options)
    release_memory()
    return before - _status("VmRSS")


def _bound(graph: str, sizes: Mapping[str, int], arena: bool) -> tuple[Any, Any, list[Any]]:
    """A session as a device opens it, with every input and output in memory of its own."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.enable_mem_pattern = False
    options.enable_cpu_mem_arena = arena
    session = onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
    rng = np.random.default_rng(0)
    binding, held = session.io_binding(), {}
    for port in session.get_inputs():
        shape = [sizes.get(axis, axis) for axis in port.shape]
        if port.type == "tensor(int64)":
            array = np.arange(np.prod(shape)).reshape(shape) % sizes["S"]
        else:
            # Small and positive, as second moments are.
            array = np.asarray(0.01 * rng.random(shape), np.float32)
        held[port.name] = onnxruntime.OrtValue.ortvalue_from_numpy(array)
        binding.bind_ortvalue_input(port.name, held[port.name])
    for port in session.get_outputs():
        name = port.name.removeprefix("next.")
        if name not in held:
            held[name] = onnxruntime.OrtValue.ortvalue_from_numpy(np.zeros((), np.float32))
        binding.bind_ortvalue_output(port.name, held[name])
    return session, binding, list(held.values())


def _status(field: str) -> int:
    """A figure of this process as Linux gives it, bytes."""
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return int(next(line.split()[1] for line in lines if line.startswith(field))) * 1024


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
