"""Training jobs that wait for the agent: what can be asked of them. The store alone decides; the agent follows it."""

from collections.abc import Mapping
from dataclasses import asdict, fields

from device_agent.data.store import OPEN, Job, JobState, Store
from device_agent.errors import DeviceError
from device_agent.settings import BadSetting
from device_agent.training.options import TrainingOptions

CURVES = ("curve", "held_out")
"""Of a job's progress, what is long."""


class NoSuchJob(DeviceError):
    """There is no training job of that number."""

    hint = "`sideplug jobs list` shows the jobs that there are."

    def __init__(self, number: int) -> None:
        super().__init__(f"there is no job {number}")


class NotNow(DeviceError):
    """The job is in a state in which this cannot be done with it."""

    hint = "`sideplug jobs list` shows the states of all jobs."

    def __init__(self, job: Job, action: str) -> None:
        super().__init__(f"job {job.id} is {job.state}, so there is nothing to {action}")


ACTIONS: dict[str, tuple[tuple[JobState, ...], JobState]] = {
    "pause": (("queued", "running"), "paused"),
    "resume": (("paused",), "queued"),
    "cancel": (OPEN, "cancelled"),
}
"""What can be done with a job: out of which states, and into which one."""


def queue(store: Store, recipe: str, options: Mapping[str, object]) -> Job:
    """Have the agent train, as soon as its policy lets it.

    Args:
        store: Of the home.
        recipe: What is trained.
        options: Training options by name; what is missing is the kit's.

    Raises:
        BadSetting: An option is unknown, or no number.
    """
    known = {field.name for field in fields(TrainingOptions)} - {"threads"}
    for name, value in options.items():
        if name not in known:
            raise BadSetting(name, f"is unknown; known are {', '.join(sorted(known))}")
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise BadSetting(name, f"must be a number, but is {value!r}")
    return find(store, store.queue_job(recipe, options))


def anew(store: Store, recipe: str) -> int | None:
    """Have the agent train on what is left; gives the job's number, None when there is nothing left.

    A job that waits already will do.
    """
    if not any(store.count_examples().values()):
        return None
    waiting = store.next_job()
    return waiting.id if waiting is not None else store.queue_job(recipe, {})


def act(store: Store, number: int, action: str) -> Job:
    """Pause, resume or cancel a job.

    Raises:
        NoSuchJob: There is none of that number.
        NotNow: Its state does not allow it, or a person runs it in a terminal.
    """
    job = find(store, number)
    before, state = ACTIONS[action]
    if job.options is None or not store.move_job(number, before, state):
        raise NotNow(find(store, number), action)
    return find(store, number)


def find(store: Store, number: int) -> Job:
    """The job of that number.

    Raises:
        NoSuchJob: There is none.
    """
    job = store.job(number)
    if job is None:
        raise NoSuchJob(number)
    return job


def told(job: Job, curves: bool = False) -> dict[str, object]:
    """A job as JSON has it; the curves of its losses only when they are asked for, as they are long."""
    progress = {name: v for name, v in job.progress.items() if curves or name not in CURVES}
    return {**asdict(job), "progress": progress, "object": "job"}
