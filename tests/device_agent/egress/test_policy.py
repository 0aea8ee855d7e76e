"""The policy says what it says, and anything that it cannot say keeps everything here."""

import os
import sys

import pytest

from device_agent.cloud.traffic import KINDS, Outgoing
from device_agent.egress.policy import POLICY, BadPolicy, Policy, PolicyFile, PolicyForbids


@pytest.fixture
def write(tmp_path):
    def write(text, mode=0o600):
        path = tmp_path / POLICY
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        path.chmod(mode)
        return PolicyFile(tmp_path)

    return write


def passes(policy, kind, host="cloud:1", proxy=""):
    try:
        policy.require(Outgoing(kind, host, 1, proxy=proxy))
    except PolicyForbids:
        return False
    return True


def test_without_a_file_everything_may_leave(tmp_path):
    policy = PolicyFile(tmp_path).now()
    assert policy == Policy()
    assert all(passes(policy, kind) for kind in KINDS)


@pytest.mark.parametrize(
    ("hosts", "host", "may"),
    [
        ('["cloud"]', "cloud:1", True),
        ('["cloud:1"]', "cloud:1", True),
        ('["cloud:2"]', "cloud:1", False),
        ('["CLOUD:1"]', "cloud:1", True),
        ('["cloud"]', "my.cloud:1", False),
        ('["cloud"]', "cloud.evil:1", False),
        ('["[::1]"]', "[::1]:8471", True),
        ('["[::1]:8471"]', "[::1]:8471", True),
        ("[]", "cloud:1", False),
    ],
)
def test_text_goes_to_the_hosts_of_the_list_alone(write, hosts, host, may):
    policy = write(f"text_hosts = {hosts}").now()
    for kind, about in KINDS.items():
        assert passes(policy, kind, host) is (may or not about.text), kind


def test_who_passes_text_on_and_reads_it_must_be_of_the_list_too(write):
    policy = write('text_hosts = ["cloud"]').now()
    assert not passes(policy, "prompt", proxy="proxy:3128")
    assert passes(policy, "facts", proxy="proxy:3128")


def test_a_kind_that_never_leaves_never_leaves(write):
    policy = write('never = ["prefix", "kit"]').now()
    assert {kind for kind in KINDS if not passes(policy, kind)} == {"prefix", "kit"}


def test_caps_are_read_by_kind(write):
    policy = write("[bytes_per_day]\nall = 5_000\nprompt = 0").now()
    assert policy.bytes_per_day == {"all": 5000, "prompt": 0}


@pytest.mark.parametrize(
    "text",
    [
        "text_host = []",
        "text_hosts = 'cloud'",
        "text_hosts = [1]",
        "text_hosts = ['http://cloud']",
        "text_hosts = ['']",
        "text_hosts = ['cloud:']",
        "text_hosts = ['cloud:http']",
        "text_hosts = ['me@cloud']",
        "text_hosts = ['cloud/way']",
        "never = 'prefix'",
        "never = ['prefixes']",
        "bytes_per_day = 5",
        "[bytes_per_day]\nanswers = 5",
        "[bytes_per_day]\nall = -1",
        "[bytes_per_day]\nall = true",
        "[bytes_per_day]\nall = 1.5",
        "[bytes_per_day]\nall = '5'",
        "[surprise]",
        "text_hosts = [",
        "text_hosts = []\ntext_hosts = []",
        b"\xff",
        b"never = []\0",
    ],
)
def test_what_is_not_understood_is_an_error_and_not_left_out(write, text):
    with pytest.raises(BadPolicy) as caught:
        write(text).now()
    assert POLICY in str(caught.value)


def test_a_policy_that_is_a_folder_is_an_error(tmp_path):
    (tmp_path / POLICY).mkdir(mode=0o700)
    with pytest.raises(BadPolicy):
        PolicyFile(tmp_path).now()


@pytest.mark.skipif(sys.platform == "win32", reason="modes work differently there")
def test_a_policy_that_others_can_change_is_an_error(write):
    with pytest.raises(BadPolicy, match="chmod go-w"):
        write("", mode=0o620).now()


@pytest.mark.skipif(
    sys.platform == "win32" or os.geteuid() == 0, reason="root may read whatever it likes"
)
def test_a_policy_that_cannot_be_read_is_an_error(write):
    with pytest.raises(BadPolicy):
        write("", mode=0o000).now()


def test_a_change_holds_from_the_next_look_on(write):
    file = write("")
    assert file.now() == Policy()
    write('never = ["kit"]')
    assert file.now().never == {"kit"}
    write("never = [")
    for _ in range(2):
        with pytest.raises(BadPolicy):
            file.now()
    write("never = []")
    assert file.now() == Policy()
    file.path.unlink()
    assert file.now() == Policy()
