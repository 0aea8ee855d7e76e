"""What onnxruntime holds during a compiled step, measured in processes of their own."""

import json
import sys

import pytest

from adapters.recipe import Recipe
from benchmarks.narrow import export_step
from benchmarks.processes import measured

TOKENS = 2048


def step_memory(rule, folder):
    """Of a ladder beside every layer, whose activations outweigh everything else."""
    recipe = Recipe(name="deep", rule=rule, taps=(), width=256, loss="full", dropout=0.0)
    export_step(recipe, 4, folder / "step.onnx")
    asked = {"graph": str(folder / "step.onnx"), "sizes": {"T": TOKENS, "S": 64, "N": 0}}
    (folder / "asked.json").write_text(json.dumps(asked))
    command = [sys.executable, "-m", "benchmarks.step_memory", str(folder / "asked.json")]
    return measured(command, {"MALLOC_MMAP_THRESHOLD_": "65536"}).answer


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="reads Linux's figures of a process")
def test_rules_that_compute_again_hold_the_activations_of_one_block(tmp_path):
    exact = step_memory("backprop", tmp_path)
    for rule in ("mempepita", "recompute"):
        found = step_memory(rule, tmp_path)
        assert found["activations"] < 0.6 * exact["activations"], rule
        assert found["arena"] < 0.6 * exact["arena"], rule
