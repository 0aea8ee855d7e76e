import os

import numpy as np
import pytest

from device_agent.data.tap_cache import DamagedFeatures, TapCache
from protocol.errors import TensorMismatch
from protocol.messages import States, Wants

TAPS, ROWS, HIDDEN = (1, 4), 5, 100
IDS = np.arange(ROWS, dtype=np.uint32)


def random_states(rows=ROWS, position=0, layers=TAPS):
    rng = np.random.default_rng(0)
    shape = (len(layers), rows, HIDDEN)
    # One huge channel, as hidden states have.
    taps = rng.standard_normal(shape).astype(np.float32) * np.where(np.arange(HIDDEN) == 7, 900, 1)
    final = rng.standard_normal(shape[1:]).astype(np.float32)
    log_z = rng.standard_normal(rows).astype(np.float32)
    return States(position, layers, taps.astype(np.float32), final, log_z)


def cache_in(folder, codec="f16", fingerprint="f"):
    wants = Wants(layers=TAPS, final=True, log_z=True, candidates=0, codec=codec)
    return TapCache(folder, fingerprint, wants)


def read(cache, rows=slice(None), first=0):
    with cache.get(IDS, first) as features:
        return features.states(TAPS, rows)


def largest_block(array):
    """The largest magnitude in each number's block of 64, same shape."""
    out = np.empty_like(array)
    for start in range(0, HIDDEN, 64):
        part = array[..., start : start + 64]
        out[..., start : start + 64] = np.abs(part).max(-1, keepdims=True)
    return out


@pytest.mark.parametrize("codec", ["f32", "f16", "bf16", "int8"])
def test_what_is_put_in_comes_out_as_close_as_promised(tmp_path, codec):
    cache, states = cache_in(tmp_path, codec), random_states()
    cache.put(IDS, states)
    back = read(cache)
    for ours, theirs in ((back.taps, states.taps), (back.final, states.final)):
        bound = largest_block(theirs) / 254 if codec == "int8" else np.abs(theirs) / 2048
        assert (np.abs(ours - theirs) <= bound * 1.001 + 1e-7).all()
    assert (back.log_z == states.log_z).all()
    assert back.layers == TAPS


@pytest.mark.parametrize("codec", ["f16", "int8"])
@pytest.mark.parametrize("rows", [slice(1, 4), np.array([0, 3, 4])])
def test_some_rows_are_those_of_the_whole(tmp_path, codec, rows):
    cache = cache_in(tmp_path, codec)
    cache.put(IDS, random_states())
    part, whole = read(cache, rows), read(cache)
    assert (part.taps == whole.taps[:, rows]).all()
    assert (part.final == whole.final[rows]).all()
    assert (part.log_z == whole.log_z[rows]).all()


def test_rows_before_the_first_that_counts_are_not_kept(tmp_path):
    cache = cache_in(tmp_path)
    cache.put(IDS, random_states(), first=2)
    cache.put(IDS, random_states())
    assert (read(cache, first=2).taps == read(cache, slice(2, None)).taps).all()


def test_states_may_begin_where_they_are_needed(tmp_path):
    cache = cache_in(tmp_path)
    cache.put(IDS, random_states(rows=3, position=2), first=2)
    assert cache.get(IDS) is None
    assert read(cache, first=2).taps.shape[1] == 3


@pytest.mark.parametrize(
    "states",
    [
        random_states(rows=4),
        random_states(rows=6),
        random_states(rows=2, position=3),
        random_states(layers=(1, 3)),
    ],
)
def test_states_of_something_else_are_refused(tmp_path, states):
    cache = cache_in(tmp_path)
    with pytest.raises(TensorMismatch):
        cache.put(IDS, states)
    assert not cache.holds(IDS)


def test_features_depend_on_ids_backbone_taps_and_codec(tmp_path):
    cache_in(tmp_path).put(IDS, random_states())
    assert cache_in(tmp_path).holds(IDS)
    assert not cache_in(tmp_path).holds(IDS[::-1].copy())
    assert not cache_in(tmp_path).holds(IDS, first=1)
    assert not cache_in(tmp_path, "int8").holds(IDS)
    assert not cache_in(tmp_path, fingerprint="g").holds(IDS)
    assert cache_in(tmp_path, "f32").holds(IDS), "what came as f32 is kept as f16 as well"


@pytest.mark.parametrize("place", [0, 4, 5, 8, 16, 30, 52, 400, -1])
def test_a_byte_that_changed_is_found_and_the_file_thrown_away(tmp_path, place):
    cache = cache_in(tmp_path)
    cache.put(IDS, random_states())
    path = cache.path(IDS)
    data = bytearray(path.read_bytes())
    data[place] ^= 0xFF
    path.write_bytes(data)
    assert not cache.holds(IDS)
    assert not path.exists()


@pytest.mark.parametrize("size", [0, 3, 51, 52, 500])
def test_a_file_that_was_cut_is_found(tmp_path, size):
    cache = cache_in(tmp_path)
    cache.put(IDS, random_states())
    path = cache.path(IDS)
    path.write_bytes(path.read_bytes()[:size])
    with pytest.raises(DamagedFeatures):
        cache.get(IDS)
    assert not cache.holds(IDS)


def test_a_file_under_another_name_is_found(tmp_path):
    cache = cache_in(tmp_path)
    cache.put(IDS, random_states())
    other = IDS[::-1].copy()
    cache.path(other).parent.mkdir(exist_ok=True, parents=True)
    cache.path(IDS).rename(cache.path(other))
    assert not cache.holds(other)


def test_what_is_not_there_is_none(tmp_path):
    assert cache_in(tmp_path).get(IDS) is None
    assert not cache_in(tmp_path).holds(IDS)


def test_what_nobody_used_for_long_is_swept_away(tmp_path):
    cache, other = cache_in(tmp_path), IDS[::-1].copy()
    for ids in (IDS, other):
        cache.put(ids, random_states())
        os.utime(cache.path(ids), (1000, 1000))
    assert cache.sweep(before=1000) == 0
    assert cache.holds(IDS), "asked for, and so used again"
    assert cache.sweep(before=1001) == 1
    assert cache.holds(IDS)
    assert not cache.holds(other)
