import json
import os
import subprocess
import sys

import numpy
import pytest

from benchmarks.machine import library_versions, machine_facts, revision, usable_cores


def test_facts_are_those_of_this_machine():
    facts = machine_facts()
    assert facts["cores"] == os.cpu_count()
    assert facts["memory_bytes"] > 2**28
    assert facts["cpu"]
    assert facts["python"] == ".".join(map(str, sys.version_info[:3]))
    assert json.loads(json.dumps(facts)) == facts


@pytest.mark.skipif(not os.path.exists("/proc/cpuinfo"), reason="flags are read on Linux alone")
def test_telling_flags_are_whole_words_of_cpuinfo():
    with open("/proc/cpuinfo", encoding="utf-8") as file:
        known = set(file.read().split())
    assert set(machine_facts()["flags"]) <= known


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="needs processor masks")
def test_cores_out_of_reach_are_not_counted():
    code = (
        "import os; os.sched_setaffinity(0, {min(os.sched_getaffinity(0))});"
        "from benchmarks.machine import usable_cores; print(usable_cores())"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "1"
    assert usable_cores() >= 1


def test_versions_are_the_installed_ones():
    assert library_versions()["numpy"] == numpy.__version__


def test_the_revision_is_a_commit_or_nothing():
    found = revision()
    assert found is None or len(found.removesuffix("+changes")) == 40
