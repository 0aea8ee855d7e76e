"""The command ``sideplug``: one module a command, errors in one sentence, exit codes that mean something.

  0  done
  1  failed; stderr says why and what to do
  2  wrong usage or settings
130  stopped with Ctrl-C
"""

import argparse
import json
import os
import sys
from collections.abc import Sequence
from dataclasses import fields
from importlib import import_module
from typing import Protocol

from device_agent.errors import DeviceError
from device_agent.settings import BadSetting, Settings, load, variable
from protocol.errors import Fault

COMMANDS = (
    "up",
    "open",
    "stop",
    "token",
    "service",
    "jobs",
    "status",
    "learn",
    "questions",
    "train",
    "migrate",
    "chat",
    "run",
    "plugins",
    "memory",
    "evaluate",
    "forget",
    "egress",
    "policy",
    "export",
    "import",
    "federate",
    "bench",
    "doctor",
)
"""Modules of this package, in the order that help shows them. To add a command: a module and a name."""

OK, FAILED, USAGE, INTERRUPTED = 0, 1, 2, 130

ABOUT = """\
A language model in the cloud that becomes yours on this device.

Begin with:
  sideplug doctor                 is everything in place?
  sideplug learn notes.md         keep your texts (they stay here)
  sideplug train                  train your plugin on them
  sideplug chat                   talk to your model
  sideplug open                   all of this in your browser
  sideplug up                     serve it to other programs
"""

SETTINGS_HELP = {
    "home": "folder for everything the device keeps",
    "cloud": "address of the cloud, or several with commas (default http://127.0.0.1:8471)",
    "ca": "PEM file of the authority behind the cloud's certificate (default: the system's)",
    "recipe": "recipe of new plugins (default ladder)",
    "threads": "threads for arithmetic (default: the cores, four at most)",
    "codec": "how hidden states travel whole: f32, f16, bf16, int8 (default f16)",
    "wire_kl": "nats that smaller states may cost a new plugin; 0: whole ones (default 0.001)",
    "prefix": "tokens of your own text sent before everything the backbone reads; 0: none",
    "memory": "whether the memory of your texts takes part where it helps: on, off (default on)",
    "drafts": "tokens drafted ahead in one request and verified here: auto, off, or a number (default auto)",
    "gate": "need of a token, 0 to 1, below which the backbone says it alone; off (default off)",
    "gate_by": "what tells the need: confidence, classifier (the plugin's, sent to the cloud; default confidence)",
    "federated": "whether this device may learn together with others: on, off (default off)",
    "patience": "seconds to wait for one answer of the cloud (default 300)",
}


AGENT_SETTINGS_HELP = {
    "host": "where the agent listens (default 127.0.0.1)",
    "port": "its port; 0 takes any that is free (default 8472)",
    "train_when": "when it trains: idle (while nobody chats, the default), always",
    "train_hours": "hours of the day in which it trains, such as 22:00-07:00",
    "train_cpu": "percent of the time for which training may compute (default 100)",
    "train_memory": "megabytes that training may take (default: no limit)",
}
"""Of the commands that start the agent."""

AGENT_COMMANDS = ("up", "open", "service")


class Command(Protocol):
    """What a command module has to have."""

    NAME: str
    HELP: str
    """One line; the module's docstring is the long help."""

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        """Declare the command's own arguments."""
        ...

    def run(self, args: argparse.Namespace, settings: Settings) -> int:
        """Do it; gives the exit code."""
        ...


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; gives the exit code."""
    words = list(sys.argv[1:] if argv is None else argv)
    _use_utf8()
    # Only the command at hand is imported: the others would cost memory that a small device lacks.
    names = words[:1] if words and words[0] in COMMANDS else COMMANDS
    commands: dict[str, Command] = {name: _command(name) for name in names}
    args = _parser(commands).parse_args(words)
    try:
        flags = {field.name: getattr(args, field.name, None) for field in fields(Settings)}
        return commands[args.command].run(args, load(flags, os.environ))
    except KeyboardInterrupt:
        print("stopped", file=sys.stderr)
        return INTERRUPTED
    except BrokenPipeError:
        # The reader has gone, as `head` does; Python must not complain again when it exits.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return FAILED
    except (DeviceError, Fault) as error:
        _tell(error, args.json)
        return USAGE if isinstance(error, BadSetting) else FAILED
    except OSError as error:
        print(f"sideplug: {error}", file=sys.stderr)
        return FAILED


def print_json(data: object) -> None:
    """One JSON document on one line of stdout."""
    print(json.dumps(data, ensure_ascii=False), flush=True)


def _command(name: str) -> Command:
    module: Command = import_module(f"device_agent.cli.{name}")
    return module


def _parser(commands: dict[str, Command]) -> argparse.ArgumentParser:
    shape = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(prog="sideplug", description=ABOUT, formatter_class=shape)
    places = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for module in commands.values():
        sub = places.add_parser(
            module.NAME, help=module.HELP, description=module.__doc__, formatter_class=shape
        )
        module.add_arguments(sub)
        agent = AGENT_SETTINGS_HELP if module.NAME in AGENT_COMMANDS else {}
        told = SETTINGS_HELP | agent
        for name in getattr(module, "OWN_SETTINGS", ()):
            del told[name]
        _add_settings(sub, told)
    return parser


def _add_settings(parser: argparse.ArgumentParser, told: dict[str, str]) -> None:
    group = parser.add_argument_group(
        "settings",
        "Each has a SIDEPLUG_* variable and a line in config.toml as well. The cloud's key has only "
        "these two, SIDEPLUG_KEY and key: everybody on a machine can read command lines.",
    )
    group.add_argument("--json", action="store_true", help="print JSON for programs")
    for name, text in told.items():
        flag = f"--{name.replace('_', '-')}"
        group.add_argument(flag, metavar=name.upper(), help=f"{text} [{variable(name)}]")


def _tell(error: DeviceError | Fault, as_json: bool) -> None:
    """One sentence and the next thing to do."""
    print(f"sideplug: {error}. {error.hint}".strip(), file=sys.stderr)
    if as_json:
        print_json({"error": {"code": error.code, "message": str(error), "hint": error.hint}})


def _use_utf8() -> None:
    """Generated text has characters that some consoles' own encodings lack."""
    for stream in (sys.stdout, sys.stderr):
        reconfigure = getattr(stream, "reconfigure", None)
        if reconfigure is not None and (stream.encoding or "").lower() not in ("utf-8", "utf8"):
            reconfigure(encoding="utf-8", errors="replace")
