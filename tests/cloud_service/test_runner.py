import threading
import time

import pytest

from cloud_service.errors import BackboneRefused
from cloud_service.metrics import Metrics
from cloud_service.runner import Priority, Runner, State
from protocol.errors import Loading, Overloaded


class Held:
    """A job that runs until it is let go."""

    def __init__(self):
        self.begun, self.go = threading.Event(), threading.Event()

    def __call__(self, _backbone):
        self.begun.set()
        assert self.go.wait(10)
        return "held"


def loaded(backbone, queue=10):
    runner = Runner(lambda: backbone, Metrics(), threads=1, queue=queue)
    ready = threading.Event()
    runner.on_loaded = ready.set
    runner.start()
    assert ready.wait(10)
    return runner


@pytest.fixture
def runner(llama):
    made = loaded(llama)
    yield made
    made.stop()


def test_a_job_gets_the_backbone_and_gives_its_result_back(runner, llama):
    assert runner.submit(Priority.STEP, lambda backbone: backbone).result(10) is llama


def test_all_jobs_run_in_one_thread(runner):
    threads = {
        runner.submit(Priority.STEP, lambda _: threading.get_ident()).result(10) for _ in range(5)
    }
    assert len(threads) == 1
    assert threading.get_ident() not in threads


def test_steps_go_before_features_and_each_in_their_order(runner):
    held, order = Held(), []
    first = runner.submit(Priority.FEATURES, held)
    held.begun.wait(10)
    futures = [
        runner.submit(priority, lambda _, name=name: order.append(name))
        for priority, name in [
            (Priority.FEATURES, "features 1"),
            (Priority.STEP, "step 1"),
            (Priority.FEATURES, "features 2"),
            (Priority.STEP, "step 2"),
        ]
    ]
    held.go.set()
    for future in [first, *futures]:
        future.result(10)
    assert order == ["step 1", "step 2", "features 1", "features 2"]


def test_an_error_reaches_whoever_asked_and_nobody_else(runner):
    def fail(_):
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        runner.submit(Priority.STEP, fail).result(10)
    assert runner.submit(Priority.STEP, lambda _: "well").result(10) == "well"


def test_a_job_that_was_cancelled_while_it_waited_is_not_run(runner):
    held, ran = Held(), []
    runner.submit(Priority.STEP, held)
    held.begun.wait(10)
    cancelled = runner.submit(Priority.STEP, lambda _: ran.append("cancelled"))
    assert cancelled.cancel()
    last = runner.submit(Priority.STEP, lambda _: ran.append("last"))
    held.go.set()
    last.result(10)
    assert ran == ["last"]


def test_more_than_the_queue_holds_is_turned_away(llama):
    runner, held = loaded(llama, queue=2), Held()
    runner.submit(Priority.STEP, held)
    held.begun.wait(10)
    waiting = [runner.submit(Priority.STEP, lambda _: None) for _ in range(2)]
    assert runner.full
    with pytest.raises(Overloaded):
        runner.submit(Priority.STEP, lambda _: None)
    held.go.set()
    for future in waiting:
        future.result(10)
    assert not runner.full
    runner.stop()


def test_nothing_is_taken_before_the_backbone_is_there(llama):
    go = threading.Event()

    def load():
        go.wait(10)
        return llama

    runner = Runner(load, Metrics(), threads=1, queue=1)
    runner.start()
    for ask in (runner.require_ready, lambda: runner.submit(Priority.STEP, lambda _: None)):
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


def test_stopping_finishes_the_job_at_hand_and_refuses_the_others(llama):
    runner, held = loaded(llama), Held()
    first = runner.submit(Priority.STEP, held)
    held.begun.wait(10)
    second = runner.submit(Priority.STEP, lambda _: None)
    third = runner.submit(Priority.STEP, lambda _: None)
    third.cancel()
    stopping = threading.Thread(target=runner.stop)
    stopping.start()
    with pytest.raises(Loading):
        second.result(10)
    held.go.set()
    stopping.join(10)
    assert first.result(10) == "held"
    with pytest.raises(Loading):
        runner.submit(Priority.STEP, lambda _: None)


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
