import stat

import pytest

from cloud_service.errors import BadSetting
from cloud_service.keys import KeyLimits, KeyStore
from protocol.errors import KeyRevoked, KeyUnknown


@pytest.fixture
def file(tmp_path):
    return tmp_path / "deep" / "keys.sqlite"


@pytest.fixture
def store(file):
    with_file = KeyStore(file)
    yield with_file
    with_file.close()


def test_a_key_is_found_with_its_name_and_limits(store):
    limits = KeyLimits(sessions=3, tokens_per_minute=None, bytes_per_day=10**9)
    found = store.find(store.add("ada", limits))
    assert (found.name, found.limits, found.revoked) == ("ada", limits, None)


def test_the_file_holds_no_key_and_is_its_owners_alone(store, file):
    key = store.add("ada", KeyLimits())
    secret = key.split("_", 2)[2]
    assert len(secret) >= 43
    assert secret.encode() not in file.read_bytes()
    assert stat.S_IMODE(file.stat().st_mode) == 0o600


@pytest.mark.parametrize(
    "change",
    [
        lambda key: key[:-1] + ("A" if key[-1] != "A" else "B"),
        lambda key: key[:-1],
        lambda key: key + "A",
        lambda key: key.replace("sideplug", "other"),
        lambda key: key.split("_", 2)[2],
        lambda key: key.rsplit("_", 1)[0] if key.count("_") == 2 else "",
        lambda _: "",
        lambda _: "sideplug_00000000_x",
        lambda key: key + "é",
    ],
)
def test_what_is_not_exactly_a_key_is_unknown(store, change):
    key = store.add("ada", KeyLimits())
    with pytest.raises(KeyUnknown):
        store.find(change(key))


def test_the_secret_of_one_key_does_not_open_another(store):
    first, second = (store.add(name, KeyLimits()) for name in ("ada", "bob"))
    mixed = "_".join([*first.split("_", 2)[:2], second.split("_", 2)[2]])
    with pytest.raises(KeyUnknown):
        store.find(mixed)


def test_a_revoked_key_ends_at_once_also_for_a_service_that_has_the_file_open(store, file):
    key = store.add("ada", KeyLimits())
    elsewhere = KeyStore(file)
    elsewhere.revoke("ada")
    elsewhere.close()
    with pytest.raises(KeyRevoked) as refused:
        store.find(key)
    assert refused.value.details["key"] in key


def test_revoking_the_last_key_does_not_open_the_service(store):
    assert not store
    store.add("ada", KeyLimits())
    store.revoke("ada")
    assert store


def test_a_name_is_free_again_when_its_key_is_revoked(store):
    first = store.add("ada", KeyLimits())
    with pytest.raises(BadSetting, match="there is a key ada already"):
        store.add("ada", KeyLimits())
    store.revoke("ada")
    assert store.add("ada", KeyLimits()) != first
    assert [(key.name, key.revoked is None) for key in store] == [("ada", False), ("ada", True)]


@pytest.mark.parametrize("name", ["", "Ada", "a b", "../x", "local"])
def test_a_name_that_is_none_is_refused(store, name):
    with pytest.raises(BadSetting, match="no name for a key"):
        store.add(name, KeyLimits())


def test_nobody_is_revoked_twice(store):
    with pytest.raises(BadSetting, match="there is no key ada"):
        store.revoke("ada")


@pytest.mark.parametrize("name", ["sessions", "tokens_per_minute", "bytes_per_day"])
def test_a_limit_of_nothing_is_refused(name):
    with pytest.raises(BadSetting, match=f"{name} must be at least 1, but is 0"):
        KeyLimits(**{name: 0})
