"""The private text as every arm of the training benchmark sees it: the same windows of tokens."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.texts import Document, Split, cut
from device_agent.cloud.link import Link
from device_agent.data.examples import Encoded, Example
from device_agent.data.prefix import behind, crossed
from device_agent.training.corpus import tokens_of


@dataclass(frozen=True, slots=True)
class Prepared:
    """The parts of a private text, as text for the device and as windows for torch."""

    split: Split
    windows: Mapping[str, Sequence[Encoded]]
    """Part -> windows, cut as the device cuts them."""

    def tokens(self, part: str) -> int:
        """Tokens that are foreseen in a part."""
        return sum(len(window.rows) for window in self.windows[part])

    def facts(self) -> dict[str, Any]:
        """For the report: documents, windows and scored tokens of each part."""
        return {
            part: {
                "documents": [document.name for document in self.split.parts()[part]],
                "windows": len(self.windows[part]),
                "tokens": self.tokens(part),
            }
            for part in self.windows
        }

    def write_text(self, part: str, path: Path) -> None:
        """Writes a part as the device learns it: a document a line."""
        lines = [json.dumps({"text": document.text}) for document in self.split.parts()[part]]
        path.write_text("\n".join(lines) + "\n", encoding="utf-8")

    def write_windows(self, path: Path) -> None:
        """Writes every part as benchmarks.lora reads it."""
        _write(path, self.windows)

    def write_windows_behind(self, path: Path, budget: int) -> int:
        """
        Writes every part behind a personal prefix, as the device puts its own there.

        Each half of the training windows stands behind some of the other half, all else behind the
        newest training text.

        Args:
            path: The file.
            budget: Most tokens of a prefix.

        Returns:
            Tokens of the prefix; 0 when there is too little text for one.

        """
        prefix, training = crossed(self.windows["training"], budget)
        others = {
            part: [behind(window, prefix) for window in found]
            for part, found in self.windows.items()
            if part != "training"
        }
        _write(path, {"training": training, **others})
        return len(prefix)


def prepare(link: Link, documents: Sequence[Document], training: int, held_out: int) -> Prepared:
    """Cuts the documents with the backbone's own tokenizer, then each document into the windows that the device trains on."""
    tokenizer = link.tokenizer()
    parts = cut(documents, lambda text: len(tokenizer.encode(text)), training, held_out)
    cuts = {
        part: [
            window
            for found in tokens_of(link, [Example(document.text) for document in texts])
            for window in found
        ]
        for part, texts in parts.parts().items()
    }
    return Prepared(parts, cuts)


def _write(path: Path, parts: Mapping[str, Sequence[Encoded]]) -> None:
    plain = {part: [_plain(window) for window in found] for part, found in parts.items()}
    path.write_text(json.dumps(plain), encoding="utf-8")


def _plain(window: Encoded) -> dict[str, Any]:
    return {
        "ids": window.ids.tolist(),
        "scored": window.scored.tolist(),
        "prefix": window.prefix,
    }
