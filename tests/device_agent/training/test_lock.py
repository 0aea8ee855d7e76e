import subprocess
import sys

import pytest

from device_agent.training.lock import AlreadyTraining, training_lock

HOLDING = """
import sys, time
from pathlib import Path
from device_agent.training.lock import training_lock
with training_lock(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""


def test_one_process_trains_at_a_time(tmp_path):
    with (
        training_lock(tmp_path / "home"),
        pytest.raises(AlreadyTraining),
        training_lock(tmp_path / "home"),
    ):
        pass
    with training_lock(tmp_path / "home"):
        pass


def test_who_dies_gives_the_lock_back(tmp_path):
    command = [sys.executable, "-c", HOLDING, str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(AlreadyTraining), training_lock(tmp_path):
            pass
        holder.kill()
        holder.wait()
    with training_lock(tmp_path):
        pass
