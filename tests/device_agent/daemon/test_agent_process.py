"""The agent as a process: one for each home, found, stopped, killed; and training that it looks after."""

import itertools
import json
import signal
import socket
import stat
import subprocess
import sys
import time

import openai
import pytest

from device_agent.daemon import jobs
from device_agent.daemon.instance import LOCK, RECORD, TOKEN, find_instance
from device_agent.daemon.serve import DidNotStart, detach
from device_agent.data.examples import Example
from device_agent.data.store import Store
from device_agent.file_lock import is_held
from device_agent.plugins import PluginStore
from device_agent.settings import Settings
from device_agent.training.lock import is_training, training_lock
from protocol.errors import InternalFault
from tests.device_agent.home import add_plugin, toy_home
from tests.device_agent.serving import served, start
from tests.device_agent.teaching import ALPHABET, teaching_home

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="signals work differently there")


@pytest.fixture
def alone(tmp_path):
    """A home whose cloud is away."""
    return Settings(home=tmp_path / "home", cloud="http://127.0.0.1:9", threads=1, patience=5)


def told(settings, *words, code=0):
    process = start(settings, *words, "--json")
    out, err = process.communicate(timeout=60)
    assert process.returncode == code, err
    return json.loads(out)


def test_ctrl_c_ends_it_cleanly(alone):
    with served(alone) as agent:
        agent.process.send_signal(signal.SIGINT)
        _, err = agent.process.communicate(timeout=30)
    assert (agent.process.returncode, err) == (130, "stopped\n")
    assert not (alone.home / RECORD).exists()
    assert not is_held(alone.home / LOCK)


@pytest.mark.parametrize(
    ("module", "unused"),
    [
        ("device_agent.daemon.serve", ("onnxruntime", "tokenizers", "safetensors", "rich")),
        ("device_agent.daemon.job_process", ("onnxruntime", "tokenizers", "starlette", "rich")),
    ],
)
def test_its_processes_begin_with_what_they_need_alone(module, unused):
    script = f"import sys, {module}; print([m for m in {unused!r} if m in sys.modules])"
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    assert done.stdout == "[]\n"


def test_there_is_one_for_each_home(alone, tmp_path):
    with served(alone) as agent:
        second = told(alone, "up", "--port", "0", code=1)
        assert second["error"]["code"] == "AlreadyUp"
        assert told(alone, "status")["agent"]["url"] == agent.url
        with served(alone, home=tmp_path / "other") as other:
            assert other.url != agent.url


def test_stop_ends_it_and_without_one_says_so(alone):
    with served(alone) as agent:
        assert told(alone, "stop")["url"] == agent.url
        assert agent.process.wait(timeout=30) == 0
    assert told(alone, "stop", code=1)["error"]["code"] == "NotUp"
    assert told(alone, "status")["agent"] is None


def test_one_that_was_killed_is_not_up_and_leaves_room_for_the_next(alone):
    with served(alone) as agent:
        agent.process.kill()
        agent.process.wait()
        assert (alone.home / RECORD).exists()
        assert find_instance(alone.home) is None
        with served(alone) as another:
            assert find_instance(alone.home).url == another.url


def test_in_the_background_it_outlives_the_command(alone):
    settings = Settings(**{name: getattr(alone, name) for name in ("home", "cloud")}, port=0)
    found = told(settings, "up", "--detach")
    instance = find_instance(settings.home)
    assert instance.url == found["url"]
    assert told(settings, "stop")["pid"] == instance.pid


def test_one_that_cannot_start_in_the_background_says_why(alone):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        settings = Settings(home=alone.home, port=taken.getsockname()[1])
        with pytest.raises(DidNotStart, match="cannot be listened on"):
            detach(settings)


def test_the_token_is_the_owners_alone_and_stays(alone):
    token = told(alone, "token")["token"]
    assert len(token) >= 40
    assert stat.S_IMODE((alone.home / TOKEN).stat().st_mode) == 0o600
    assert told(alone, "token")["token"] == token


@pytest.mark.parametrize("stream", [True, False])
def test_without_the_cloud_it_is_told_in_the_way_of_openai(alone, stream):
    with (
        served(alone) as agent,
        openai.OpenAI(base_url=f"{agent.url}/v1", api_key=agent.token, max_retries=0) as client,
    ):
        turns = [{"role": "user", "content": "a"}]
        with pytest.raises(openai.InternalServerError) as caught:
            client.chat.completions.create(model="base", messages=turns, stream=stream)
    assert caught.value.status_code == 503
    assert caught.value.code == "cloud_unreachable"
    assert "127.0.0.1:9" in caught.value.message


def test_what_goes_wrong_in_mid_answer_is_told_within_the_stream(tmp_path):
    with toy_home(tmp_path, limit=50_000) as (cloud, settings):
        add_plugin(settings, cloud.manifest, token=20)
        step, steps = cloud.backbone._step, itertools.count()

        def failing(*args):
            if next(steps) == 5:
                raise InternalFault(request="r1")
            return step(*args)

        cloud.backbone._step = failing
        with served(settings, drafts="off") as agent, agent.http() as http:
            body = {"model": "me", "prompt": "c", "max_tokens": 40, "stream": True}
            answer = http.post("/v1/completions", json={**body, "temperature": 0})
    events = [line for line in answer.text.split("\n\n") if line]
    assert answer.status_code == 200, "the first words were out already"
    error = json.loads(events[-1].removeprefix("data: "))["error"]
    assert (error["type"], error["code"]) == ("server_error", "internal_fault")
    assert len(events) == 6


def test_when_it_ends_its_sessions_at_the_cloud_end_too(tmp_path):
    with toy_home(tmp_path) as (cloud, settings):
        with served(settings) as agent, agent.http() as http:
            body = {"model": "base", "prompt": "c", "max_tokens": 2}
            assert http.post("/v1/completions", json=body).status_code == 200
            assert cloud.backbone.sessions
        assert not cloud.backbone.sessions


# --- training ---


@pytest.fixture
def school(tmp_path):
    """A home with something to learn, and a cloud that teaches it."""
    with teaching_home(tmp_path) as (cloud, settings):
        with Store(settings.home / "store.sqlite") as store:
            store.add_examples([Example(text=ALPHABET)], "test")
        yield cloud, settings


LONG = {"epochs": 100_000, "patience": 0}
"""Of a run that nobody waits for."""


def wait_for(ask, wanted):
    """Ask again and again until the answer is one of those that are wanted."""
    while (found := ask()) not in wanted:
        time.sleep(0.05)
    return found


def state_of(http, number):
    return http.get(f"/v1/jobs/{number}").json()["state"]


def steps_of(http, number):
    return http.get(f"/v1/jobs/{number}").json()["progress"].get("step", 0)


def add_job(http, **options):
    answer = http.post("/v1/jobs", json={"options": options})
    assert answer.status_code == 201, answer.text
    return answer.json()["id"]


def test_a_job_trains_in_the_background_and_the_plugin_speaks(school):
    _, settings = school
    with served(settings, train_when="always") as agent, agent.http() as http:
        number = add_job(http, epochs=2)
        assert wait_for(lambda: state_of(http, number), ("done", "failed")) == "done"
        job = http.get(f"/v1/jobs/{number}").json()
        assert job["progress"]["step"] == job["progress"]["steps"]
        assert http.get("/v1/plugins").json()["current"] == "1"
        assert http.get("/v1/models/me").json()["plugin"] == "1"


def test_a_job_is_paused_goes_on_and_is_cancelled(school):
    _, settings = school
    with served(settings, train_when="always") as agent, agent.http() as http:
        number = add_job(http, **LONG)
        wait_for(lambda: steps_of(http, number) > 0, (True,))
        assert http.post(f"/v1/jobs/{number}/pause").json()["state"] == "paused"
        wait_for(lambda: is_training(settings.home), (False,))
        assert http.post(f"/v1/jobs/{number}/pause").status_code == 409
        http.post(f"/v1/jobs/{number}/resume")
        wait_for(lambda: is_training(settings.home), (True,))
        assert http.post(f"/v1/jobs/{number}/cancel").json()["state"] == "cancelled"
        wait_for(lambda: is_training(settings.home), (False,))
        wait_for((settings.home / "runs" / "checkpoint.safetensors").exists, (False,))
        assert PluginStore(settings.home).versions() == []


@pytest.mark.parametrize("end", [signal.SIGTERM, signal.SIGKILL])
def test_a_job_survives_the_end_of_the_agent(school, end):
    _, settings = school
    with served(settings, train_when="always") as agent, agent.http() as http:
        number = add_job(http, epochs=20, patience=0)
        wait_for(lambda: steps_of(http, number) > 0, (True,))
        agent.process.send_signal(end)
        agent.process.wait(timeout=30)
        # The process that trains does not outlive the agent, however that ended.
        wait_for(lambda: is_training(settings.home), (False,))
    with served(settings, train_when="always") as agent, agent.http() as http:
        assert wait_for(lambda: state_of(http, number), ("done", "failed")) == "done"
    assert PluginStore(settings.home).versions()


def test_training_holds_while_somebody_chats(school):
    _, settings = school
    with served(settings) as agent, agent.http() as http:
        body = {"model": "base", "prompt": "c", "max_tokens": 1}
        assert http.post("/v1/completions", json=body).status_code == 200
        number = add_job(http, **LONG)
        assert state_of(http, number) == "queued"
        for _ in range(4):
            time.sleep(0.3)
            http.post("/v1/completions", json=body)
        assert state_of(http, number) == "queued", "somebody has just chatted"


def test_out_of_its_hours_nothing_is_trained(school):
    _, settings = school
    now = time.strftime("%H:%M", time.localtime(time.time() + 3600))
    later = time.strftime("%H:%M", time.localtime(time.time() + 7200))
    hours = f"{now}-{later}"
    with served(settings, train_when="always", train_hours=hours) as agent, agent.http() as http:
        number = add_job(http)
        time.sleep(1)
        assert state_of(http, number) == "queued"


def test_a_job_that_takes_too_much_memory_fails_and_says_so(school):
    _, settings = school
    with served(settings, train_when="always", train_memory=20) as agent, agent.http() as http:
        number = add_job(http)
        assert wait_for(lambda: state_of(http, number), ("done", "failed")) == "failed"
        assert "where 20 are allowed" in http.get(f"/v1/jobs/{number}").json()["problem"]


def test_what_may_pass_is_waited_for_and_what_will_not_has_failed(school):
    _, settings = school
    with served(settings, train_when="always") as agent, agent.http() as http:
        with training_lock(settings.home):
            number = add_job(http)
            time.sleep(1)
            assert state_of(http, number) == "queued", "a person trains in a terminal"
        wait_for(lambda: state_of(http, number), ("done",))
        bad = add_job(http, rate=-1)
        assert wait_for(lambda: state_of(http, bad), ("done", "failed")) == "failed"
        assert "rate" in http.get(f"/v1/jobs/{bad}").json()["problem"]


def test_a_job_without_a_cloud_waits_for_it(alone):
    with Store(alone.home / "store.sqlite") as store:
        store.add_examples([Example(text="abc " * 200)], "test")
    with served(alone, train_when="always") as agent, agent.http() as http:
        number = add_job(http)
        problem = wait_for(lambda: bool(http.get(f"/v1/jobs/{number}").json()["problem"]), (True,))
        assert problem
        job = http.get(f"/v1/jobs/{number}").json()
        assert job["state"] == "queued"
        assert "no answer from http://127.0.0.1:9" in job["problem"]


def test_jobs_are_handled_from_the_command_line(school):
    _, settings = school
    job = told(settings, "jobs", "add", "epochs=1", "seed=3")["jobs"][0]
    assert (job["state"], job["options"]) == ("queued", {"epochs": 1, "seed": 3})
    assert told(settings, "jobs", "pause", "1")["jobs"][0]["state"] == "paused"
    assert told(settings, "jobs", "cancel", "1")["jobs"][0]["state"] == "cancelled"
    assert told(settings, "jobs", "resume", "1", code=1)["error"]["code"] == "NotNow"
    assert told(settings, "jobs", "pause", "9", code=1)["error"]["code"] == "NoSuchJob"
    assert told(settings, "jobs", "add", "speed=9", code=2)["error"]["code"] == "BadSetting"
    assert len(told(settings, "jobs", "list")["jobs"]) == 1
    assert jobs.ACTIONS.keys() == {"pause", "resume", "cancel"}
