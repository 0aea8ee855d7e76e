"""Check that everything is in place; each problem comes with what to do. Exit code 1 when there is one."""

import argparse
import platform
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, fields
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING

from device_agent.atomic import make_folder, others_may
from device_agent.cli import FAILED, OK, print_json
from device_agent.errors import DeviceError
from device_agent.settings import CHOICES, Settings
from protocol.errors import Fault

if TYPE_CHECKING:
    from protocol.facts import BackboneFacts

NAME = "doctor"
HELP = "check that everything is in place"

OLDEST_PYTHON = (3, 11)
LIBRARIES = {
    "numpy": (1, 26),
    "onnxruntime": (1, 22),
    "httpx": (0, 27),
    "tokenizers": (0, 21),
    "safetensors": (0, 5),
    "jinja2": (3, 1, 6),
    "platformdirs": (4, 2),
    "tqdm": (4, 66),
    "threadpoolctl": (3, 5),
    "starlette": (0, 40),
    "uvicorn": (0, 30),
    "prometheus-client": (0, 21),
    "cryptography": (43,),
}
"""Oldest version of each library that will do."""

ENOUGH_DISK = 500_000_000
"""Bytes: a kit, the features of some hundred thousand tokens, a few plugins."""


REINSTALL = "Install the libraries with: pip install --upgrade 'sideplug[device]'"


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of the report."""

    check: str
    ok: bool
    found: str
    hint: str = ""
    """What to do when it is not ok."""


class Report:
    """What one run of the checks knows so far: later ones build on earlier ones."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.facts: BackboneFacts | None = None


Check = Callable[[Report], Iterator[Finding]]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """It has none of its own."""


def run(args: argparse.Namespace, settings: Settings) -> int:
    """Make every check, also after one has failed."""
    report, findings = Report(settings), []
    for check in CHECKS:
        for finding in _findings(check, report):
            findings.append(finding)
            if not args.json:
                _show(finding)
    good = all(finding.ok for finding in findings)
    if args.json:
        print_json({"ok": good, "checks": [asdict(finding) for finding in findings]})
    return OK if good else FAILED


def _findings(check: Check, report: Report) -> Iterator[Finding]:
    name = check.__name__.removeprefix("check_")
    try:
        yield from check(report)
    except ImportError as error:
        yield Finding(name, False, str(error), REINSTALL)
    except OSError as error:
        yield Finding(name, False, str(error), "Give yourself the right to read the home folder.")


def _show(finding: Finding) -> None:
    print(f"{'ok     ' if finding.ok else 'PROBLEM'}  {finding.check:12}  {finding.found}")
    if not finding.ok and finding.hint:
        print(f"{'':9}what to do:   {finding.hint}")


def check_python(_report: Report) -> Iterator[Finding]:
    """The interpreter and the platform."""
    good = sys.version_info[:2] >= OLDEST_PYTHON
    found = f"{platform.python_version()} on {platform.system()} {platform.machine()}"
    oldest = ".".join(map(str, OLDEST_PYTHON))
    yield Finding("python", good, found, f"Install Python {oldest} or newer.")


def check_libraries(_report: Report) -> Iterator[Finding]:
    """What must be installed beside us."""
    wrong, good = [], []
    for name, oldest in LIBRARIES.items():
        try:
            found = version(name)
        except PackageNotFoundError:
            wrong.append(f"{name} is missing")
            continue
        if _numbers(found) >= oldest:
            good.append(f"{name} {found}")
        else:
            wrong.append(f"{name} {found} is older than {'.'.join(map(str, oldest))}")
    yield Finding("libraries", not wrong, ", ".join(wrong or good), REINSTALL)


def check_settings(report: Report) -> Iterator[Finding]:
    """Nothing can be wrong with them any more: settings are refused when they are read."""
    values = (f"{f.name}={getattr(report.settings, f.name)}" for f in fields(Settings) if f.repr)
    yield Finding("settings", True, " ".join(values))


def check_home(report: Report) -> Iterator[Finding]:
    """The home folder: may we write there, is there room?"""
    home = report.settings.home
    try:
        make_folder(home)
        with tempfile.TemporaryFile(dir=home) as file:
            file.write(b"x")
    except OSError as error:
        hint = "Choose another folder with --home or SIDEPLUG_HOME."
        yield Finding("home", False, f"{home} cannot be written: {error}", hint)
        return
    yield Finding("home", True, str(home))
    free = shutil.disk_usage(home).free
    hint = "Make room, or move the home folder to another disk."
    yield Finding("disk", free >= ENOUGH_DISK, f"{free / 1e9:.1f} GB free", hint)


def check_private(report: Report) -> Iterator[Finding]:
    """What is in the home folder: can nobody else read or change it?"""
    home = report.settings.home
    # Who may not enter a folder cannot reach what is in it.
    open_ones = [home, *home.rglob("*")] if home.is_dir() and others_may(home) else []
    found = [path for path in open_ones if path.exists() and others_may(path)]
    told = f"{found[0]} and {len(found) - 1} more can be read by others" if found else "yours alone"
    hint = f"Close it with: chmod -R go= {home}"
    yield Finding("private", not found, told, hint)


def check_policy(report: Report) -> Iterator[Finding]:
    """What may leave: can it be understood?"""
    from device_agent.egress.policy import POLICY, PolicyFile

    try:
        PolicyFile(report.settings.home).now()
    except DeviceError as error:
        yield Finding("policy", False, str(error), error.hint)
        return
    there = (report.settings.home / POLICY).exists()
    yield Finding("policy", True, f"{POLICY} is right" if there else "none; everything may leave")


def check_cloud(report: Report) -> Iterator[Finding]:
    """The cloud: does it answer, does it speak our protocol and codec?"""
    from device_agent.cloud.link import Link

    settings = report.settings
    try:
        with Link(settings, "doctor") as link:
            report.facts = link.cloud.facts()
    except (DeviceError, Fault) as error:
        yield Finding("cloud", False, str(error), error.hint)
        return
    facts = report.facts
    found = f"{facts.name} ({facts.dtype}) speaks protocol {', '.join(facts.protocol)}"
    yield Finding("cloud", True, f"{settings.cloud}: {found}")
    allowed = [codec for codec in CHOICES["codec"] if codec in facts.codecs]
    hint = f"Set codec to one of {', '.join(allowed)}."
    yield Finding("codec", settings.codec in facts.codecs, settings.codec, hint)


def check_kit(report: Report) -> Iterator[Finding]:
    """The kit of the settings' recipe: here, undamaged, for the cloud's backbone?"""
    from device_agent.runtime.kits import KitStore

    store = KitStore(report.settings.home)
    kit = store.find(report.settings.recipe)
    if kit is None:
        yield Finding("kit", True, "none yet; fetched when it is first needed")
        return
    damaged = store.check(kit)
    again = f"Delete {kit.folder}; it is fetched again."
    found = f"{kit.manifest.recipe} {kit.manifest.id}"
    yield Finding("kit", not damaged, f"{found} {' '.join(damaged) or 'is whole'}", again)
    yield from _same_backbone(report, "kit", kit.manifest.fingerprint)


def check_plugin(report: Report) -> Iterator[Finding]:
    """The current plugin: readable, for the cloud's backbone?"""
    from device_agent.plugins import PluginStore

    try:
        current = PluginStore(report.settings.home).current()
        if current is not None:
            current.weights()
    except DeviceError as error:
        hint = "Go back with `sideplug plugins rollback`."
        yield Finding("plugin", False, str(error), hint)
        return
    if current is None:
        yield Finding("plugin", True, "none yet; `sideplug train` makes one")
        return
    yield Finding("plugin", True, f"version {current.version}")
    yield from _same_backbone(report, "plugin", current.fingerprint)


def _same_backbone(report: Report, what: str, fingerprint: str) -> Iterator[Finding]:
    if report.facts is None:
        return
    same = fingerprint == report.facts.fingerprint
    found = f"made for {'the same' if same else 'another'} backbone ({fingerprint[:12]})"
    hint = "Connect to the cloud it was made on, or train anew with `sideplug train`."
    yield Finding(f"{what} backbone", same, found, hint)


def _numbers(text: str) -> tuple[int, ...]:
    """Version ``1.2.3rc1`` as (1, 2, 3)."""
    parts = []
    for part in text.split("+")[0].split("."):
        digits = part[: len(part) - len(part.lstrip("0123456789"))]
        if not digits:
            break
        parts.append(int(digits))
    return tuple(parts)


CHECKS: tuple[Check, ...] = (
    check_python,
    check_libraries,
    check_settings,
    check_home,
    check_private,
    check_policy,
    check_cloud,
    check_kit,
    check_plugin,
)
"""In this order. To add a check: a function and a row."""
