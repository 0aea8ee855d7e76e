import subprocess
import sys
import time

import psutil
import pytest

from benchmarks.errors import ProcessFailed
from benchmarks.processes import last_object, measured, running

MEGABYTE = 2**20
PYTHON = (sys.executable, "-c")


def test_a_peak_is_the_commands_own_and_not_its_parents():
    large = bytearray(b"x" * (300 * MEGABYTE))
    small = measured([*PYTHON, "print('{}')"]).peak_bytes
    del large
    held = measured([*PYTHON, f"x = b'x' * {100 * MEGABYTE}; print('{{}}')"]).peak_bytes
    assert small < 60 * MEGABYTE
    assert 100 * MEGABYTE < held < 160 * MEGABYTE


def test_cpu_seconds_are_those_of_work_and_not_of_waiting():
    code = "import time; time.sleep(0.3)\nwhile time.process_time() < 0.3: pass"
    done = measured([*PYTHON, code])
    assert 0.3 <= done.cpu_seconds < 0.6
    assert done.seconds > 0.55


def test_an_answer_is_the_last_object_printed():
    code = "print('learning'); print('{\"version\": 1}')"
    assert measured([*PYTHON, code]).answer == {"version": 1}


@pytest.mark.parametrize("output", ['{"a": {"b": 1}}', 'words\n{\n "a": {\n  "b": 1\n }\n}\n'])
def test_an_object_may_be_spread_over_lines(output):
    assert last_object(output) == {"a": {"b": 1}}


@pytest.mark.parametrize("output", ["", "words", "[1]", '{"a": ', "3"])
def test_output_without_an_object_is_told(output):
    with pytest.raises(ProcessFailed, match="expected a JSON object"):
        last_object(output)


def test_a_failing_command_is_told_with_its_code():
    with pytest.raises(ProcessFailed, match="ended with code 7"):
        measured([*PYTHON, "raise SystemExit(7)"])


def test_a_command_of_ours_finds_this_source_tree(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    measured([*PYTHON, "import benchmarks, protocol"])


PARENT = (
    "import subprocess, sys;"
    "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)']);"
    "print(child.pid, flush=True); child.wait()"
)


def test_nothing_outlives_the_block_however_it_is_left():
    seen = []

    def interrupted():
        with running([*PYTHON, PARENT], stdout=subprocess.PIPE, text=True) as process:
            seen.extend([process, int(process.stdout.readline())])
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    process, child = seen
    assert process.returncode is not None
    deadline = time.monotonic() + 5
    while psutil.pid_exists(child) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert not psutil.pid_exists(child)


def test_a_command_that_will_not_end_is_killed(monkeypatch):
    monkeypatch.setattr("benchmarks.processes.PATIENCE", 0.2)
    code = (
        "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN);"
        "print('deaf', flush=True); time.sleep(60)"
    )
    with running([*PYTHON, code], stdout=subprocess.PIPE, text=True) as process:
        process.stdout.readline()
    assert process.returncode not in (None, 0)
