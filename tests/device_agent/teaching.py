"""A toy world to learn in: a kit whose training step is known by heart, and a cloud with features.

The alphabet is said in order. The final state of a token knows nothing; a tap of it is the head's row
of the letter that follows, so a plugin that turns this tap on foresees everything.
"""

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper
from safetensors.numpy import save_file

from device_agent.data.tap_cache import TapCache
from device_agent.runtime.kits import Kit
from device_agent.settings import Settings
from protocol import versions
from protocol.errors import PrefixNotFound
from protocol.kit import KitFile, KitManifest, Schedule, WeightSpec
from protocol.limits import Limits
from protocol.messages import States, Tokens, Wants
from protocol.stream import FrameReader
from tests.device_agent.home import LETTERS, TEMPLATE, letter_tokenizer_json
from tests.device_agent.scripted_cloud import Answer, Request, ScriptedCloud, json_answer
from tests.device_agent.small_kit import (
    HIDDEN,
    TAPS,
    VOCABULARY,
    SmallHead,
    random_head,
    small_facts,
    write_kit,
)
from tests.device_agent.toy_backbone import ToyBackbone

SHORTLIST, NEGATIVES = 40, 8
SCHEDULE = Schedule(
    rate=0.5, warmup=0.1, epochs=3, batch_tokens=32, segment=8, patience=2, answers=2
)
ALPHABET = LETTERS * 20


def teaching_kit(folder: Path, head: SmallHead | None = None, kit_id: str = "teaching-1") -> Kit:
    """The small kit with a training step: shortlist loss, a mask, one weight ``scale`` (H,)."""
    head = head or random_head()
    manifest = write_kit(folder, head, kit_id)
    onnx.save(_train(), folder / "train.onnx")
    save_file({"scale": np.zeros(HIDDEN, np.float32)}, folder / "initial.safetensors")
    manifest = replace(
        manifest,
        recipe="teaching",
        loss="shortlist",
        shortlist=SHORTLIST,
        negatives=NEGATIVES,
        mask=(1, HIDDEN),
        dropout=0.25,
        weights=(WeightSpec("scale", (HIDDEN,)),),
        schedule=SCHEDULE,
        files={path.name: _described(path) for path in sorted(folder.iterdir())},
    )
    return Kit(manifest, folder)


def _described(path: Path) -> KitFile:
    data = path.read_bytes()
    return KitFile(hashlib.sha256(data).hexdigest(), len(data))


def states_of(ids: NDArray[np.uint32], head: SmallHead, layers: tuple[int, ...] = TAPS) -> States:
    """What the toy backbone makes of a text."""
    rows = head.rows
    final = np.stack([np.random.default_rng(int(i)).normal(0, 0.1, HIDDEN) for i in ids])
    final = final.astype(np.float32)
    following = rows[(ids + 1) % len(LETTERS)]
    taps = np.stack([following * (place == 0) for place in range(len(layers))])
    logits = head.logits(final)
    log_z = np.log(np.exp(logits).sum(axis=1)).astype(np.float32)
    return States(0, layers, taps.astype(np.float32), final, log_z)


def wants_of(manifest: KitManifest, codec: str = "f16") -> Wants:
    return Wants(layers=manifest.taps, final=True, log_z=True, candidates=0, codec=codec)


def filled_cache(folder: Path, kit: Kit, texts: list, head: SmallHead | None = None) -> TapCache:
    """A cache that holds the features of ``texts``."""
    head = head or random_head()
    cache = TapCache(folder, kit.manifest.fingerprint, wants_of(kit.manifest))
    for text in texts:
        cache.put(text.fed, states_of(text.fed, head), text.first)
    return cache


class TeachingCloud(ScriptedCloud):
    """Facts, a letter tokenizer, the teaching kit, and features; counts what it was asked to read."""

    def __init__(self, folder: Path, positions: int = 32) -> None:
        tokenizer = letter_tokenizer_json()
        sha256 = hashlib.sha256(tokenizer).hexdigest()
        self.head = random_head()
        kit = teaching_kit(folder, self.head)
        self.manifest = replace(kit.manifest, tokenizer_sha256=sha256)
        self.facts = small_facts(
            tokenizer_sha256=sha256, chat_template=TEMPLATE, stop_tokens=(25,), positions=positions
        )
        self.read: list[bytes] = []
        self.sessions = ToyBackbone(limit=positions)
        self._static = {
            "/v1/backbone": json_answer(self.facts.to_json()),
            "/v1/tokenizer": Answer(tokenizer),
            "/v1/kits/teaching": json_answer(self.manifest.to_json()),
            f"/v1/kits/{self.manifest.id}": json_answer(self.manifest.to_json()),
            **{
                f"/v1/kits/{self.manifest.id}/files/{name}": Answer((folder / name).read_bytes())
                for name in self.manifest.files
            },
        }
        self.offered = [self.manifest]
        super().__init__(self._reply)

    def offer(self, manifest: KitManifest) -> None:
        """Serve another kit of the same files."""
        self.offered.append(manifest)
        self._static[f"/v1/kits/{manifest.recipe}"] = json_answer(manifest.to_json())
        self._static[f"/v1/kits/{manifest.id}"] = json_answer(manifest.to_json())
        for name in manifest.files.keys() & self.manifest.files.keys():
            self._static[f"/v1/kits/{manifest.id}/files/{name}"] = self._static[
                f"/v1/kits/{self.manifest.id}/files/{name}"
            ]

    def become(self, name: str, fingerprint: str) -> None:
        """Host another backbone from now on, which happens to say the same."""
        self.facts = replace(self.facts, name=name, fingerprint=fingerprint)
        manifest = replace(self.manifest, id=f"for-{name}", fingerprint=fingerprint)
        self.offer(manifest)
        self.manifest = manifest
        self._static["/v1/backbone"] = json_answer(self.facts.to_json())
        self._static["/v1/kits/teaching"] = json_answer(self.manifest.to_json())

    def _reply(self, request: Request) -> Answer:
        address = urlsplit(request.path)
        if address.path == "/v1/features":
            prefix = parse_qs(address.query).get("prefix", [""])[0]
            if prefix and prefix not in self.sessions.prefixes:
                fault = PrefixNotFound(prefix=prefix)
                return json_answer(fault.to_json(), fault.status)
            return Answer(b"".join(self.features_of(request.body)))
        if address.path.startswith(("/v1/sessions", "/v1/prefixes")):
            return self.sessions(request)
        if address.path == "/v1/kits":
            offers = [{"id": it.id, "recipe": it.recipe, "ready": True} for it in self.offered]
            return json_answer({"kits": offers})
        return self._static[address.path]

    def features_of(self, body: bytes) -> Iterator[bytes]:
        """A STATES frame for each TOKENS frame."""
        reader = FrameReader(Limits())
        for frame in reader.feed(body):
            tokens = versions.decode(frame, Limits())
            assert isinstance(tokens, Tokens)
            self.read.append(tokens.ids.tobytes())
            cut = len(tokens.ids) - tokens.wanted
            whole = states_of(tokens.ids, self.head)
            assert whole.final is not None
            assert whole.log_z is not None
            states = States(
                tokens.position + cut,
                whole.layers,
                whole.taps[:, cut:],
                whole.final[cut:],
                whole.log_z[cut:],
            )
            yield versions.encode(states, "f16")


@contextmanager
def teaching_home(folder: Path, positions: int = 32) -> Iterator[tuple[TeachingCloud, Settings]]:
    """A serving cloud, and the settings of an empty home that knows it."""
    cloud = TeachingCloud(folder / "cloud", positions)
    with cloud.serving():
        yield cloud, settings_of(folder / "home", cloud.url)


def settings_of(home: Path, url: str) -> Settings:
    return Settings(
        home=home, cloud=url, recipe="teaching", threads=1, codec="f16", prefix=0, memory="off"
    )


class _Nodes:
    """Nodes of a graph, each named by what it gives."""

    def __init__(self) -> None:
        self.all: list[onnx.NodeProto] = []
        self.constants: list[TensorProto] = []

    def __call__(self, kind: str, *inputs: str, out: str = "", **attributes: object) -> str:
        name = out or f"n{len(self.all)}"
        self.all.append(helper.make_node(kind, list(inputs), [name], name=name, **attributes))
        return name

    def axis(self, number: int) -> str:
        name = f"axis{number}"
        if all(constant.name != name for constant in self.constants):
            self.constants.append(helper.make_tensor(name, TensorProto.INT64, [1], [number]))
        return name

    def number(self, value: float) -> str:
        name = f"c{len(self.constants)}"
        self.constants.append(helper.make_tensor(name, TensorProto.FLOAT, [], [value]))
        return name


def _train() -> onnx.ModelProto:
    """Shortlist loss, the gradient by hand (the outside rows are not followed), momentum."""
    op = _Nodes()
    summed = op("ReduceSum", "taps", op.axis(0), keepdims=0)
    masked = op("Mul", summed, op("Squeeze", "mask", op.axis(0)))
    state = op("Add", "final", op("Mul", masked, "scale"))
    moved, base = (op("Add", op("MatMul", x, op("Transpose", "outside")), "outside_bias") for x in (state, "final"))  # fmt: skip
    ratio = op("Sub", _mass(op, moved), _mass(op, base))
    logits = op("Add", op("MatMul", state, op("Transpose", "rows")), "bias")
    rest = op("Add", "rest", ratio)
    total = op("Log", op("Add", op("Exp", _mass(op, logits)), op("Exp", rest)))
    picked = op("Gather", "rows", "targets")
    chosen = op("ReduceSum", op("Mul", state, picked), op.axis(1), keepdims=0)
    logit = op("Add", chosen, op("Gather", "bias", "targets"))
    share = op("Div", "scored", op("ReduceSum", "scored", keepdims=0))
    op("ReduceSum", op("Mul", share, op("Sub", total, logit)), keepdims=0, out="loss")
    powers = op("Exp", op("Sub", logits, op("Unsqueeze", total, op.axis(1))))
    pull = op("Sub", op("MatMul", powers, "rows"), picked)
    slope = op("Mul", op("Mul", pull, op("Unsqueeze", share, op.axis(1))), masked)
    gradient = op("ReduceSum", slope, op.axis(0), keepdims=0)
    op("Sqrt", op("ReduceSum", op("Mul", gradient, gradient), keepdims=0), out="norm")
    first = op(
        "Add",
        op("Mul", "first.scale", op.number(0.9)),
        op("Mul", gradient, op.number(0.1)),
        out="next.first.scale",
    )
    op("Add", "second.scale", op("Mul", gradient, gradient), out="next.second.scale")
    op("Sub", "scale", op("Mul", first, "rate"), out="next.scale")
    shapes: dict[str, list[object]] = {
        "taps": [len(TAPS), "T", HIDDEN],
        "final": ["T", HIDDEN],
        "targets": ["T"],
        "scored": ["T"],
        "rest": ["T"],
        "outside": ["N", HIDDEN],
        "outside_bias": ["N"],
        "rows": ["S", HIDDEN],
        "bias": ["S"],
        "mask": [1, "T", HIDDEN],
    }
    shapes |= {name: [] for name in ("rate", "count", "total", "warmup")}
    state_names = ("scale", "first.scale", "second.scale")
    shapes |= {name: [HIDDEN] for name in state_names}
    inputs = [
        helper.make_tensor_value_info(
            name, TensorProto.INT64 if name == "targets" else TensorProto.FLOAT, shape
        )
        for name, shape in shapes.items()
    ]
    outputs = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, []) for name in ("loss", "norm")
    ]
    outputs += [
        helper.make_tensor_value_info(f"next.{name}", TensorProto.FLOAT, [HIDDEN])
        for name in state_names
    ]
    graph = helper.make_graph(op.all, "train", inputs, outputs, op.constants)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)


def _mass(op: _Nodes, logits: str) -> str:
    return op("ReduceLogSumExp", logits, op.axis(1), keepdims=0)


assert VOCABULARY > SHORTLIST + NEGATIVES
