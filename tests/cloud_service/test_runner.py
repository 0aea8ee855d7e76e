import threading
import time

import numpy as np
import pytest

from cloud_service.backbones.base import Span
from cloud_service.backbones.causal import CausalBackbone
from cloud_service.backbones.loading import load_model
from cloud_service.backbones.pages import PAGE, Cache
from cloud_service.errors import BackboneRefused
from cloud_service.metrics import Metrics
from cloud_service.reading import Dropped, Reading, Waiter
from cloud_service.runner import Runner, State
from protocol.errors import Loading, Overloaded
from tests.cloud_service.reading import KV_BYTES, alone, loaded
from tests.cloud_service.running import EVERYTHING, FINAL, ids_of


class Passes:
    """A backbone that notes each pass, and waits within one until it is let go."""

    def __init__(self, backbone):
        self._backbone = backbone
        self.facts, self.pool = backbone.facts, backbone.pool
        self.seen: list[list[Span]] = []
        self.begun, self.go = threading.Event(), threading.Event()
        self.go.set()
        self.spoiled: Cache | None = None
        """Whoever reads behind this fails, from ``spoiled_from`` on."""
        self.spoiled_from = 0

    def read(self, spans):
        self.seen.append(list(spans))
        self.begun.set()
        assert self.go.wait(10)
        for span in spans:
            if span.cache is self.spoiled and span.cache.position >= self.spoiled_from:
                raise ZeroDivisionError
        return self._backbone.read(spans)

    def hold(self):
        self.begun.clear()
        self.go.clear()

    @property
    def sizes(self):
        return [[len(span.ids) for span in spans] for spans in self.seen]


@pytest.fixture
def passes(pulled_of):
    pulled = pulled_of("llama")
    model = load_model(pulled.folder, "f32")
    return Passes(CausalBackbone(model, pulled.record.facts(), kv_bytes=KV_BYTES))


@pytest.fixture
def runner(passes):
    made = loaded(passes)
    yield made
    passes.go.set()
    made.stop()


def reading(passes, count=3, wanted=1, purpose="step", waiter=None, wants=FINAL, seed=0):
    ids = ids_of(count, seed)
    return Reading(waiter or Waiter("one"), purpose, Cache(passes.pool), ids, wanted, wants)


def submitted(runner, passes, *readings):
    """Let readings wait until a first one, which is held within a pass, has been read."""
    passes.hold()
    runner.submit(reading(passes))
    passes.begun.wait(10)
    for each in readings:
        runner.submit(each)
    passes.go.set()
    return readings


def same(states, expected):
    np.testing.assert_allclose(states.taps, expected.taps, atol=1e-4)
    np.testing.assert_allclose(states.final, expected.final, atol=1e-4)
    np.testing.assert_allclose(states.log_z, expected.log_z, atol=1e-4)
    np.testing.assert_array_equal(states.candidates.ids, expected.candidates.ids)


def test_what_waits_goes_into_one_pass_and_is_answered_as_each_alone(runner, passes):
    several = [reading(passes, n, n, wants=EVERYTHING, seed=n) for n in (1, 2, 9, 16)]
    submitted(runner, passes, *several)
    for each in several:
        same(each.future.result(10), alone(passes._backbone, each.ids, each.wanted, EVERYTHING))
    assert passes.sizes[:2] == [[3], [1, 2, 9, 16]]


def test_a_long_reading_comes_in_chunks_and_is_answered_in_one(runner, passes):
    long = reading(passes, 200, 150, wants=EVERYTHING)
    submitted(runner, passes, long, *(reading(passes, 1) for _ in range(3)))
    same(long.future.result(10), alone(passes._backbone, long.ids, 150, EVERYTHING))
    assert len([sizes for sizes in passes.sizes if max(sizes) > 3]) > 1


def test_all_passes_run_in_one_thread(runner, passes):
    threads = set()

    def note(*_):
        threads.add(threading.get_ident())

    passes._backbone.model.base_model.register_forward_hook(note)
    for _ in range(3):
        each = reading(passes)
        runner.submit(each)
        each.future.result(10)
    assert len(threads) == 1
    assert threading.get_ident() not in threads


def test_features_are_read_when_no_step_waits_and_then_forgotten(runner, passes):
    texts = [reading(passes, 20, 20, "features", seed=n) for n in range(3)]
    step = reading(passes, 2)
    submitted(runner, passes, *texts, step)
    for text in texts:
        assert len(text.future.result(10).final) == 20
        assert text.cache.capacity == 0
    assert step.cache.position == 2
    assert passes.sizes[1] == [2]
    assert sum(map(sum, passes.sizes[2:])) == 60


def test_an_error_reaches_whoever_asked_and_nobody_else(runner, passes):
    good, bad, other = (reading(passes, 4) for _ in range(3))
    passes.spoiled = bad.cache
    submitted(runner, passes, good, bad, other)
    with pytest.raises(ZeroDivisionError):
        bad.future.result(10)
    assert good.future.result(10) is not None
    assert other.future.result(10) is not None
    assert (bad.cache.position, good.cache.position) == (0, 4)


def test_a_chunk_that_fails_leaves_the_cache_as_before_the_first(runner, passes):
    long = reading(passes, 200, 1)
    passes.spoiled, passes.spoiled_from = long.cache, 1
    submitted(runner, passes, long, reading(passes, 1))
    with pytest.raises(ZeroDivisionError):
        long.future.result(10)
    assert long.done > 0
    assert (long.cache.position, long.cache.capacity) == (0, 0)


def test_without_memory_for_all_those_are_read_for_whom_there_is(pulled_of):
    pulled = pulled_of("llama")
    page = 4 * 2 * PAGE * 2 * 16 * 4
    model = load_model(pulled.folder, "f32")
    passes = Passes(CausalBackbone(model, pulled.record.facts(), kv_bytes=3 * page))
    runner = loaded(passes)
    several = submitted(runner, passes, *(reading(passes, 5) for _ in range(4)))
    ended = [each.future.exception(10) for each in several]
    runner.stop()
    assert [type(error) for error in ended] == [type(None)] * 2 + [Overloaded] * 2


def test_a_reading_whose_waiter_is_gone_is_dropped(runner, passes):
    waiter = Waiter("one")
    gone, long = reading(passes, 4, waiter=waiter), reading(passes, 200, waiter=waiter)
    passes.hold()
    runner.submit(reading(passes))
    passes.begun.wait(10)
    for each in (gone, long):
        runner.submit(each)
    waiter.gone = True
    passes.go.set()
    for each in (gone, long):
        with pytest.raises(Dropped):
            each.future.result(10)
        assert each.cache.capacity == 0
    assert passes.sizes == [[3]]


def test_a_future_that_was_cancelled_disturbs_nobody(runner, passes):
    cancelled, failed, other = (reading(passes, 4) for _ in range(3))
    for each in (cancelled, failed):
        each.future.cancel()
    passes.spoiled = failed.cache
    submitted(runner, passes, cancelled, failed, other)
    assert other.future.result(10) is not None
    assert (cancelled.cache.position, failed.cache.position) == (4, 0)


def test_more_than_the_queue_holds_is_turned_away(passes):
    runner = loaded(passes, queue=3)
    waiting = submitted(runner, passes, reading(passes), reading(passes))
    for each in waiting:
        each.future.result(10)
    passes.hold()
    for _ in range(3):
        runner.submit(reading(passes))
    assert runner.full
    with pytest.raises(Overloaded):
        runner.submit(reading(passes))
    passes.go.set()
    runner.stop()


def test_passes_are_counted(passes):
    metrics, ready = Metrics(), threading.Event()
    runner = Runner(lambda: passes, metrics, threads=1, queue=9)
    runner.on_loaded = ready.set
    runner.start()
    assert ready.wait(10)
    several = [reading(passes, 5), reading(passes, 7), reading(passes, 9, purpose="features")]
    for each in submitted(runner, passes, *several):
        each.future.result(10)
    runner.stop()
    shown = metrics.text().decode()
    assert "sideplug_pass_seconds_count 3.0" in shown
    assert "sideplug_pass_sessions_sum 4.0" in shown
    assert "sideplug_pass_tokens_sum 24.0" in shown
    assert 'sideplug_tokens_total{purpose="step"} 15.0' in shown
    assert 'sideplug_tokens_total{purpose="features"} 9.0' in shown
    assert "sideplug_queue_seconds_count 4.0" in shown


def test_until_the_backbone_is_loaded_everybody_is_told_to_wait(llama):
    go = threading.Event()

    def load():
        go.wait(10)
        return llama

    runner = Runner(load, Metrics(), threads=1, queue=1)
    runner.start()
    for ask in (runner.require_ready, lambda: runner.submit(reading(llama))):
        with pytest.raises(Loading):
            ask()
    go.set()
    while runner.state is State.LOADING:
        time.sleep(0.01)
    assert runner.require_ready() is llama
    runner.stop()


def test_a_backbone_that_cannot_be_loaded_is_reported(caplog):
    def load():
        raise MemoryError("too large")

    runner, told = Runner(load, Metrics(), threads=1, queue=1), threading.Event()
    runner.on_loaded = told.set
    runner.start()
    assert told.wait(10)
    assert runner.state is State.FAILED
    assert str(runner.error) == "too large"
    assert "could not be loaded" in caplog.text
    with pytest.raises(Loading):
        runner.require_ready()
    runner.stop()


def test_a_backbone_that_is_refused_is_reported_without_a_stack(caplog):
    def load():
        raise BackboneRefused("it is quantised")

    runner, told = Runner(load, Metrics(), threads=1, queue=1), threading.Event()
    runner.on_loaded = told.set
    runner.start()
    assert told.wait(10)
    assert "it is quantised" in caplog.text
    assert "Traceback" not in caplog.text
    runner.stop()


def test_stopping_finishes_the_pass_at_hand_and_refuses_the_others(passes):
    runner = loaded(passes)
    passes.hold()
    first = reading(passes)
    runner.submit(first)
    passes.begun.wait(10)
    second = reading(passes)
    runner.submit(second)
    stopping = threading.Thread(target=runner.stop)
    stopping.start()
    while runner.state is State.READY:
        time.sleep(0.001)
    passes.go.set()
    stopping.join(10)
    assert first.future.result(10) is not None
    with pytest.raises(Loading):
        second.future.result(10)
    with pytest.raises(Loading):
        runner.submit(reading(passes))


def test_a_runner_that_never_started_can_be_stopped(llama):
    Runner(lambda: llama, Metrics(), threads=1, queue=1).stop()


def test_stopping_while_loading_ends_when_loading_does(llama):
    go = threading.Event()

    def load():
        go.wait(10)
        return llama

    runner = Runner(load, Metrics(), threads=1, queue=1)
    runner.start()
    threading.Timer(0.05, go.set).start()
    runner.stop()
    assert runner.state is State.STOPPED
