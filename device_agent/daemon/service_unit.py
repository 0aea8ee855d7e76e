"""The agent as a service of the system, of the person's own: systemd on Linux, launchd on macOS."""

import os
import plistlib
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from pathlib import Path

from device_agent.atomic import write_whole
from device_agent.errors import DeviceError
from device_agent.settings import Settings

LABEL = "io.sideplug.agent"

UNIT = """\
[Unit]
Description=Sideplug: your own language model on this machine
After=network-online.target

[Service]
Type=exec
ExecStart={command}
Restart=on-failure
RestartSec=5
UMask=0077
NoNewPrivileges=yes

[Install]
WantedBy=default.target
"""


class NoServices(DeviceError):
    """This system starts services in another way."""

    hint = "Have it run `sideplug up` when you log in."

    def __init__(self, platform: str) -> None:
        super().__init__(f"services can be installed under systemd and launchd, not on {platform}")


class NotInstalled(DeviceError):
    """There is no service file."""

    hint = "`sideplug service install` writes it."

    def __init__(self, path: Path) -> None:
        super().__init__(f"there is no {path}")


@dataclass(frozen=True, slots=True)
class ServiceUnit:
    """A service file, and how the system is told of it."""

    path: Path
    content: bytes
    start: Sequence[Sequence[str]]
    """Commands that start it, now and at every login."""
    stop: Sequence[Sequence[str]]
    """Commands that end it, now and for good."""

    def install(self) -> None:
        """Write the file; nothing is started."""
        write_whole(self.path, self.content)

    def uninstall(self) -> None:
        """Remove the file.

        Raises:
            NotInstalled: There is none.
        """
        try:
            self.path.unlink()
        except FileNotFoundError:
            raise NotInstalled(self.path) from None


def unit_for(settings: Settings, platform: str, user: Path) -> ServiceUnit:
    """The service of a home.

    Args:
        settings: Those that are not the defaults stand in the file, but for the key: it belongs in config.toml.
        platform: As ``sys.platform`` has it.
        user: The person's own folder.

    Raises:
        NoServices: There is neither systemd nor launchd there.
    """
    make = MAKERS.get(platform)
    if make is None:
        raise NoServices(platform)
    return make(settings, user)


def command_of(settings: Settings) -> list[str]:
    """How the agent is started with these settings."""
    command = [sys.executable, "-m", "device_agent", "up"]
    plain = Settings(home=settings.home)
    for field in fields(Settings):
        value = getattr(settings, field.name)
        if field.name == "home" or (field.repr and value != getattr(plain, field.name)):
            command += [f"--{field.name.replace('_', '-')}", str(value)]
    return command


def _systemd(settings: Settings, user: Path) -> ServiceUnit:
    name = "sideplug.service"
    words = " ".join(map(_quoted, command_of(settings)))
    control = ("systemctl", "--user")
    return ServiceUnit(
        user / ".config" / "systemd" / "user" / name,
        UNIT.format(command=words).encode(),
        ((*control, "daemon-reload"), (*control, "enable", "--now", name)),
        ((*control, "disable", "--now", name), (*control, "daemon-reload")),
    )


def _quoted(word: str) -> str:
    """A word of a command as systemd reads it, which knows escapes, specifiers and variables."""
    for plain, written in (("\\", "\\\\"), ('"', '\\"'), ("%", "%%"), ("$", "$$")):
        word = word.replace(plain, written)
    return f'"{word}"'


def _launchd(settings: Settings, user: Path) -> ServiceUnit:
    path = user / "Library" / "LaunchAgents" / f"{LABEL}.plist"
    about = {
        "Label": LABEL,
        "ProgramArguments": command_of(settings),
        "RunAtLoad": True,
        "KeepAlive": {"SuccessfulExit": False},
        "Umask": 0o077,
    }
    start = (("launchctl", "load", "-w", os.fspath(path)),)
    stop = (("launchctl", "unload", "-w", os.fspath(path)),)
    return ServiceUnit(path, plistlib.dumps(about), start, stop)


MAKERS: dict[str, Callable[[Settings, Path], ServiceUnit]] = {
    "linux": _systemd,
    "darwin": _launchd,
}
"""To add a system: a function and a row."""
