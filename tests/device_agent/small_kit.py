"""A kit small enough to know by heart: V tokens, H wide, a plugin that adds scaled taps.

``infer``: state = final + scale * (sum of the taps); one weight, ``scale`` (H,).
"""

import hashlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper
from safetensors.numpy import save_file

from device_agent.runtime.kits import Kit
from protocol.facts import BackboneFacts
from protocol.kit import KitFile, KitManifest, Schedule, WeightSpec
from protocol.limits import Limits

VOCABULARY, HIDDEN, BLOCK = 96, 64, 32
TAPS = (1, 3)
FINGERPRINT = "f" * 64
TOKENIZER = "a" * 64


@dataclass(frozen=True)
class SmallHead:
    """What was written into the kit, before it became codes."""

    codes: NDArray[np.uint8]  # (V, blocks, 32)
    scales: NDArray[np.float32]  # (V, blocks)
    bias: NDArray[np.float32]  # (V,)
    softcap: float | None

    @property
    def rows(self) -> NDArray[np.float32]:
        """(V, H)"""
        values = (self.codes.astype(np.float32) - 128) * self.scales[..., None]
        return values.reshape(len(self.codes), -1)

    def logits(self, states: NDArray[np.float32]) -> NDArray[np.float64]:
        """The truth, (T, V)."""
        out = states.astype(np.float64) @ self.rows.T.astype(np.float64) + self.bias
        return out if self.softcap is None else self.softcap * np.tanh(out / self.softcap)


def random_head(
    seed: int = 0, softcap: float | None = None, vocabulary: int = VOCABULARY
) -> SmallHead:
    rng = np.random.default_rng(seed)
    blocks = HIDDEN // BLOCK
    return SmallHead(
        rng.integers(1, 256, (vocabulary, blocks, BLOCK), dtype=np.uint8),
        rng.uniform(0.001, 0.003, (vocabulary, blocks)).astype(np.float32),
        rng.standard_normal(vocabulary).astype(np.float32),
        softcap,
    )


def write_kit(
    folder: Path,
    head: SmallHead | None = None,
    kit_id: str = "small-1",
    fingerprint: str = FINGERPRINT,
) -> KitManifest:
    """All files of the kit but the manifest's own, and the manifest."""
    head = head or random_head()
    folder.mkdir(parents=True, exist_ok=True)
    _write_head(folder, head)
    onnx.save(_infer(), folder / "infer.onnx")
    save_file({"scale": np.zeros(HIDDEN, np.float32)}, folder / "initial.safetensors")
    return KitManifest(
        id=kit_id,
        recipe="small",
        recipe_json={"name": "small"},
        backbone="toy",
        fingerprint=fingerprint,
        tokenizer_sha256=TOKENIZER,
        layers=4,
        hidden=HIDDEN,
        vocabulary=len(head.codes),
        taps=TAPS,
        loss="full",
        shortlist=0,
        negatives=0,
        mask=(),
        dropout=0.0,
        cache=(),
        weights=(WeightSpec("scale", (HIDDEN,)),),
        schedule=Schedule(0.01, 0.1, 2, 64, 16, 1, 1),
        head_block=BLOCK,
        softcap=head.softcap,
        files={path.name: _described(path) for path in sorted(folder.iterdir())},
    )


def small_kit(folder: Path, head: SmallHead | None = None) -> Kit:
    return Kit(write_kit(folder, head), folder)


def small_facts(**changed: object) -> BackboneFacts:
    facts: dict[str, object] = {
        "name": "toy",
        "fingerprint": FINGERPRINT,
        "family": "llama",
        "layers": 4,
        "hidden": HIDDEN,
        "vocabulary": VOCABULARY,
        "positions": 64,
        "tokenizer_sha256": TOKENIZER,
        "chat_template": None,
        "bos_token": None,
        "eos_token": None,
        "stop_tokens": (),
        "dtype": "f32",
        "logit_softcap": None,
        "protocol": ("1.0",),
        "codecs": ("f32", "f16", "bf16", "int8"),
        "limits": Limits(),
    }
    return BackboneFacts(**(facts | changed))  # type: ignore[arg-type]


def _described(path: Path) -> KitFile:
    data = path.read_bytes()
    return KitFile(hashlib.sha256(data).hexdigest(), len(data))


def _write_head(folder: Path, head: SmallHead) -> None:
    head.codes.tofile(folder / "head.codes")
    head.scales.tofile(folder / "head.scales")
    head.bias.tofile(folder / "head.bias")
    vocabulary = len(head.codes)
    nodes = [
        helper.make_node(
            "MatMulNBits",
            ["state", "codes", "scales", "", "", "bias"],
            ["plain" if head.softcap else "logits"],
            domain="com.microsoft",
            K=HIDDEN,
            N=vocabulary,
            bits=8,
            block_size=BLOCK,
            accuracy_level=4,
        )
    ]
    constants = [
        _external("codes", TensorProto.UINT8, head.codes, "head.codes"),
        _external("scales", TensorProto.FLOAT, head.scales.reshape(-1), "head.scales"),
        _external("bias", TensorProto.FLOAT, head.bias, "head.bias"),
    ]
    if head.softcap:
        constants.append(helper.make_tensor("cap", TensorProto.FLOAT, [], [head.softcap]))
        nodes += [
            helper.make_node("Div", ["plain", "cap"], ["small"]),
            helper.make_node("Tanh", ["small"], ["bent"]),
            helper.make_node("Mul", ["bent", "cap"], ["logits"]),
        ]
    state = helper.make_tensor_value_info("state", TensorProto.FLOAT, ["T", HIDDEN])
    logits = helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["T", vocabulary])
    onnx.save(
        _model(helper.make_graph(nodes, "head", [state], [logits], constants)), folder / "head.onnx"
    )


def _external(name: str, kind: int, array: NDArray[np.generic], file: str) -> TensorProto:
    tensor = TensorProto(name=name, data_type=kind, dims=array.shape)
    tensor.data_location = TensorProto.EXTERNAL
    for key, value in (("location", file), ("offset", "0"), ("length", str(array.nbytes))):
        tensor.external_data.add(key=key, value=value)
    return tensor


def _infer() -> onnx.ModelProto:
    f32 = TensorProto.FLOAT
    nodes = [
        helper.make_node("ReduceSum", ["taps", "axis"], ["sum"], keepdims=0),
        helper.make_node("Mul", ["sum", "scale"], ["scaled"]),
        helper.make_node("Add", ["final", "scaled"], ["state"]),
    ]
    inputs = [
        helper.make_tensor_value_info("taps", f32, [len(TAPS), "T", HIDDEN]),
        helper.make_tensor_value_info("final", f32, ["T", HIDDEN]),
        helper.make_tensor_value_info("scale", f32, [HIDDEN]),
    ]
    out = helper.make_tensor_value_info("state", f32, ["T", HIDDEN])
    axis = helper.make_tensor("axis", TensorProto.INT64, [1], [0])
    return _model(helper.make_graph(nodes, "infer", inputs, [out], [axis]))


def _model(graph: onnx.GraphProto) -> onnx.ModelProto:
    opsets = [helper.make_opsetid("", 18), helper.make_opsetid("com.microsoft", 1)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=10)
