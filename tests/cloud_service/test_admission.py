"""Who is let in, and how much each may use; over real HTTP where it can be."""

import json
import ssl
from pathlib import Path

import httpx
import pytest
import trustme

from cloud_service.admission import Admission, Quota
from cloud_service.errors import BadSetting
from cloud_service.keys import KeyLimits, KeyStore
from cloud_service.serve import server_for
from protocol import versions
from protocol.errors import (
    ContextExceeded,
    Draining,
    FrameTooLarge,
    KeyMissing,
    KeyRevoked,
    KeyUnknown,
    PrefixNotFound,
    QuotaSpent,
    SessionNotFound,
    SessionQuota,
)
from protocol.messages import SessionRequest
from tests.cloud_service.running import (
    FINAL,
    fault_in,
    ids_of,
    running,
    service_for,
    tokens_of,
)


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock():
    return Clock()


def test_a_quota_is_spent_and_comes_back_evenly(clock):
    quota = Quota(60, 60.0, "tokens a minute", clock)
    quota.spend(59)
    quota.require()
    quota.spend(11)
    with pytest.raises(QuotaSpent) as refused:
        quota.require()
    assert refused.value.details == {"limit": 60, "unit": "tokens a minute", "seconds": 11}
    clock.now += 10
    with pytest.raises(QuotaSpent):
        quota.require()
    clock.now += 1
    quota.require()


def test_a_quota_never_holds_more_than_its_limit(clock):
    quota = Quota(60, 60.0, "tokens a minute", clock)
    clock.now += 3600
    quota.spend(60)
    with pytest.raises(QuotaSpent):
        quota.require()


def test_what_is_larger_than_a_quota_is_served_once_and_waited_for(clock):
    quota = Quota(60, 60.0, "tokens a minute", clock)
    quota.require()
    quota.spend(600)
    with pytest.raises(QuotaSpent) as refused:
        quota.require()
    assert refused.value.details["seconds"] == 541


def test_no_limit_is_never_spent(clock):
    quota = Quota(None, 60.0, "tokens a minute", clock)
    quota.spend(10**12)
    quota.require()


def test_anybody_is_local_while_there_are_no_keys(tmp_path):
    keys = KeyStore(tmp_path / "keys.sqlite")
    admission = Admission(keys)
    assert admission.caller(None).owner == "local"
    key = keys.add("ada", KeyLimits())
    with pytest.raises(KeyMissing):
        admission.caller(None)
    assert admission.caller(f"bearer {key} ".encode()).owner == "ada"
    keys.close()


@pytest.fixture
def keyed(tmp_path, pull_into, folder_of):
    """A service with the keys ada and bob, and their clients."""
    pulled = pull_into(folder_of("llama"))
    cache = tmp_path / "cache"
    keys = KeyStore(cache / "keys.sqlite")
    limits = KeyLimits(sessions=2, tokens_per_minute=1000, bytes_per_day=10**6)
    headers = [{"Authorization": f"Bearer {keys.add(name, limits)}"} for name in ("ada", "bob")]
    with running(service_for(cache, pulled), headers=headers[0]) as ada:
        ada.wait()
        with httpx.Client(base_url=ada.http.base_url, headers=headers[1]) as bob:
            yield ada, bob, keys
    keys.close()


def test_without_a_good_key_nothing_is_said(keyed):
    ada, _, keys = keyed
    for path in ("/v1/backbone", "/v1/kits", "/metrics", "/nowhere"):
        answer = httpx.get(f"{ada.http.base_url}{path}")
        assert isinstance(fault_in(answer), KeyMissing)
        assert answer.headers["www-authenticate"] == "Bearer"
    for scheme in ("Bearer", "Basic"):
        headers = {"Authorization": f"{scheme} sideplug_00000000_abc"}
        answer = httpx.get(f"{ada.http.base_url}/v1/backbone", headers=headers)
        assert isinstance(fault_in(answer), KeyUnknown if scheme == "Bearer" else KeyMissing)
    for path in ("/health", "/ready", "/version"):
        assert httpx.get(f"{ada.http.base_url}{path}").status_code == 200
    assert ada.http.get("/v1/backbone").status_code == 200
    keys.revoke("ada")
    assert isinstance(fault_in(ada.http.get("/v1/backbone")), KeyRevoked)


def test_what_one_key_has_opened_is_not_there_for_another(keyed):
    ada, bob, _ = keyed
    session = ada.open().session
    ada.step(session, tokens_of(ids_of(3)))
    step = versions.encode(tokens_of(ids_of(1), position=3, step=1))
    asked = [
        ("POST", f"/v1/sessions/{session}/step", {"content": step}),
        ("POST", f"/v1/sessions/{session}/crop", {"json": {"position": 0}}),
        ("DELETE", f"/v1/sessions/{session}", {}),
    ]
    for method, path, options in asked:
        told = bob.request(method, path, **options)
        missing = path.replace(session, "A" * len(session))
        absent = bob.request(method, missing, **options)
        assert isinstance(fault_in(told), SessionNotFound)
        # The two cannot be told apart.
        assert told.text.replace(session, "A" * len(session)) == absent.text
    ada.step(session, tokens_of(ids_of(1), position=3, step=1))


def test_what_one_key_has_a_prefix_of_is_not_there_for_another(keyed):
    ada, bob, _ = keyed
    prefix = ada.keep(tokens_of(ids_of(3))).prefix
    query = {"wants": json.dumps(FINAL.to_json())}
    text = versions.encode(tokens_of(ids_of(1), position=3))
    for name in (prefix, "A" * len(prefix)):
        request = SessionRequest(FINAL, prefix=name).to_json()
        asked = (
            bob.post("/v1/sessions", json=request),
            bob.post("/v1/features", params={**query, "prefix": name}, content=text),
        )
        for answer in asked:
            fault = fault_in(answer)
            assert isinstance(fault, PrefixNotFound)
            assert fault.details == {"prefix": name}
    again = bob.post("/v1/prefixes", content=versions.encode(tokens_of(ids_of(3))))
    assert again.status_code == 201  # who asks learns nothing of what others have
    assert again.json()["prefix"] != prefix


def test_a_key_has_so_many_sessions_and_no_more(keyed):
    ada, bob, _ = keyed
    first, _ = ada.open().session, ada.open().session
    answer = ada.http.post("/v1/sessions", json=SessionRequest(FINAL).to_json())
    assert isinstance(fault_in(answer), SessionQuota)
    assert answer.headers["retry-after"] == "5"
    assert bob.post("/v1/sessions", json=SessionRequest(FINAL).to_json()).status_code == 201
    ada.http.delete(f"/v1/sessions/{first}")
    ada.open()


def test_a_key_that_has_spent_its_tokens_is_told_how_long_to_wait(keyed):
    ada, bob, _ = keyed
    for number in range(5):
        session = ada.open().session
        ada.step(session, tokens_of(ids_of(220), wanted=1, step=number))
        ada.http.delete(f"/v1/sessions/{session}")
    answer = ada.http.post("/v1/sessions", json=SessionRequest(FINAL).to_json())
    told = fault_in(answer)
    assert isinstance(told, QuotaSpent)
    assert answer.headers["retry-after"] == str(told.details["seconds"])
    assert 1 <= told.details["seconds"] <= 10
    assert ada.http.get("/v1/backbone").status_code == 200
    assert bob.post("/v1/sessions", json=SessionRequest(FINAL).to_json()).status_code == 201


def test_a_key_that_has_spent_its_bytes_may_only_give_back(keyed):
    ada, bob, _ = keyed
    session = ada.open().session
    ada.http.post("/v1/sessions", content=bytes(900_000))
    ada.http.post("/v1/sessions", content=bytes(200_000))
    assert isinstance(fault_in(ada.http.get("/v1/backbone")), QuotaSpent)
    assert ada.http.delete(f"/v1/sessions/{session}").status_code == 204
    assert bob.get("/v1/backbone").status_code == 200


def test_the_body_and_the_context_have_the_limits_that_were_set(cache, pulled_of):
    service = service_for(cache, pulled_of("llama"), context=20, body_bytes=4096)
    with running(service) as small:
        small.wait()
        opened = small.open()
        assert opened.limit == small.http.get("/v1/backbone").json()["positions"] == 20
        answer = small.post(opened.session, tokens_of(ids_of(21), wanted=1))
        assert isinstance(fault_in(answer), ContextExceeded)
        answer = small.post(opened.session, tokens_of(ids_of(2000), wanted=1))
        assert isinstance(fault_in(answer), FrameTooLarge)


def test_a_closing_door_lets_nobody_in(cloud):
    session = cloud.open().session
    cloud.service.admission.running += 1  # as long as anything runs, the server does not end
    cloud.service.admission.draining = True
    try:
        asked = cloud.http.post("/v1/sessions", json=SessionRequest(FINAL).to_json())
        for answer in (asked, cloud.http.get("/ready"), cloud.post(session, tokens_of([3]))):
            assert isinstance(fault_in(answer), Draining)
            assert answer.headers["retry-after"] == "5"
        assert cloud.http.get("/health").status_code == 200
    finally:
        cloud.service.admission.draining = False
        cloud.service.admission.running -= 1
    cloud.step(session, tokens_of([3]))


def test_every_answer_has_a_number_of_its_own(cloud):
    answers = [cloud.http.get(path) for path in ("/health", "/v1/backbone", "/nowhere")]
    numbers = {answer.headers["x-request-id"] for answer in answers}
    assert len(numbers) == 3
    assert all(len(number) == 16 for number in numbers)


@pytest.fixture(scope="module")
def authority(tmp_path_factory) -> tuple[Path, dict[str, str]]:
    """A certificate authority of our own, and a certificate for this machine."""
    folder = tmp_path_factory.mktemp("tls")
    root = trustme.CA()
    root.cert_pem.write_to_path(str(folder / "root.pem"))
    mine = root.issue_cert("127.0.0.1")
    mine.private_key_and_cert_chain_pem.write_to_path(str(folder / "mine.pem"))
    return folder / "root.pem", {"tls_cert": str(folder / "mine.pem")}


def test_tls_is_spoken_where_there_is_a_certificate(cache, pulled_of, authority):
    root, files = authority
    files = {**files, "tls_key": files["tls_cert"]}
    trust = ssl.create_default_context(cafile=str(root))
    with running(service_for(cache, pulled_of("llama"), **files), verify=trust) as served:
        served.wait()
        assert served.http.base_url.scheme == "https"
        served.step(served.open().session, tokens_of(ids_of(3)))
        with pytest.raises(httpx.ConnectError, match="certificate"):
            httpx.get(f"{served.http.base_url}/health")


def test_a_certificate_that_cannot_be_read_is_one_sentence(cache, pulled_of, tmp_path):
    (tmp_path / "broken.pem").write_text("no certificate")
    for name in ("absent.pem", "broken.pem"):
        file = str(tmp_path / name)
        service = service_for(cache, pulled_of("llama"), tls_cert=file, tls_key=file)
        with pytest.raises(BadSetting, match="TLS cannot be set up"):
            server_for(httpx, service.settings, service.admission)
