"""What the agent serves of its page, and what the page needs of the agent; the browser's tests are in page/."""

import re
import stat

import httpx
import pytest

from device_agent.api.page import ASSETS, FOLDER
from device_agent.cli.open import DOOR
from device_agent.settings import Settings
from tests.device_agent.home import toy_home
from tests.device_agent.serving import served, start

FETCHED = re.compile(r'(?:src|href)="(/[^"#]+)"|from "\.(/[a-z]+\.js)"')


@pytest.fixture(scope="module")
def agent(tmp_path_factory):
    with toy_home(tmp_path_factory.mktemp("page")) as (_, settings), served(settings) as found:
        yield found


def test_the_page_comes_without_a_token_and_nothing_else_does(agent):
    for path in ("/", *ASSETS):
        assert httpx.get(agent.url + path).status_code == 200
    for path in ("/v1/models", "/v1/cloud", "/v1/egress", "/metrics", "/page", "/page/", "/page/x"):
        assert httpx.get(agent.url + path).status_code == 401
    for path in ("/page/index.html", "/page/..%2fjobs.py", "/page/%2e%2e/jobs.py"):
        assert httpx.get(agent.url + path).status_code == 401
    assert httpx.post(agent.url + "/v1/examples/file?name=a.md", content=b"a").status_code == 401


def test_another_name_for_this_machine_opens_nothing(agent):
    answer = httpx.get(agent.url, headers={"host": "rebound.example.org"})
    assert answer.status_code == 403
    assert "does not answer as 'rebound.example.org'" in answer.text


def test_a_browser_is_told_to_take_nothing_from_elsewhere(agent):
    for path in ("/", *ASSETS):
        headers = httpx.get(agent.url + path).headers
        policy = dict(part.split(" ", 1) for part in headers["content-security-policy"].split("; "))
        assert policy["default-src"] == "'none'"
        allowed = {kind: where for kind, where in policy.items() if kind != "default-src"}
        assert set(allowed.values()) == {"'self'", "'none'", "'script'"}
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["referrer-policy"] == "no-referrer"
        assert "access-control-allow-origin" not in headers


def test_all_that_the_page_asks_for_is_there_and_all_that_is_there_is_asked_for():
    texts = [path.read_text() for path in FOLDER.iterdir()]
    wanted = {
        whole or f"/page{module}" for text in texts for whole, module in FETCHED.findall(text)
    }
    assert wanted == set(ASSETS)


def test_nothing_in_the_page_names_another_place():
    for path in FOLDER.iterdir():
        addresses = set(re.findall(r"https?://[^\s\"'<]+", path.read_text()))
        assert addresses <= {"http://www.w3.org/2000/svg"}, path.name


@pytest.mark.parametrize(
    ("name", "data", "added"),
    [
        ("notes.md", b"\xef\xbb\xbfOne text.\r\n", 1),
        ("chats.jsonl", b'{"text": "a"}\n\n{"text": "b"}\n', 2),
        ("../../notes.txt", b"Another one.", 1),
    ],
)
def test_a_file_is_kept_as_the_command_would(agent, name, data, added):
    with agent.http() as http:
        answer = http.post("/v1/examples/file", params={"name": name}, content=data)
        assert (answer.status_code, answer.json()["added"]) == (201, added)
        again = http.post("/v1/examples/file", params={"name": name}, content=data)
        assert (again.json()["added"], again.json()["known"]) == (0, added)
        assert http.get("/v1/examples").json()["data"][0]["source"] == name.rsplit("/")[-1]


@pytest.mark.parametrize(
    ("name", "data", "words"),
    [
        ("", b"a", "name must be the name of the file"),
        ("a.png", b"a", "files that end in '.png' cannot be read"),
        ("a.md", b" \n", "the file is empty"),
        ("a.md", b"\xff\xfe", "is not UTF-8"),
        ("a.jsonl", b'{"text": "kept?"}\n{"text": 3}', "a.jsonl, line 2"),
    ],
)
def test_a_file_that_cannot_be_learned_from_is_refused_whole(agent, name, data, words):
    with agent.http() as http:
        before = http.get("/v1/examples").json()["examples"]
        answer = http.post("/v1/examples/file", params={"name": name}, content=data)
        assert answer.status_code == 400
        assert words in answer.json()["error"]["message"]
        assert http.get("/v1/examples").json()["examples"] == before


def test_a_file_that_is_too_long_is_refused(agent):
    with agent.http() as http:
        answer = http.post("/v1/examples/file?name=a.txt", content=b"a" * 16_000_001)
    assert answer.status_code == 413


def test_it_is_told_whether_the_cloud_answers(agent, tmp_path):
    with agent.http() as http:
        told = http.get("/v1/cloud").json()
    assert told["reachable"] is True
    assert told["url"] == agent.settings.cloud
    assert told["backbone"]
    nobody = Settings(home=tmp_path, cloud="http://127.0.0.1:9", threads=1)
    with served(nobody) as alone, alone.http() as http:
        told = http.get("/v1/cloud").json()
    assert (told["reachable"], told["backbone"]) == (False, None)
    assert "127.0.0.1:9" in told["problem"]


def test_open_starts_an_agent_and_leads_to_it_without_showing_the_token(tmp_path, monkeypatch):
    monkeypatch.setenv("BROWSER", "true %s")
    settings = Settings(home=tmp_path / "home", cloud="http://127.0.0.1:9", threads=1, port=0)
    try:
        out, err = start(settings, "open").communicate(timeout=60)
        assert (out.startswith("the page is at http://127.0.0.1:"), err) == (True, "")
        door = settings.home / DOOR
        assert stat.S_IMODE(door.stat().st_mode) == 0o600
        printed, _ = start(settings, "open", "--print").communicate(timeout=60)
        url, _, token = printed.strip().partition("/#token=")
        assert printed.strip() in door.read_text()
        assert token not in out
        answer = httpx.get(f"{url}/v1/models", headers={"authorization": f"Bearer {token}"})
        assert answer.status_code == 200
    finally:
        start(settings, "stop").communicate(timeout=60)
