"""What this device has learned, which plugin speaks, and what has left the device so far."""

import argparse
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from device_agent.cli import OK, print_json
from device_agent.cloud.link import Link
from device_agent.cloud.reachability import reachability
from device_agent.daemon.instance import find_instance
from device_agent.daemon.jobs import CURVES
from device_agent.data.store import Job
from device_agent.egress.ledger import totals
from device_agent.plugins import PluginStore
from device_agent.settings import Settings

NAME = "status"
HELP = "what is here, and what has left the device"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """It has none of its own."""


def run(args: argparse.Namespace, settings: Settings) -> int:
    """Collect and show it; an unreachable cloud is no failure."""
    with Link(settings, "status") as link:
        found = collect(link)
    if args.json:
        print_json(found)
    else:
        _show(found)
    return OK


def collect(link: Link) -> dict[str, Any]:
    """Everything that is shown, as JSON has it."""
    home = link.settings.home
    version = PluginStore(home).current()
    job, agent = link.store.last_job(), find_instance(home)
    return {
        "home": str(home),
        "agent": agent and asdict(agent),
        "cloud": reachability(link),
        "plugin": version and {"version": version.version, "fingerprint": version.fingerprint},
        "examples": link.store.count_examples(),
        "last_training": job and _training(job),
        "bytes": {name: folder_bytes(home / name) for name in ("features", "blobs", "plugins")},
        "traffic": [total.to_json() for total in totals(link.store, by=("host", "kind"))],
    }


def _training(job: Job) -> dict[str, object]:
    progress = {name: v for name, v in job.progress.items() if name not in CURVES}
    return {"state": job.state, "recipe": job.recipe, **progress}


def folder_bytes(folder: Path) -> int:
    """Bytes of all files in a folder, 0 when it is missing; files may vanish meanwhile."""
    total = 0
    for path in folder.rglob("*"):
        try:
            total += path.stat().st_size if path.is_file() else 0
        except FileNotFoundError:
            continue
    return total


def in_words(size: int) -> str:
    """Bytes as a person reads them: ``3.2 MB``."""
    value = float(size)
    for unit in ("B", "KB", "MB"):
        if value < 1000:
            return f"{value:.0f} B" if unit == "B" else f"{value:.1f} {unit}"
        value /= 1000
    return f"{value:.1f} GB"


def _show(found: Mapping[str, Any]) -> None:
    cloud, plugin, examples = found["cloud"], found["plugin"], found["examples"]
    reached = cloud["backbone"] if cloud["reachable"] else f"not reachable: {cloud['problem']}"
    print(f"home      {found['home']}")
    agent = found["agent"]
    up = f"{agent['url']} (process {agent['pid']})" if agent else "not up; `sideplug up` starts it"
    print(f"agent     {up}")
    print(f"cloud     {cloud['url']}  {reached}")
    print(f"plugin    {plugin['version'] if plugin else 'none yet; the frozen backbone speaks'}")
    print(f"examples  {examples['text']} texts, {examples['chat']} conversations")
    if found["last_training"]:
        job = found["last_training"]
        print(f"training  {job['state']} ({job['recipe']})")
    sizes = ", ".join(f"{name} {in_words(size)}" for name, size in found["bytes"].items())
    print(f"on disk   {sizes}")
    print("what has left this device, and come to it:")
    for row in found["traffic"]:
        print(
            f"  {row['host']:24} {row['kind']:10} {in_words(row['up']):>10} up"
            f" {in_words(row['down']):>10} down  in {row['exchanges']} exchanges"
        )
    if not found["traffic"]:
        print("  nothing yet")
