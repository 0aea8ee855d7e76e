"""The agent's API over real HTTP, asked by the ``openai`` package and by hand."""

import base64
import json
import subprocess
import time
from dataclasses import replace

import httpx
import numpy as np
import openai
import pytest

from device_agent.cloud.link import STORE
from device_agent.data.store import Store
from device_agent.plugins import PluginStore
from tests.device_agent.home import ASSISTANT, USER, add_plugin, toy_home
from tests.device_agent.serving import served
from tests.device_agent.teaching import states_of, teaching_home


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """A toy cloud, and the agent of a home with two versions; version 2 speaks and says u."""
    with toy_home(tmp_path_factory.mktemp("world")) as (cloud, settings):
        add_plugin(settings, cloud.manifest, token=19)
        add_plugin(settings, cloud.manifest, token=20)
        with served(settings) as agent:
            yield cloud, agent


@pytest.fixture(scope="module")
def cloud(world):
    return world[0]


@pytest.fixture(scope="module")
def agent(world):
    return world[1]


@pytest.fixture(scope="module")
def client(agent):
    with openai.OpenAI(base_url=f"{agent.url}/v1", api_key=agent.token, max_retries=0) as client:
        yield client


@pytest.fixture
def http(agent):
    with agent.http() as http:
        yield http


def ask(client, text, model="base", **options):
    options = {"temperature": 0, "max_tokens": 4, **options}
    turns = [{"role": "user", "content": text}]
    return client.chat.completions.create(model=model, messages=turns, **options)


def test_the_models_are_the_backbone_the_person_and_each_version(client):
    assert [model.id for model in client.models.list()] == ["base", "me", "me:1", "me:2"]
    assert client.models.retrieve("me:1").id == "me:1"
    with pytest.raises(openai.NotFoundError) as caught:
        client.models.retrieve("me:9")
    assert caught.value.code == "model_not_found"


@pytest.mark.parametrize(
    ("model", "said"), [("base", "abcd"), ("me", "uuuu"), ("me:1", "tttt"), ("me:2", "uuuu")]
)
def test_a_chat_is_answered_by_who_is_asked(client, model, said):
    answer = ask(client, "hello", model)
    assert answer.choices[0].message.content == said
    assert answer.choices[0].finish_reason == "length"
    assert answer.model == model
    assert answer.usage.prompt_tokens == len("UhelloA")
    assert (answer.usage.completion_tokens, answer.usage.total_tokens) == (4, 11)
    plugin = {"base": None, "me": "2", "me:1": "1", "me:2": "2"}[model]
    made_with = {"backbone": "f" * 64, "plugin": plugin, "corrects": plugin is not None}
    assert answer.sideplug == {**made_with, "prefix": 0, "memory": False, "gate": ""}
    who = "base-" + "f" * 12 if plugin is None else f"me:{plugin}-" + "f" * 12 + "-plugin"
    assert answer.system_fingerprint == who


def test_a_streamed_chat_says_the_same_piece_by_piece(client):
    chunks = list(ask(client, "hello", stream=True, stream_options={"include_usage": True}))
    *told, usage = chunks
    assert told[0].choices[0].delta.role == "assistant"
    assert "".join(chunk.choices[0].delta.content or "" for chunk in told) == "abcd"
    assert [chunk.choices[0].finish_reason for chunk in told[-2:]] == [None, "length"]
    assert (usage.choices, usage.usage.completion_tokens) == ([], 4)
    assert len({chunk.id for chunk in chunks}) == 1
    assert {chunk.system_fingerprint for chunk in chunks} == {"base-" + "f" * 12}


def test_usage_tells_what_was_drafted(tmp_path):
    with toy_home(tmp_path) as (cloud, settings):
        add_plugin(settings, cloud.manifest, token=20)
        # A fixed number: what pays by itself depends on how fast the machine is.
        with (
            served(replace(settings, drafts="4")) as agent,
            openai.OpenAI(base_url=f"{agent.url}/v1", api_key=agent.token) as client,
            agent.http() as http,
        ):
            answer = client.completions.create(
                model="base", prompt="abc", max_tokens=12, temperature=0
            )
            accepting = answer.usage.completion_tokens_details
            refusing = ask(client, "hello", "me", max_tokens=12).usage.completion_tokens_details
            metrics = http.get("/metrics").text
    assert answer.choices[0].text == "defghijklmno"
    assert 0 < accepting.accepted_prediction_tokens < 12
    assert accepting.rejected_prediction_tokens == 0
    assert refusing.accepted_prediction_tokens == 0
    assert refusing.rejected_prediction_tokens > 0
    accepted = accepting.accepted_prediction_tokens
    for kind, number in (
        ("draft", accepted + refusing.rejected_prediction_tokens),
        ("accepted", accepted),
    ):
        name = f"sideplug_agent_spec_decode_num_{kind}_tokens_total"
        lines = [line for line in metrics.splitlines() if line.startswith(name)]
        assert sum(float(line.split()[1]) for line in lines) == number


def test_logprobs_are_the_same_with_drafts(client):
    """Ten tokens ask for drafts, one at a time there is no room for any."""
    whole = client.completions.create(
        model="base", prompt="abc", max_tokens=10, temperature=0, logprobs=2
    )
    text, expected = "abc", []
    for _ in range(10):
        one = client.completions.create(
            model="base", prompt=text, max_tokens=1, temperature=0, logprobs=2
        ).choices[0]
        text += one.text
        expected.append(one.logprobs.token_logprobs[0])
    assert whole.choices[0].logprobs.tokens == list("defghijklm")
    np.testing.assert_allclose(whole.choices[0].logprobs.token_logprobs, expected, atol=1e-4)
    assert whole.usage.completion_tokens_details.accepted_prediction_tokens > 0


def test_a_stream_ends_with_done_and_tells_usage_only_when_asked(http):
    body = {"model": "base", "prompt": "c", "max_tokens": 2, "temperature": 0, "stream": True}
    with http.stream("POST", "/v1/completions", json=body) as answer:
        lines = [line for line in answer.iter_lines() if line]
    assert answer.headers["content-type"].startswith("text/event-stream")
    assert lines[-1] == "data: [DONE]"
    told = [json.loads(line.removeprefix("data: ")) for line in lines[:-1]]
    assert [chunk["choices"][0]["text"] for chunk in told] == ["d", "e"]
    assert all("usage" not in chunk for chunk in told)


def test_a_text_is_continued(client):
    answer = client.completions.create(model="base", prompt="abc", max_tokens=3, temperature=0)
    assert answer.choices[0].text == "def"
    assert answer.object == "text_completion"
    by_tokens = client.completions.create(
        model="base", prompt=[0, 1, 2], max_tokens=3, temperature=0
    )
    assert by_tokens.choices[0].text == "def"


def test_an_answer_ends_at_a_stop_string_or_token(client):
    stopped = client.completions.create(
        model="base", prompt="c", max_tokens=9, temperature=0, stop=["fg"]
    )
    assert (stopped.choices[0].text, stopped.choices[0].finish_reason) == ("de", "stop")
    ended = client.completions.create(model="base", prompt="w", max_tokens=9, temperature=0)
    assert (ended.choices[0].text, ended.choices[0].finish_reason) == ("xy", "stop")


def test_without_a_limit_an_answer_goes_on_to_the_end_of_the_context(client, cloud):
    turns = [{"role": "user", "content": "a" * 50}]
    answer = client.chat.completions.create(model="me", messages=turns, temperature=0)
    assert answer.choices[0].finish_reason == "length"
    assert answer.usage.total_tokens == cloud.backbone.limit


def test_logprobs_are_those_of_the_head(client):
    answer = ask(client, "x", logprobs=True, top_logprobs=3, max_tokens=2)
    first, second = answer.choices[0].logprobs.content
    assert (first.token, first.bytes) == ("a", [97])
    # The counting head gives one logit of 10 and 95 of 0.
    assert first.logprob == pytest.approx(-np.log1p(95 * np.exp(-10)), abs=1e-5)
    assert second.top_logprobs[0].token == "b"
    assert second.top_logprobs[1].logprob == pytest.approx(first.logprob - 10, abs=1e-5)
    text = client.completions.create(
        model="base", prompt="abc", max_tokens=2, temperature=0, logprobs=1
    )
    told = text.choices[0].logprobs
    assert (told.tokens, told.text_offset) == (["d", "e"], [3, 4])
    assert [list(one) for one in told.top_logprobs] == [["d"], ["e"]]


def test_logprobs_come_with_a_stream_too_and_leave_the_stop_token_out(client):
    chunks = client.completions.create(
        model="base", prompt="x", max_tokens=9, temperature=0, logprobs=0, stream=True
    )
    assert [chunk.choices[0].logprobs.tokens for chunk in chunks] == [["y"], []]


def test_the_same_seed_gives_the_same_answer(client):
    def tokens(seed):
        drawn = ask(client, "q", temperature=2, seed=seed, max_tokens=12, logprobs=True)
        return [one.token for one in drawn.choices[0].logprobs.content]

    # Which seeds happen to agree is known by nobody; not all of them do.
    assert tokens(1) == tokens(1)
    assert len({tuple(tokens(seed)) for seed in range(4)}) > 1


def test_content_in_parts_and_the_role_of_developers_are_understood(client, cloud):
    parts = [{"type": "text", "text": "b"}, {"type": "text", "text": "c"}]
    turns = [{"role": "developer", "content": "a"}, {"role": "user", "content": parts}]
    client.chat.completions.create(model="base", messages=turns, max_tokens=1, temperature=0)
    assert any(ids[:5] == [0, USER, 1, 2, ASSISTANT] for ids, _ in cloud.backbone.sessions.values())


def test_turns_of_one_conversation_send_only_what_is_new(client, cloud):
    turns = [{"role": "user", "content": "mnopqrst"}]
    create = client.chat.completions.create
    first = create(model="base", messages=turns, max_tokens=3, temperature=0)
    said = first.choices[0].message.content
    turns += [{"role": "assistant", "content": said}, {"role": "user", "content": "z"}]
    cloud.backbone.steps.clear()
    create(model="base", messages=turns, max_tokens=1, temperature=0)
    # "U", "z" and "A" are new, and the last token of the answer was never sent.
    assert cloud.backbone.steps[0].ids.tolist() == [2, USER, 25, ASSISTANT]


def test_two_conversations_at_once_do_not_disturb_each_other(agent):
    from concurrent.futures import ThreadPoolExecutor

    def count_from(letter):
        with openai.OpenAI(base_url=f"{agent.url}/v1", api_key=agent.token) as client:
            answer = client.completions.create(
                model="base", prompt=letter, max_tokens=8, temperature=0
            )
            return answer.choices[0].text

    letters = "abcdefghijkl"
    with ThreadPoolExecutor(len(letters)) as many:
        found = list(many.map(count_from, letters))
    alphabet = "abcdefghijklmnopqrstuvwxyz"
    assert found == [alphabet[place + 1 : place + 9] for place in range(len(letters))]


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"model": "me"}, "model"),
        ({"input": []}, "input"),
        ({"input": [""]}, "input"),
        ({"input": [1.5]}, "input"),
        ({"dimensions": 7}, "dimensions"),
        ({"encoding_format": "hex"}, "encoding_format"),
        ({"input": "a" * 65}, None),
    ],
)
def test_embeddings_that_cannot_be_made_are_refused(http, body, param):
    answer = http.post("/v1/embeddings", json={"model": "base", "input": "a", **body})
    assert answer.status_code == 400
    assert answer.json()["error"]["param"] == param


def test_embeddings_are_the_mean_of_the_final_states_of_length_one(tmp_path):
    with teaching_home(tmp_path) as (cloud, settings), served(settings) as agent:
        url = f"{agent.url}/v1"
        with openai.OpenAI(base_url=url, api_key=agent.token, max_retries=0) as client:
            told = client.embeddings.create(model="base", input=["abc", "z"])
        with agent.http() as http:
            body = {"model": "base", "input": [25], "encoding_format": "base64"}
            packed = http.post("/v1/embeddings", json=body).json()["data"][0]["embedding"]
    for ids, one in zip(([0, 1, 2], [25]), told.data, strict=True):
        mean = states_of(np.array(ids, np.uint32), cloud.head).final.mean(axis=0)
        expected = mean / np.linalg.norm(mean)
        assert one.embedding == pytest.approx(expected, abs=1e-3), "f16 on the way"
    assert np.frombuffer(base64.b64decode(packed), "<f4") == pytest.approx(told.data[1].embedding)
    assert told.usage.prompt_tokens == 4


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"messages": []}, "messages"),
        ({"messages": [{"role": "tool", "content": "a"}]}, "messages[0].role"),
        ({"messages": [{"role": "user"}]}, "messages[0].content"),
        ({"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}, None),
        ({"messages": [{"role": "user", "content": "\ud800"}]}, "messages[0].content"),
        ({"n": 2}, "n"),
        ({"tools": [{"type": "function"}]}, "tools"),
        ({"presence_penalty": 0.5}, "presence_penalty"),
        ({"temperature": 3}, "temperature"),
        ({"temperature": "hot"}, "temperature"),
        ({"top_p": -1}, "top_p"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"seed": "x"}, "seed"),
        ({"stream": 1}, "stream"),
        ({"stop": ["a"] * 5}, "stop"),
        ({"stop": 7}, "stop"),
        ({"top_logprobs": 3}, "top_logprobs"),
        ({"model": None}, "model"),
    ],
    ids=str,
)
def test_a_field_that_cannot_be_used_is_named(http, body, param):
    usual = {"model": "base", "messages": [{"role": "user", "content": "a"}]}
    answer = http.post("/v1/chat/completions", content=json.dumps({**usual, **body}))
    error = answer.json()["error"]
    assert answer.status_code == 400
    assert error["type"] == "invalid_request_error"
    assert error["message"]
    assert param is None or error["param"] == param


@pytest.mark.parametrize("body", [b"{", b"[]", b'{"a": NaN}', b"\xff", b"[" * 100_000])
def test_what_is_no_json_object_is_refused(http, body):
    answer = http.post("/v1/chat/completions", content=body)
    assert answer.status_code == 400
    assert answer.json()["error"]["type"] == "invalid_request_error"


def test_zero_values_of_what_is_not_supported_are_let_pass(client):
    answer = ask(client, "a", n=1, presence_penalty=0, frequency_penalty=0, user="me")
    assert answer.choices[0].message.content == "abcd"


def test_a_prompt_that_is_too_long_is_told_as_openai_does(client):
    with pytest.raises(openai.BadRequestError) as caught:
        ask(client, "a" * 100)
    assert caught.value.code == "context_length_exceeded"


def test_an_unknown_path_or_method_is_an_error_object(http):
    assert http.get("/v1/nothing").json()["error"]["type"] == "invalid_request_error"
    answer = http.get("/v1/chat/completions")
    assert answer.status_code == 405
    assert "error" in answer.json()


@pytest.mark.parametrize("token", ["no", "wrong", "ü"])
def test_without_the_token_nothing_is_told(agent, http, token):
    headers = {"authorization": f"Bearer {token}".encode()}
    for path in ("/v1/models", "/metrics", "/v1/nothing"):
        answer = http.get(path, headers=headers)
        assert answer.status_code == 401
        assert answer.json()["error"]["code"] == "invalid_api_key"
    assert http.get("/health", headers=headers).json() == {"status": "ok"}


def test_another_origin_learns_nothing(http):
    answer = http.options(
        "/v1/models",
        headers={"origin": "http://evil.example", "access-control-request-method": "GET"},
    )
    assert not [name for name in answer.headers if name.startswith("access-control")]
    # A page that gave its own name the address of this machine.
    answer = http.get("/health", headers={"host": "evil.example:8472"})
    assert answer.status_code == 403


def test_a_correction_becomes_an_example(client, http, agent):
    answer = ask(client, "g", "me")
    body = {"completion": answer.id, "rating": "down", "correction": "h"}
    assert http.post("/v1/feedback", json=body).json()["example"] is True
    with Store(agent.settings.home / STORE) as store:
        newest = store.examples()[-1]
        assert newest.example.messages == (("user", "g"), ("assistant", "h"))
        assert newest.source == "feedback"
    told = http.get("/v1/examples").json()
    assert told["data"][0]["preview"] == "user: g\nassistant: h"
    assert told["feedback"]["down"] == told["feedback"]["corrections"] == 1


def test_feedback_may_bring_the_conversation_along(http):
    body = {"messages": [{"role": "user", "content": "k"}], "answer": "l", "rating": "up"}
    assert http.post("/v1/feedback", json=body).json()["example"] is False
    assert http.get("/v1/examples").json()["feedback"]["up"] == 1


def test_a_version_that_pleases_less_than_the_one_before_speaks_no_longer(http, client, agent):
    talk = {"messages": [{"role": "user", "content": "k"}], "model": "me:1", "rating": "up"}
    for _ in range(10):
        http.post("/v1/feedback", json=talk)
    told = {"rolled_back": None}
    while told["rolled_back"] is None:
        answer = ask(client, "g", "me")
        told = http.post("/v1/feedback", json={"completion": answer.id, "rating": "down"}).json()
        assert told["id"] < 30
    assert "thumbs down" in told["rolled_back"]
    assert PluginStore(agent.settings.home).current().version == "1"
    http.post("/v1/plugins/use", json={"version": "2"})


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ({"completion": "chatcmpl-none", "rating": "up"}, 404),
        ({"messages": [{"role": "user", "content": "k"}], "model": "me:77", "rating": "up"}, 404),
        ({"rating": "up"}, 400),
        ({"completion": "x", "rating": "good"}, 400),
        ({"completion": "x"}, 400),
    ],
)
def test_feedback_that_cannot_be_kept_is_refused(http, body, status):
    assert http.post("/v1/feedback", json=body).status_code == status


def test_examples_are_added_once(http):
    body = {"examples": [{"text": "some text"}, {"text": "some text"}]}
    told = http.post("/v1/examples", json=body)
    assert (told.status_code, told.json()["added"], told.json()["known"]) == (201, 1, 1)
    answer = http.post("/v1/examples", json={"messages": [{"role": "user", "content": "a"}]})
    assert answer.status_code == 400
    assert "assistant" in answer.json()["error"]["message"]


def test_an_example_is_forgotten(http):
    http.post("/v1/examples", json={"text": "never mind"})
    number = http.get("/v1/examples").json()["data"][0]["id"]
    assert http.delete(f"/v1/examples/{number}").json()["deleted"] is True
    assert all(row["id"] != number for row in http.get("/v1/examples").json()["data"])
    assert http.delete(f"/v1/examples/{number}").status_code == 404


def test_plugins_are_listed_switched_and_rolled_back(http, client, agent):
    told = http.get("/v1/plugins").json()
    assert (told["current"], [row["version"] for row in told["data"]]) == ("2", ["2", "1"])
    assert http.post("/v1/plugins/use", json={"version": "1"}).json() == {"current": "1"}
    assert ask(client, "a", "me").choices[0].message.content == "tttt"
    assert http.post("/v1/plugins/rollback").json() == {"current": "2"}
    assert ask(client, "a", "me").choices[0].message.content == "uuuu"
    assert http.post("/v1/plugins/use", json={"version": "7"}).status_code == 404
    assert PluginStore(agent.settings.home).current().version == "2"


def test_what_has_left_the_device_is_told(http, client):
    ask(client, "a")
    answer = http.get("/v1/egress")
    assert answer.status_code == 200, answer.text
    rows = answer.json()["data"]
    assert {"facts", "kit", "session", "prompt", "answer"} <= {row["kind"] for row in rows}
    assert {row["purpose"] for row in rows} == {"api"}
    (whole,) = http.get("/v1/egress", params={"by": ""}).json()["data"]
    assert whole["up"] == sum(row["up"] for row in rows) > 0
    days = http.get("/v1/egress", params={"by": "day,kind"}).json()["data"]
    assert {row["day"] for row in days} == {time.strftime("%Y-%m-%d")}
    assert http.get("/v1/egress", params={"by": "colour"}).status_code == 400
    assert http.get("/v1/egress", params={"since": time.time() + 3600}).json()["data"] == []
    assert http.get("/v1/egress", params={"since": "nan"}).status_code == 400


def test_metrics_are_in_prometheus_form(http, client):
    ask(client, "a")
    counted = 'requests_total{route="/v1/chat/completions",status="200"}'
    until = time.monotonic() + 10
    # A request is counted when it has ended, which is a moment after its answer is there.
    while counted not in (text := http.get("/metrics").text) and time.monotonic() < until:
        time.sleep(0.02)
    for name in (
        counted,
        "num_requests_running 0.0",
        "time_to_first_token_seconds_count",
        "inter_token_latency_seconds_count",
        'tokens_total{purpose="completion"}',
        "cloud_sent_bytes_total",
        "process_resident_memory_bytes",
    ):
        assert f"sideplug_agent_{name}" in text


def test_curl_gets_what_the_client_gets(agent):
    body = json.dumps({"model": "base", "prompt": "abc", "max_tokens": 2, "temperature": 0})
    token = f"Authorization: Bearer {agent.token}"
    kind = "Content-Type: application/json"
    command = ["curl", "--silent", "--fail", "--header", token, "--header", kind, "--data", body]
    shown = subprocess.run(
        [*command, f"{agent.url}/v1/completions"], capture_output=True, check=True
    )
    assert json.loads(shown.stdout)["choices"][0]["text"] == "de"


@pytest.fixture
def endless(tmp_path):
    """An agent whose answers have no end that anybody would wait for."""
    with toy_home(tmp_path, limit=50_000) as (cloud, settings):
        add_plugin(settings, cloud.manifest, token=20)
        with served(settings) as agent, agent.http() as http:
            yield cloud, http


ENDLESS = {"model": "me", "prompt": "c", "max_tokens": 40_000, "temperature": 0}


def test_who_leaves_a_stream_stops_the_answer(endless):
    cloud, http = endless
    with http.stream("POST", "/v1/completions", json={**ENDLESS, "stream": True}) as answer:
        next(answer.iter_lines())
    _wait_until_still(cloud)


def test_who_leaves_before_a_whole_answer_stops_it(endless):
    cloud, http = endless
    with pytest.raises(httpx.ReadTimeout):
        http.post("/v1/completions", json=ENDLESS, timeout=2)
    _wait_until_still(cloud)
    assert cloud.backbone.steps, "it had begun"


def _wait_until_still(cloud):
    """Wait until nothing is asked of the cloud any more."""
    while True:
        before = len(cloud.requests)
        time.sleep(0.3)
        if len(cloud.requests) == before:
            return


def test_source_says_where_an_example_comes_from_or_is_half_of_a_pair(tmp_path):
    with toy_home(tmp_path) as (_cloud, settings), served(settings) as agent, agent.http() as http:
        for body in (
            {"text": "abc", "source": "page"},
            {"source": "Long.", "target": "Short."},
            {"examples": [{"source": "Longer.", "target": "Shorter."}], "source": "program"},
        ):
            assert http.post("/v1/examples", json=body).status_code == 201
        with Store(settings.home / STORE) as store:
            kept = [(one.source, one.example.messages) for one in store.examples()]
    assert [source for source, _ in kept] == ["page", "api", "program"]
    assert kept[1][1] == (("user", "Long."), ("assistant", "Short."))
