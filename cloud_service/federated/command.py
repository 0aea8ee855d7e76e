"""``sideplug-cloud federate``: runs a federation over a kit's weights, or shows how far one is."""

import argparse
import json
import re
from collections.abc import Callable
from dataclasses import fields
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from cloud_service.errors import BadSetting, CloudError
from cloud_service.federated.plan import Plan
from cloud_service.settings import Settings

PORT = 8473
LOG = "rounds.jsonl"
_NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,63}")

Say = Callable[[str], None]


class FlowerMissing(CloudError):
    """The engine of federations is not installed."""

    def __init__(self) -> None:
        super().__init__(
            "federations need Flower, which is not installed",
            "Install the extra `federated`: pip install 'sideplug[cloud,federated]'.",
        )


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's own arguments."""
    parser.add_argument("action", choices=("run", "status"))
    parser.add_argument("--name", default="default", help="of the federation (default: default)")
    parser.add_argument(
        "--recipe",
        dest="federated_recipe",
        default="ladder",
        metavar="NAME",
        help="whose kit is trained; of ladder-thresholds nothing but thresholds is shared (default: ladder)",
    )
    parser.add_argument("--backbone", default=None, metavar="STR", help="a pulled backbone")
    where = parser.add_argument_group("where")
    where.add_argument("--host", default=None, help="address to listen on (default: 127.0.0.1)")
    where.add_argument(
        "--port",
        dest="federated_port",
        type=int,
        default=PORT,
        help=f"0 takes any that is free (default: {PORT})",
    )
    where.add_argument("--tls-cert", default=None, metavar="FILE", help="certificate chain, PEM")
    where.add_argument("--tls-key", default=None, metavar="FILE", help="its private key, PEM")
    where.add_argument(
        "--admit",
        type=Path,
        metavar="FILE",
        help="only devices whose public keys are in this file: what `sideplug federate key` prints",
    )
    where.add_argument(
        "--insecure",
        action="store_true",
        default=None,
        help="let the network in without TLS and --admit",
    )
    plan = parser.add_argument_group("plan")
    for item in fields(Plan):
        plan.add_argument(
            f"--{item.name.replace('_', '-')}",
            dest=f"plan_{item.name}",
            type=type(item.default),
            default=item.default,
            metavar="NAME" if isinstance(item.default, str) else "N",
            help=f"{item.metadata['help']} (default: {item.default})",
        )


def run(args: argparse.Namespace, settings: Settings, say: Say) -> tuple[object, str]:
    """Do it; gives what came of it, for programs and in words."""
    if not _NAME.fullmatch(args.name):
        raise BadSetting(f"--name must be letters, digits, - and _, but is {args.name!r}")
    folder = settings.cache / "federations" / args.name
    if args.action == "status":
        return _status(folder, args.name)
    plan = Plan(**{item.name: getattr(args, f"plan_{item.name}") for item in fields(Plan)})
    settings.require_safe_address(has_keys=args.admit is not None)
    if find_spec("flwr") is None:
        raise FlowerMissing()
    found = _run(args, settings, plan, folder, say)
    return found, f"{found['rounds']} rounds; the shared weights are in {folder}"


def _run(
    args: argparse.Namespace, settings: Settings, plan: Plan, folder: Path, say: Say
) -> dict[str, object]:
    import logging

    from safetensors.numpy import load_file

    from cloud_service.federated.record import Record
    from cloud_service.federated.rounds import Federation
    from cloud_service.federated.superlink import Address, keys_in, serving
    from cloud_service.kits import compile_recipe
    from cloud_service.registry import Registry

    logging.getLogger("flwr").setLevel(logging.ERROR)
    admitted = None if args.admit is None else keys_in(args.admit)
    pulled = Registry(settings.cache).find(settings.backbone)
    manifest = compile_recipe(args.federated_recipe, pulled, settings.cache, say)
    every = load_file(settings.cache / "kits" / manifest.id / "initial.safetensors")
    initial = {weight.name: every[weight.name] for weight in manifest.federated}
    address = Address(settings.host, args.federated_port, settings.tls_cert, settings.tls_key)
    # An update has half of this; what frames it is small.
    most = 4 * sum(array.size for array in initial.values()) + 2**20
    with serving(address, admitted, most) as link:
        _announce(args, link.url, say)
        return Federation(
            link, manifest, initial, plan, Record(folder, manifest.id, plan), say
        ).run()


def _announce(args: argparse.Namespace, url: str, say: Say) -> None:
    if args.json:
        print(json.dumps({"event": "serving", "url": url}), flush=True)  # noqa: T201
    say(f"the federation is at {url}; devices take part with: sideplug federate join {url}")


def _status(folder: Path, name: str) -> tuple[object, str]:
    rounds: list[dict[str, Any]] = []
    try:
        lines = (folder / LOG).read_text("utf-8").splitlines()
        rounds = [json.loads(line) for line in lines]
    except FileNotFoundError:
        pass
    except ValueError as error:
        raise CloudError(f"{folder / LOG} cannot be read: {error}") from error
    if not rounds:
        return [], f"Federation {name} has no rounds yet."
    shown = [
        f"round {one['round']}: {one['answered']} of {one['asked']} updates,"
        f" {len(one['refused'])} refused, {one['missing']} missing"
        for one in rounds
    ]
    return rounds, "\n".join(shown)
