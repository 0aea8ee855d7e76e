"""When the agent's training may go on, and how its process obeys."""

from datetime import time
from pathlib import Path
from threading import Thread

import pytest

from device_agent.daemon.job_process import Obedient, passes
from device_agent.daemon.policy import IDLE_SECONDS, Leave, leave, within
from device_agent.plugins import NothingBefore
from device_agent.settings import BadSetting, Settings
from device_agent.training.lock import AlreadyTraining
from protocol.errors import Loading, UnknownCodec

HOME = Path("/nowhere")
NOON = time(12)


@pytest.mark.parametrize(
    ("hours", "now", "inside"),
    [
        ("", NOON, True),
        ("09:00-17:00", time(9), True),
        ("09:00-17:00", time(17), False),
        ("22:00-07:00", time(23, 30), True),
        ("22:00-07:00", time(6, 59), True),
        ("22:00-07:00", NOON, False),
    ],
)
def test_hours_may_pass_midnight(hours, now, inside):
    assert within(hours, now) is inside


@pytest.mark.parametrize(
    ("changed", "quiet", "may"),
    [
        ({}, IDLE_SECONDS, Leave.GO),
        ({}, 0.0, Leave.HOLD),
        ({"train_when": "always"}, 0.0, Leave.GO),
        ({"train_hours": "13:00-14:00"}, 1e6, Leave.END),
    ],
)
def test_training_goes_on_when_the_settings_and_the_silence_allow_it(changed, quiet, may):
    assert leave(Settings(home=HOME, **changed), quiet, NOON) is may


@pytest.mark.parametrize("hours", ["22", "22:00", "25:00-26:00", "22:00-07:00-08:00"])
def test_hours_that_are_none_are_refused(hours):
    with pytest.raises(BadSetting, match="train_hours"):
        Settings(home=HOME, train_hours=hours)


def test_who_is_told_to_hold_goes_on_when_told_so_and_not_before():
    obedient, went = Obedient(1.0, 0), []
    obedient.obey(['"hold"\n'])
    step = Thread(target=lambda: went.append(obedient.stop()))
    step.start()
    step.join(0.2)
    assert went == [], "it holds"
    obedient.obey(['"go"\n'])
    step.join(10)
    assert went == [False], "and it never stops the run itself"


def test_what_may_pass_is_told_from_what_will_not():
    assert passes(AlreadyTraining(HOME))
    assert passes(Loading())
    assert not passes(NothingBefore())
    assert not passes(UnknownCodec(codec="x"))
