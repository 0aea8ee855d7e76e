"""A memory that is small enough to be computed by hand in float64."""

import numpy as np

from device_agent.memory.basis import Basis
from device_agent.memory.file import MemoryFile, Part, source_of, write_memory

HIDDEN, VOCABULARY = 24, 50
FINGERPRINT = "e" * 64
PREFIX = np.array([3, 1, 4], np.uint32)
SOURCE = source_of(FINGERPRINT, PREFIX)


def states_of(count, seed):
    """States like a backbone's: one channel is a hundred times as large as the rest, one is constant."""
    states = np.random.default_rng(seed).standard_normal((count, HIDDEN)).astype(np.float32)
    states[:, 5] *= 100
    states[:, 7] = 2.5
    return states


BASIS = Basis.of([states_of(200, 99)])


def name_of(number):
    """The sha256 that stands for an example."""
    return f"{number:064x}"


def part(number, rows=40):
    """What is remembered of an example; its keys come in two blocks."""
    tokens = np.random.default_rng(number).integers(0, VOCABULARY, rows).astype(np.uint32)
    codes = BASIS.codes(states_of(rows, number))
    return Part(tokens, [codes[: rows // 3], codes[rows // 3 :]])


def parts(*numbers, rows=40):
    return {name_of(number): part(number, rows) for number in numbers}


def write(path, *numbers, rows=40):
    write_memory(path, SOURCE, BASIS, parts(*numbers, rows=rows))
    return path


def opened(path):
    return MemoryFile.mapped(path, SOURCE)
