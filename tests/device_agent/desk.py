"""Commands as a person or a program gives them."""

import io
import os
import subprocess
import sys

from device_agent import cli


class Desk:
    """Commands given in a home that knows a toy cloud."""

    def __init__(self, cloud, settings, capsys, monkeypatch):
        self.cloud, self.settings = cloud, settings
        self._capsys, self._monkeypatch = capsys, monkeypatch
        for name, value in self.environ().items():
            monkeypatch.setenv(name, value)

    def environ(self):
        return {
            "SIDEPLUG_HOME": str(self.settings.home),
            "SIDEPLUG_CLOUD": self.settings.cloud,
            "SIDEPLUG_RECIPE": "small",
            "SIDEPLUG_CODEC": "f32",
            "SIDEPLUG_THREADS": "1",
        }

    def __call__(self, *words, lines=None):
        """Exit code, stdout and stderr of a command."""
        if lines is not None:
            self._monkeypatch.setattr(sys, "stdin", io.StringIO(lines))
        code = cli.main(words)
        out = self._capsys.readouterr()
        return code, out.out, out.err

    def start(self, *words, **options):
        command = [sys.executable, "-m", "device_agent", *words]
        environ = {**os.environ, **self.environ()}
        options = {"stdout": subprocess.PIPE, **options}
        return subprocess.Popen(command, env=environ, text=True, **options)


class Terminal:
    """A person at a terminal."""

    def __init__(self, desk, *words):
        import pty

        self._ours, theirs = pty.openpty()
        self.process = desk.start(*words, stdin=theirs, stdout=theirs, stderr=theirs)
        os.close(theirs)
        self.seen = ""

    def wait_for(self, text):
        """Read until ``text`` has appeared; forget all up to its end."""
        while text not in self.seen:
            self.seen += os.read(self._ours, 1000).decode()
        self.seen = self.seen.split(text, 1)[1]

    def type(self, keys):
        os.write(self._ours, keys.encode())

    def end(self):
        """Exit code."""
        try:
            return self.process.wait(timeout=20)
        finally:
            self.process.kill()
            os.close(self._ours)
