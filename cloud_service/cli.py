"""The command ``sideplug-cloud``: pull, list, serve, compile, keys, plan, cost, federate."""

import argparse
import json
import os
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from cloud_service.errors import BadSetting, CloudError
from cloud_service.settings import CACHE_VARIABLE, PREFIX, Settings, default_file, load

DESCRIPTION = """\
Runs one frozen language model for many devices. A device reads its hidden states, and makes the
model its own with a small plugin that never leaves it.

  sideplug-cloud pull smollm2-135m-instruct   fetch the default model once (93 MB)
  sideplug-cloud serve                        serve it at http://127.0.0.1:8471
"""
EPILOG = f"""\
Every setting is a flag, a variable {PREFIX}<NAME>, and a line of a TOML file (--config, by
default {{file}}); the first that is set counts.
"""


@dataclass(frozen=True, slots=True)
class Command:
    """One word behind ``sideplug-cloud``."""

    name: str
    help: str
    about: str
    add: Callable[[argparse.ArgumentParser], None]
    run: Callable[[argparse.Namespace, Settings], int]


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command; return 0 when it worked, 1 when it failed, 2 for a wrong call, 130 for Ctrl-C."""
    args = _parser().parse_args(argv)
    try:
        command: Command = args.command
        return command.run(args, _settings(args))
    except CloudError as error:
        print(f"sideplug-cloud: {error.sentence}.", error.hint, file=sys.stderr)
        return 2 if isinstance(error, BadSetting) else 1
    except OSError as error:
        print(f"sideplug-cloud: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("sideplug-cloud: stopped", file=sys.stderr)
        return 130


def _pull(args: argparse.Namespace, settings: Settings) -> int:
    # The libraries behind each command take seconds to import.
    from cloud_service.pull import pull
    from cloud_service.registry import Registry

    started = time.monotonic()
    pulled = pull(args.source, Registry(settings.cache), _say, args.name)
    seconds = round(time.monotonic() - started, 1)
    _print(
        args,
        {**asdict(pulled.record), "folder": str(pulled.folder), "seconds": seconds},
        f"{pulled.record.display_name} is in {pulled.folder}\n"
        f"Next: sideplug-cloud serve --backbone {pulled.record.name}",
    )
    return 0


def _list(args: argparse.Namespace, settings: Settings) -> int:
    from cloud_service.registry import Registry

    found = [
        {**asdict(pulled.record), "folder": str(pulled.folder), "bytes": pulled.bytes}
        for pulled in Registry(settings.cache)
    ]
    lines = [f"{row['name']:32} {row['family']:12} {row['bytes'] / 1e6:8.0f} MB" for row in found]
    _print(args, found, "\n".join(lines) or "Nothing has been pulled yet.")
    return 0


def _serve(args: argparse.Namespace, settings: Settings) -> int:
    from transformers.utils import logging

    from cloud_service.logs import log_to_stderr
    from cloud_service.serve import serve
    from cloud_service.service import build

    log_to_stderr(settings.log_level)
    logging.disable_progress_bar()

    def tell(event: str, text: str, url: str) -> None:
        _print(args, {"event": event, "url": url}, text)

    if max(settings.replicas, settings.max_replicas) > 1:
        from cloud_service.replicas import serve_replicas

        serve_replicas(settings, tell)
    else:
        serve(build(settings), tell)
    return 0


def _compile(args: argparse.Namespace, settings: Settings) -> int:
    from cloud_service.kits import compile_recipe
    from cloud_service.registry import Registry

    if args.background:
        _give_way()
    pulled = Registry(settings.cache).find(settings.backbone)
    started = time.monotonic()
    manifest = compile_recipe(args.name, pulled, settings.cache, _say)
    seconds = round(time.monotonic() - started, 1)
    size = sum(file.size for file in manifest.files.values())
    _print(
        args,
        {"id": manifest.id, "recipe": manifest.recipe, "bytes": size, "seconds": seconds},
        f"kit {manifest.id} of recipe {manifest.recipe}: {size / 1e6:.1f} MB, {seconds} s",
    )
    return 0


def _keys(args: argparse.Namespace, settings: Settings) -> int:
    from cloud_service.keys import KeyLimits, KeyStore

    store = KeyStore(settings.keys_file)
    if args.action == "list":
        found = [asdict(key) for key in store]
        _print(args, found, "\n".join(map(_key_line, found)) or "There are no keys.")
        return 0
    if args.name is None:
        raise BadSetting(f"keys {args.action} needs the name of a key")
    if args.action == "add":
        limits = KeyLimits(**{item.name: getattr(args, item.name) for item in fields(KeyLimits)})
        key = store.add(args.name, limits)
        _say("This is the only time the key is shown; on the device it is SIDEPLUG_KEY.")
        _print(args, {"name": args.name, "key": key}, key)
    else:
        store.revoke(args.name)
        _print(args, {"name": args.name}, f"Key {args.name} is good for nothing any more.")
    return 0


def _key_line(key: dict[str, Any]) -> str:
    limits = [f"{value:,} {name}" for name, value in key["limits"].items() if value is not None]
    until = f"revoked {key['revoked']}" if key["revoked"] else ", ".join(limits) or "no limits"
    return f"{key['name']:24} {key['id']}  since {key['created']}  {until}"


def _plan(args: argparse.Namespace, settings: Settings) -> int:
    from cloud_service import plan
    from cloud_service.demand import Demand
    from cloud_service.service import build

    chosen = {item.name: getattr(args, f"assumed_{item.name}") for item in fields(Demand)}
    demand = Demand(**{name: value for name, value in chosen.items() if value is not None})
    if args.measured:
        measured = plan.read_measured(args.measured)
    else:
        measured = plan.measure(build(settings), args.context_measured, _say)
    result = plan.plan(measured, demand)
    _print(args, plan.as_json(measured, demand, result), plan.as_text(measured, demand, result))
    return 0


def _cost(args: argparse.Namespace, settings: Settings) -> int:
    from adapters.cost import compare
    from adapters.cost_picture import draw
    from cloud_service.cost import as_text, find_shape

    if args.tokens < 1:
        raise BadSetting("--tokens must be at least 1")
    shape = find_shape(args.model, settings.cache)
    answer = compare(shape, args.tokens, args.memory)
    if args.picture:
        args.picture.write_text(draw(shape), encoding="utf-8")
    _print(args, answer, as_text(answer))
    return 0


def _federate(args: argparse.Namespace, settings: Settings) -> int:
    from cloud_service.federated.command import run

    result, text = run(args, settings, _say)
    _print(args, result, text)
    return 0


def _add_federate(parser: argparse.ArgumentParser) -> None:
    from cloud_service.federated.command import add_arguments

    add_arguments(parser)


def _give_way() -> None:
    """Let whoever answers a person go first, where the system has an order."""
    if hasattr(os, "nice"):
        os.nice(10)


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def _print(args: argparse.Namespace, result: object, text: str) -> None:
    print(json.dumps(result) if args.json else text, flush=True)


def _settings(args: argparse.Namespace) -> Settings:
    flags = {item.name: getattr(args, item.name, None) for item in fields(Settings)}
    return load(flags, os.environ, args.config)


def _add_pull(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "source",
        help="smollm2-135m-instruct, a hub id as owner/model, or a folder in Hugging Face layout",
    )
    parser.add_argument("--name", help="what to call it here; by default made from the source")


def _add_nothing(_parser: argparse.ArgumentParser) -> None:
    pass


def _add_serve(parser: argparse.ArgumentParser) -> None:
    for item in fields(Settings):
        if item.name != "cache":
            _add_setting(parser, item.name)


def _add_compile(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("name", metavar="recipe", help="name of the recipe, for example ladder")
    _add_setting(parser, "backbone")
    parser.add_argument("--background", action="store_true", help="give way to other programs")


def _add_keys(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("action", choices=("add", "list", "revoke"))
    parser.add_argument("name", nargs="?", help="who has the key, for example a device")
    limits = parser.add_argument_group("limits of a new key", "None where nothing is said.")
    for flag, help in (
        ("--sessions", "sessions at a time"),
        ("--tokens-per-minute", "tokens the backbone reads"),
        ("--bytes-per-day", "bytes of requests and answers"),
    ):
        limits.add_argument(flag, type=int, metavar="N", help=help)


def _add_plan(parser: argparse.ArgumentParser) -> None:
    from cloud_service.demand import Demand

    for name in ("backbone", "engine", "weights", "threads", "kv"):
        _add_setting(parser, name)
    inputs = parser.add_argument_group("measured")
    inputs.add_argument(
        "--measured", type=Path, metavar="FILE", help="what plan --json printed before; not anew"
    )
    inputs.add_argument(
        "--positions",
        dest="context_measured",
        type=int,
        default=512,
        metavar="N",
        help="positions that each session holds while it is measured (default: 512)",
    )
    assumed = parser.add_argument_group("assumed")
    for item in fields(Demand):
        assumed.add_argument(
            f"--{item.name.replace('_', '-')}",
            dest=f"assumed_{item.name}",
            type=type(item.default),
            metavar="TEXT" if isinstance(item.default, str) else "N",
            help=f"{item.metadata['help']} (default: {item.default})",
        )


def _add_cost(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--model",
        default="distilbert",
        help="distilbert, gpt3-small, alexatm, a pulled backbone, or a folder or config.json in "
        "Hugging Face layout (default: distilbert)",
    )
    parser.add_argument("--tokens", type=int, default=1024, help="in a sequence (default: 1024)")
    parser.add_argument("--memory", type=float, metavar="MB", help="of a device: does it fit?")
    parser.add_argument("--picture", type=Path, metavar="FILE", help="draw it as SVG")


def _add_setting(parser: argparse.ArgumentParser, name: str) -> None:
    """Add the flag of a setting. Its value is read with those of the other sources."""
    item = next(item for item in fields(Settings) if item.name == name)
    about = f"{item.metadata['help']} (default: {_shown(item.default)})"
    options: dict[str, Any] = {"default": None, "help": about}
    if isinstance(item.default, bool):
        options["action"] = "store_true"
    elif isinstance(item.default, tuple):
        options |= {"action": "append", "metavar": "NAME"}
    else:
        options["metavar"] = type(item.default).__name__.upper()
    parser.add_argument(f"--{name.replace('_', '-')}", **options)


def _shown(default: object) -> str:
    return ", ".join(default) if isinstance(default, tuple) else str(default)


COMMANDS = (
    Command(
        "pull",
        "fetch a backbone into the cache",
        "Fetches a model once, checks it, and keeps it ready to be served. An interrupted pull "
        "continues where it was; one that is in the cache already takes no time.",
        _add_pull,
        _pull,
    ),
    Command(
        "list",
        "show what has been pulled",
        "Shows the backbones in the cache.",
        _add_nothing,
        _list,
    ),
    Command(
        "serve",
        "serve a backbone",
        "Serves a pulled backbone until Ctrl-C, and compiles the kits of its recipes when they "
        "are missing. Listens to this machine alone unless told otherwise.",
        _add_serve,
        _serve,
    ),
    Command(
        "compile",
        "compile the kit of a recipe",
        "Compiles what a device needs to train a plugin by a recipe. serve does it by itself.",
        _add_compile,
        _compile,
    ),
    Command(
        "plan",
        "work out how many replicas so many devices take",
        "Measures the backbone on this machine, and works out from that and from what it is told to "
        "assume how many machines like this one, how much memory and network it takes.",
        _add_plan,
        _plan,
    ),
    Command(
        "cost",
        "work out what training costs, by each rule",
        "Counts arithmetic and memory of one training step of a whole model by backprop, with "
        "recomputation, PEPITA and MEMPEPITA: as published, and as frameworks compute.",
        _add_cost,
        _cost,
    ),
    Command(
        "federate",
        "let devices learn a shared plugin together",
        "Runs rounds of federated learning over the weights of a recipe's kit, by Flower. Devices take "
        "part with `sideplug federate join URL`. What is over is on disk after every round: started "
        "again with the same --name and plan, it goes on from there.",
        _add_federate,
        _federate,
    ),
    Command(
        "keys",
        "add, list and revoke API keys",
        "Decides who may use the service and how much. As soon as there is a key, every request "
        "needs one; a running service sees each change at once.",
        _add_keys,
        _keys,
    ),
)
"""What ``sideplug-cloud`` can do. To add one: a row."""


def _parser() -> argparse.ArgumentParser:
    shown = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(
        "sideplug-cloud",
        description=DESCRIPTION,
        epilog=EPILOG.format(file=default_file()),
        formatter_class=shown,
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    for command in COMMANDS:
        one = commands.add_parser(command.name, help=command.help, description=command.about)
        command.add(one)
        one.add_argument("--json", action="store_true", help="print the result as JSON")
        one.add_argument("--config", type=Path, help="TOML file with settings")
        one.add_argument("--cache", help=f"folder of backbones and kits (or {CACHE_VARIABLE})")
        one.set_defaults(command=command)
    return parser


if __name__ == "__main__":
    raise SystemExit(main())
