"""Nothing leaves but through the one way out, which asks the policy and enters what leaves."""

import ast
import json
import socket
import threading
from contextlib import closing, contextmanager, suppress
from pathlib import Path

import httpx
import numpy as np
import pytest

import device_agent
from device_agent.cloud import connection
from device_agent.cloud.client import CloudClient, CloudUnreachable
from device_agent.cloud.link import STORE, Link
from device_agent.cloud.traffic import KINDS, PURPOSES
from device_agent.data.examples import Example
from device_agent.data.store import Store
from device_agent.egress.ledger import totals
from device_agent.egress.policy import POLICY, BadPolicy, CapReached, PolicyForbids
from device_agent.settings import Settings
from protocol.messages import PrefixKept, SessionRequest, Wants
from tests.device_agent.home import add_plugin, toy_home
from tests.device_agent.serving import served
from tests.device_agent.talk import TOKENS, WANTS, texts
from tests.device_agent.teaching import ALPHABET, teaching_home

CODE = Path(device_agent.__file__).parent

SENDING = {
    "facts": lambda cloud: cloud.facts(),
    "tokenizer": lambda cloud: cloud.tokenizer(),
    "kits": lambda cloud: cloud.kits(),
    "kit": lambda cloud: cloud.kit("small"),
    "kit_file": lambda cloud: list(cloud.kit_file("small-1", "head.bias")),
    "keep_prefix": lambda cloud: cloud.keep_prefix([1, 2, 3]),
    "open_session": lambda cloud: cloud.open_session(SessionRequest(wants=WANTS)),
    "step": lambda cloud: cloud.step("s0", TOKENS),
    "crop": lambda cloud: cloud.crop("s0", 0),
    "close_session": lambda cloud: cloud.close_session("s0"),
    "features": lambda cloud: list(cloud.features(texts(3), _features())),
}
"""Every method of the client that sends something."""

SILENT = {"close", "url", "retry", "doubt"}
TEXT = {"keep_prefix", "step", "features"}


def _features():
    return Wants(layers=(1,), final=True, log_z=True, candidates=0, codec="f32")


@pytest.fixture
def toy(tmp_path):
    with toy_home(tmp_path) as (cloud, settings):
        yield cloud, settings


def write_policy(settings, text):
    settings.home.mkdir(mode=0o700, exist_ok=True)
    (settings.home / POLICY).write_text(text)
    (settings.home / POLICY).chmod(0o600)


def modules():
    for path in sorted(CODE.rglob("*.py")):
        yield path.relative_to(CODE).as_posix(), ast.parse(path.read_text(encoding="utf-8"))


def imported(tree):
    """Modules that are imported when the code runs, not for types alone."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            continue
        if isinstance(node, ast.Import):
            yield from (name.name for name in node.names)
        if isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
        yield from imported(node)


def calls(tree, name):
    return [
        node
        for node in ast.walk(tree)
        if isinstance(node, ast.Call)
        and (getattr(node.func, "id", None) == name or getattr(node.func, "attr", None) == name)
    ]


# --- the points from which something is sent ---


def test_only_the_connection_can_reach_the_network():
    reaching = ("httpx", "http", "urllib.request", "urllib3", "requests", "aiohttp", "ftplib")
    found = {path for path, tree in modules() for name in imported(tree) if name in reaching}
    # A federation has a server of its own, and Flower its own client; what it sends is accounted for too.
    assert found == {"cloud/connection.py", "federated/node.py"}
    # The agent listens; nothing connects.
    assert {path for path, tree in modules() if "socket" in imported(tree)} == {"daemon/serve.py"}
    assert not any(
        calls(tree, "connect_ex") or calls(tree, "create_connection") for _, tree in modules()
    )


def test_the_connection_sends_in_one_place_behind_the_account():
    tree = dict(modules())["cloud/connection.py"]
    (sending,) = calls(tree, "send")
    (asking,) = calls(tree, "leaving")
    assert asking.lineno < sending.lineno
    assert not any(calls(tree, name) for name in ("stream", "request", "post", "get_stream"))


def test_a_federation_sends_updates_in_one_place_behind_the_account():
    tree = dict(modules())["federated/node.py"]
    (sending,) = (call for call in calls(tree, "send") if ast.unparse(call.func) == "node.send")
    (asking,) = (
        call
        for call in ast.walk(tree)
        if isinstance(call, ast.Call) and ast.unparse(call.func) == "leaving"
    )
    assert asking.lineno < sending.lineno


def test_whoever_has_a_client_has_it_from_the_link_with_an_account_and_a_purpose():
    makers = {path: calls(tree, "CloudClient") for path, tree in modules()}
    assert [path for path, found in makers.items() if found] == ["cloud/link.py"]
    (made,) = makers["cloud/link.py"]
    assert "account" in {keyword.arg for keyword in made.keywords}
    links = [(path, call) for path, tree in modules() for call in calls(tree, "Link")]
    assert len(links) >= 8
    for path, call in links:
        purpose = ast.literal_eval(call.args[1])
        assert purpose in set(PURPOSES) - {"program"}, path


def test_every_method_of_the_client_that_sends_is_known_here():
    public = {name for name in vars(CloudClient) if not name.startswith("_")}
    assert public == SENDING.keys() | SILENT


@pytest.mark.parametrize("name", SENDING)
@pytest.mark.parametrize("policy", ["never = [", "surprise = 1", "[bytes_per_day]\nall = 10"])
def test_with_a_policy_that_is_wrong_or_used_up_nothing_arrives(toy, name, policy):
    cloud, settings = toy
    write_policy(settings, policy)
    with Link(settings) as link, pytest.raises((BadPolicy, CapReached)):
        SENDING[name](link.cloud)
    assert cloud.requests == []
    with Store(settings.home / STORE) as store:
        assert totals(store) == []


@pytest.mark.parametrize("name", SENDING)
def test_no_text_arrives_at_a_host_outside_the_list(toy, name):
    cloud, settings = toy
    write_policy(settings, 'text_hosts = ["elsewhere"]')
    forbidden = name in TEXT
    # The toy knows no such session, but it was asked.
    refused = (
        pytest.raises(PolicyForbids, match=r"127\.0\.0\.1") if forbidden else suppress(Exception)
    )
    with Link(settings) as link, refused:
        SENDING[name](link.cloud)
    assert bool(cloud.requests) is not forbidden


# --- whole commands, against a server that counts what arrives ---

COMMANDS = [
    ("status",),
    ("doctor",),
    ("train",),
    ("run", "a"),
    ("run", "a", "--base"),
    ("chat",),
    ("evaluate", "{text}"),
    ("memory", "update"),
]


@pytest.mark.parametrize("words", COMMANDS, ids=lambda words: "-".join(words))
def test_no_command_lets_anything_out_past_a_broken_policy(sideplug, words, tmp_path):
    (tmp_path / "text.txt").write_text("abc " * 50)
    add_plugin(sideplug.settings, sideplug.cloud.manifest, token=20, prefix=(1, 2))
    with Store(sideplug.settings.home / STORE) as store:
        store.add_examples([Example(text=f"{n} {ALPHABET}") for n in range(4)], "test")
    write_policy(sideplug.settings, "txt_hosts = []")
    words = [word.format(text=tmp_path / "text.txt") for word in words]
    code, out, err = sideplug(*words, lines="a\n")
    assert sideplug.cloud.requests == []
    if words[0] != "memory":  # which finds that there is no memory before it asks anybody
        assert "txt_hosts is unknown" in out + err
    assert code == (0 if words[0] == "status" else 1)


def test_the_agent_answers_with_403_and_a_sentence_and_nothing_arrives(toy):
    cloud, settings = toy
    add_plugin(settings, cloud.manifest, token=20, prefix=(1, 2))
    write_policy(settings, "never = 3")
    with served(settings) as agent, agent.http() as http:
        asked = {"model": "me", "prompt": "c", "max_tokens": 1}
        for path, body in (("completions", asked), ("embeddings", {"model": "base", "input": "a"})):
            answer = http.post(f"/v1/{path}", json=body)
            assert answer.status_code == 403
            assert answer.json()["error"]["code"] == "BadPolicy"
            assert "never must be a list" in answer.json()["error"]["message"]
        assert cloud.requests == []
        write_policy(settings, 'text_hosts = ["elsewhere:1"]')
        answer = http.post("/v1/completions", json=asked)
        assert (answer.status_code, answer.json()["error"]["code"]) == (403, "PolicyForbids")
        assert not [one for one in cloud.requests if "prefixes" in one.path or "step" in one.path]
        # From the moment that the policy allows it, without a new start.
        write_policy(settings, "")
        assert http.post("/v1/completions", json=asked).status_code == 200


def test_a_cap_ends_an_answer_and_is_told_as_too_much(toy):
    cloud, settings = toy
    write_policy(settings, "[bytes_per_day]\nanswer = 2000")
    body = {"model": "base", "prompt": "a", "max_tokens": 20, "temperature": 0}
    with served(settings, drafts="off") as agent, agent.http() as http:
        answer = http.post("/v1/completions", json=body)
        assert (answer.status_code, answer.json()["error"]["code"]) == (429, "CapReached")
        rows = http.get("/v1/egress?by=kind").json()["data"]
    (left,) = [row["up"] for row in rows if row["kind"] == "answer"]
    assert 0 < left <= 2000
    assert 0 < len(cloud.backbone.steps) < 20


def test_training_under_a_policy_that_keeps_the_prefix_here_does_without(tmp_path):
    with teaching_home(tmp_path) as (cloud, settings):
        with Store(settings.home / STORE) as store:
            store.add_examples([Example(text=ALPHABET[n:]) for n in range(8)], "test")
        settings = Settings(**{**_fields(settings), "prefix": 8})
        write_policy(settings, 'never = ["prefix"]')
        from device_agent.training.learning import learn
        from device_agent.training.watcher import Watcher

        with Link(settings, "train") as link:
            lesson = learn(link, {"threads": 1, "epochs": 1}, Watcher())
        assert len(lesson.version.prefix) == 0
        assert not [one for one in cloud.requests if "prefixes" in one.path]


def _fields(settings):
    return {name: getattr(settings, name) for name in settings.__slots__}


# --- the ledger tells what a socket has seen ---


@contextmanager
def counting_server(answer):
    """Counts the bytes of every request that arrives; answers all with the same bytes."""
    arrived = []

    def serve():
        with suppress(OSError), closing(listening.accept()[0]) as peer:
            while True:
                data = b""
                while b"\r\n\r\n" not in data:
                    data += peer.recv(65536)
                    if not data:
                        return
                head, _, body = data.partition(b"\r\n\r\n")
                size = next(
                    (
                        int(line.split(b":")[1])
                        for line in head.lower().split(b"\r\n")
                        if line.startswith(b"content-length")
                    ),
                    0,
                )
                while len(body) < size:
                    body += peer.recv(65536)
                arrived.append(len(head) + 4 + len(body))
                peer.sendall(answer)

    with closing(socket.create_server(("127.0.0.1", 0))) as listening:
        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{listening.getsockname()[1]}", arrived
    thread.join(5)


def test_the_ledger_counts_every_byte_that_a_socket_sees(tmp_path):
    body = json.dumps({"prefix": "p1", "position": 3, "idle_seconds": 60}).encode()
    answer = b"HTTP/1.1 201 Created\r\ncontent-length: %d\r\nx-y: z\r\n\r\n" % len(body) + body
    with counting_server(answer) as (url, arrived):
        settings = Settings(home=tmp_path, cloud=url, threads=1, key="secret-1")
        with Link(settings, "chat") as link:
            assert link.cloud.keep_prefix([1, 2, 3]) == PrefixKept("p1", 3, 60)
            link.cloud.keep_prefix(np.array([4, 5, 6]))
    with Store(tmp_path / STORE) as store:
        (row,) = totals(store)
    assert row.group == {"host": url.removeprefix("http://"), "kind": "prefix", "purpose": "chat"}
    assert (row.up, row.down) == (sum(arrived), 2 * len(answer))
    assert (row.tokens, row.exchanges) == (6, 2)


def test_what_reached_nobody_has_not_left(tmp_path):
    settings = Settings(home=tmp_path, cloud="http://127.0.0.1:9", threads=1)
    with Link(settings, sleep=lambda _: None) as link, pytest.raises(CloudUnreachable):
        link.cloud.keep_prefix([1, 2, 3])
    with Store(tmp_path / STORE) as store:
        assert all((row.up, row.tokens, row.exchanges) == (0, 0, 0) for row in totals(store))


def test_what_has_left_is_in_the_ledger_when_the_process_dies(toy):
    """Nothing is flushed here: another connection reads what a killed process would leave behind."""
    cloud, settings = toy
    with Link(settings, "train") as link:
        link.cloud.keep_prefix([1, 2, 3])
        with Store(settings.home / STORE) as store:
            (row,) = totals(store)
        assert (row.group["kind"], row.tokens) == ("prefix", 3)
        assert row.up > len(cloud.requests[0].body)


def test_tokens_are_told_apart_by_what_they_are(sideplug):
    add_plugin(sideplug.settings, sideplug.cloud.manifest, token=20, prefix=(1, 2))
    words = ("run", "abc", "--raw", "--max-tokens", "4", "--drafts", "off")
    assert sideplug(*words)[0] == 0
    code, out, _ = sideplug("egress", "--json", "--by", "kind,purpose")
    rows = {row["kind"]: row for row in json.loads(out)["rows"]}
    assert {row["purpose"] for row in rows.values()} == {"run"}
    told = {kind: row["tokens"] for kind, row in rows.items() if KINDS[kind].text}
    assert told.keys() == {"prefix", "prompt", "answer"}
    seen = sum(len(step.ids) for step in sideplug.cloud.backbone.steps)
    # Of four tokens the last is not sent: nothing comes after it.
    assert (told["prefix"], told["answer"], told["prompt"]) == (2, 3, seen - 3)
    assert code == 0
    code, out, _ = sideplug("egress")
    for part in ("prompt", "what you ask", "run", "all"):
        assert part in out
    assert sideplug("egress", "--since", "1d", "--by", "day")[0] == 0
    assert json.loads(sideplug("egress", "--since", "2090-01-01", "--json")[1])["all"] is None
    assert "nothing has left" in sideplug("egress", "--since", "2090-01-01")[1]


@pytest.mark.parametrize("words", [("--since", "soon"), ("--by", "colour")])
def test_words_that_egress_does_not_know_are_refused(sideplug, words):
    with pytest.raises(SystemExit):
        sideplug("egress", *words)


def test_policy_shows_what_holds_and_finds_what_is_wrong(sideplug):
    code, out, _ = sideplug("policy")
    assert (code, "everything may leave" in out) == (0, True)
    write_policy(
        sideplug.settings,
        'text_hosts = ["cloud:1"]\nnever = ["prefix"]\n[bytes_per_day]\nall = 5_000_000',
    )
    code, out, _ = sideplug("policy")
    for part in ("cloud:1", "your personal prefix never leaves", "5.0 MB of all"):
        assert part in out
    told = json.loads(sideplug("policy", "--json")[1])
    assert (told["exists"], told["never"]) == (True, ["prefix"])
    write_policy(sideplug.settings, "nevr = []")
    code, _, err = sideplug("policy")
    assert (code, "nevr is unknown" in err, "Nothing leaves" in err) == (1, True, True)


def test_addresses_are_told_with_their_port():
    for url, host in (
        ("https://cloud.example/x", "cloud.example:443"),
        ("http://me:secret@Cloud:80", "cloud:80"),
        ("http://[::1]:8471", "[::1]:8471"),
    ):
        assert connection._host_of(httpx.URL(url)) == host


def test_a_proxy_that_reads_along_is_known(monkeypatch):
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY", "no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    plain, tls = httpx.URL("http://cloud:1"), httpx.URL("https://cloud:1")
    assert connection.proxy_of(plain) == ""
    for told in ("http://proxy:3128", "proxy:3128"):
        monkeypatch.setenv("http_proxy", told)
        assert connection.proxy_of(plain) == "proxy:3128"
        assert connection.proxy_of(tls) == "", "a tunnel cannot be read"
    monkeypatch.setenv("no_proxy", "cloud")
    assert connection.proxy_of(plain) == ""


def test_a_proxy_outside_the_list_gets_no_text(toy, monkeypatch, tmp_path):
    cloud, settings = toy
    with toy_home(tmp_path / "proxy") as (proxy, _):
        monkeypatch.setenv("http_proxy", proxy.url)
        for name in ("no_proxy", "NO_PROXY"):
            monkeypatch.delenv(name, raising=False)
        write_policy(settings, f'text_hosts = ["{cloud.url.removeprefix("http://")}"]')
        with Link(settings) as link:
            with pytest.raises(PolicyForbids, match=proxy.url.removeprefix("http://")):
                link.cloud.keep_prefix([1, 2, 3])
            link.cloud.tokenizer()
        assert len(proxy.requests) == 1, "httpx does send it there"
    assert cloud.requests == []
