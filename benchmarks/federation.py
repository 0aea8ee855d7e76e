"""Federations as people run them: homes with texts, a server, `sideplug federate join` in each home."""

import json
import shutil
import subprocess
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.cells import Cells
from benchmarks.errors import ProcessFailed
from benchmarks.processes import last_object, running
from benchmarks.services import CLOUD, DEVICE, FEATURES, Backbone, share_features
from cloud_service.federated.record import LOG


@dataclass(frozen=True, slots=True)
class Home:
    """One device's folder and commands: no personal prefix and no memory, so that weights are compared."""

    path: Path
    url: str
    """Of the cloud."""
    recipe: str

    def run(self, *words: str) -> dict[str, Any]:
        """What `sideplug WORDS... --json` printed."""
        with self.started(*words) as process:
            return answer_of(process, f"sideplug {words[0]}")

    def started(self, *words: str) -> Any:
        """The process, ended when the block is left."""
        environment = {
            "SIDEPLUG_HOME": str(self.path),
            "SIDEPLUG_CLOUD": self.url,
            "SIDEPLUG_RECIPE": self.recipe,
            "SIDEPLUG_THREADS": "1",
            "SIDEPLUG_PREFIX": "0",
            "SIDEPLUG_MEMORY": "off",
            "SIDEPLUG_FEDERATED": "on",
        }
        return running([*DEVICE, *words, "--json"], environment, **_PIPES)


class Homes:
    """
    Homes in one folder, all with the same features: each text is fetched once.

    Args:
        kept: Says which homes have been taught, where a run is gone on with.
        name: Of the folder in its workspace.
        url: Of the cloud.
    """

    def __init__(self, kept: Cells, name: str, url: str) -> None:
        self._kept, self._name, self._url = kept, name, url
        self.folder = kept.workspace / name
        self.folder.mkdir(parents=True, exist_ok=True)

    def empty(self, name: str, recipe: str = "ladder") -> Home:
        """A home without texts."""
        path = self.folder / name
        share_features(path, self.folder / FEATURES)
        return Home(path, self._url, recipe)

    def taught(self, name: str, lines: Sequence[dict[str, str]], recipe: str = "ladder") -> Home:
        """A home that has learned these lines of JSONL, begun anew where that was interrupted."""

        def teach() -> dict[str, Any]:
            shutil.rmtree(self.folder / name, ignore_errors=True)
            file = self.folder / f"{name}.jsonl"
            file.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
            return self.empty(name, recipe).run("learn", str(file))

        self._kept.get(f"{self._name}/taught/{name}", teach)
        return self.empty(name, recipe)


class Server:
    """
    Where federations run.

    Args:
        backbone: Whose kit is shared.
        cache: Of the server's own, since federations are kept in a cache; it shares backbones and kits.
    """

    def __init__(self, backbone: Backbone, cache: Path) -> None:
        self._backbone, self._cache = backbone, cache
        cache.mkdir(parents=True, exist_ok=True)
        for name in ("backbones", "kits"):
            if not (cache / name).is_symlink():
                (cache / name).symlink_to((backbone.folder.parents[1] / name).resolve())

    def run(self, name: str, homes: Sequence[Home], flags: Sequence[str]) -> dict[str, Any]:
        """
        A federation of these homes to its end; one of this name that was interrupted goes on.

        Args:
            name: Of the federation.
            homes: Its devices.
            flags: Of `sideplug-cloud federate run`.

        Returns:
            What the server printed, with the lines of all rounds in ``log``.

        Raises:
            ProcessFailed: The server or a device ended with an error.

        """
        command = [*CLOUD, "federate", "run", "--json", "--port", "0", "--name", name, *flags]
        command += ["--backbone", self._backbone.name, "--devices", str(len(homes))]
        with running(command, {"SIDEPLUG_CACHE": str(self._cache)}, **_PIPES) as server:
            url = json.loads(server.stdout.readline() or "{}").get("url")
            if url is None:
                answer_of(server, "sideplug-cloud federate run")
            with ExitStack() as life:
                joined = [
                    life.enter_context(home.started("federate", "join", url)) for home in homes
                ]
                told = answer_of(server, "sideplug-cloud federate run")
                for process in joined:
                    answer_of(process, "sideplug federate join")
        log = self._cache / "federations" / name / LOG
        lines = [json.loads(line) for line in log.read_text(encoding="utf-8").splitlines()]
        return {**told, "log": lines}


_PIPES: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}


def answer_of(process: "subprocess.Popen[str]", name: str) -> dict[str, Any]:
    """The JSON that a process ends with. Raises ProcessFailed with its last words when it failed."""
    out, said = process.communicate()
    if process.returncode != 0:
        raise ProcessFailed(f"`{name}` ended with code {process.returncode}: {said[-600:]}")
    return last_object(out)
