"""``sideplug-cloud federate`` as far as it needs no devices."""

import json

import pytest

from cloud_service.cli import main
from cloud_service.errors import CloudError

RUN = ("federate", "run")


def run(tmp_path, *words):
    return main([*words, "--cache", str(tmp_path)])


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("--strategy", "fedsomething"), "--strategy must be one of"),
        (("--noise", "1"), "needs --clip"),
        (("--name", "../up"), "--name must be"),
        (("--host", "0.0.0.0"), "can be reached from the network"),
        (("--host", "0.0.0.0", "--admit", "keys.pem"), "no TLS"),
    ],
)
def test_what_cannot_work_is_told_before_anything_begins(tmp_path, capsys, words, told):
    assert run(tmp_path, *RUN, *words) == 2
    assert told in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_a_federation_without_rounds_has_an_empty_status(tmp_path, capsys):
    assert run(tmp_path, "federate", "status", "--json") == 0
    assert json.loads(capsys.readouterr().out) == []


def test_status_shows_each_round(tmp_path, capsys):
    folder = tmp_path / "federations" / "default"
    folder.mkdir(parents=True)
    line = {"round": 1, "answered": 3, "asked": 4, "refused": [{"device": 1}], "missing": 0}
    (folder / "rounds.jsonl").write_text(json.dumps(line) + "\n")
    assert run(tmp_path, "federate", "status") == 0
    assert "round 1: 3 of 4 updates, 1 refused, 0 missing" in capsys.readouterr().out
    (folder / "rounds.jsonl").write_text("nonsense\n")
    assert run(tmp_path, "federate", "status") == 1


def test_a_file_of_keys_holds_public_keys_alone(tmp_path):
    pytest.importorskip("flwr")
    from flwr.supercore.primitives.asymmetric import (
        generate_key_pairs,
        private_key_to_bytes,
        public_key_to_bytes,
    )

    from cloud_service.federated.superlink import keys_in

    pairs = [generate_key_pairs() for _ in range(2)]
    public = [public_key_to_bytes(pair[1]) for pair in pairs]
    path = tmp_path / "keys.pem"
    path.write_bytes(b"\n".join([*public, public[0]]))
    assert keys_in(path) == public
    for wrong in (b"", b"nonsense", private_key_to_bytes(pairs[0][0])):
        path.write_bytes(wrong)
        with pytest.raises(CloudError):
            keys_in(path)
    with pytest.raises(CloudError):
        keys_in(tmp_path / "missing.pem")
