"""A toy cloud with everything a device asks for, and a home folder beside it."""

import hashlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType

import numpy as np

from device_agent.plugins import PluginStore
from device_agent.settings import Settings
from protocol.kit import KitManifest
from tests.device_agent.scripted_cloud import Answer, ScriptedCloud, json_answer
from tests.device_agent.small_kit import HIDDEN, small_facts, write_kit
from tests.device_agent.toy_backbone import ToyBackbone, counting_head

LETTERS = "abcdefghijklmnopqrstuvwxyz"
USER, ASSISTANT = 60, 63
"""Tokens of the toy's chat template. After 63 the toy counts on from 0, so every answer begins with a."""

TEMPLATE = (
    "{% for message in messages %}"
    "{% if message.role == 'system' %}{{ message.content }}{% endif %}"
    "{% if message.role == 'user' %}U{{ message.content }}{% endif %}"
    "{% if message.role == 'assistant' %}A{{ message.content }}{% endif %}"
    "{% endfor %}{% if add_generation_prompt %}A{% endif %}"
)


def letter_tokenizer_json() -> bytes:
    """One token a letter: a is 0, z is 25; U and A begin turns."""
    import tokenizers
    from tokenizers import decoders, models, pre_tokenizers

    words = {letter: place for place, letter in enumerate(LETTERS)}
    words |= {"U": USER, "A": ASSISTANT, "?": 59}
    core = tokenizers.Tokenizer(models.WordLevel(words, unk_token="?"))
    core.pre_tokenizer = pre_tokenizers.Split(tokenizers.Regex("."), "isolated")
    core.decoder = decoders.Fuse()
    text: str = core.to_str()
    return text.encode()


class ToyCloud(ScriptedCloud):
    """A counting backbone with facts, a tokenizer and one kit, ``small``."""

    def __init__(
        self, folder: Path, limit: int = 64, kind: type[ToyBackbone] = ToyBackbone
    ) -> None:
        tokenizer = letter_tokenizer_json()
        sha256 = hashlib.sha256(tokenizer).hexdigest()
        self.facts = small_facts(tokenizer_sha256=sha256, chat_template=TEMPLATE, stop_tokens=(25,))
        self.manifest: KitManifest = replace(
            write_kit(folder, counting_head()), tokenizer_sha256=sha256
        )
        self.backbone = kind(limit, self._answers(folder, tokenizer))
        super().__init__(self.backbone)

    def _answers(self, folder: Path, tokenizer: bytes) -> dict[str, Answer]:
        manifest = json_answer(self.manifest.to_json())
        files = {
            f"/v1/kits/{self.manifest.id}/files/{name}": Answer((folder / name).read_bytes())
            for name in self.manifest.files
        }
        return {
            "/v1/backbone": json_answer(self.facts.to_json()),
            "/v1/tokenizer": Answer(tokenizer),
            "/v1/kits/small": manifest,
            f"/v1/kits/{self.manifest.id}": manifest,
            **files,
        }


@contextmanager
def toy_home(folder: Path, limit: int = 64) -> Iterator[tuple[ToyCloud, Settings]]:
    """A serving toy cloud, and the settings of an empty home that knows it."""
    cloud = ToyCloud(folder / "cloud", limit)
    with cloud.serving():
        yield (
            cloud,
            Settings(home=folder / "home", cloud=cloud.url, recipe="small", threads=1, codec="f32"),
        )


def add_plugin(
    settings: Settings,
    manifest: KitManifest,
    token: int,
    prefix: tuple[int, ...] = (),
    speaks: str = "plugin",
    card: Mapping[str, object] = MappingProxyType({}),
) -> str:
    """A plugin that draws every answer to one token; it is the current one from now on."""
    scale = np.zeros(HIDDEN, np.float32)
    scale[token] = 9
    plugins = PluginStore(settings.home)
    ids = np.array(prefix, dtype=np.uint32)
    about = {"codec": "f32", "speaks": speaks, "examples": []}
    version = plugins.add(manifest, {"scale": scale}, about, ids, dict(card), [])
    plugins.use(version.version)
    return version.version
