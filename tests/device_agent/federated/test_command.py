"""``sideplug federate`` without a server."""

import json

import numpy as np
import pytest

from device_agent.cli import main
from device_agent.federated.shared import Shared, keep


def run(home, *words, capsys):
    code = main(["federate", *words, "--home", str(home), "--json"])
    out, err = capsys.readouterr()
    return code, json.loads(out.splitlines()[-1]) if out else None, err


def test_status_and_leave(tmp_path, capsys):
    assert run(tmp_path, "status", capsys=capsys)[1] == {
        "setting": "off",
        "kit": None,
        "round": None,
        "rounds": None,
    }
    keep(tmp_path, Shared("kit-1", 2, 5, {"w": np.ones(2, np.float32)}))
    assert run(tmp_path, "status", capsys=capsys)[1]["round"] == 2
    assert run(tmp_path, "leave", capsys=capsys)[1] == {"forgotten": True}
    assert run(tmp_path, "leave", capsys=capsys)[1] == {"forgotten": False}


@pytest.mark.parametrize("words", [["join"], ["status", "http://x:1"]])
def test_join_alone_takes_an_address(tmp_path, capsys, words):
    with pytest.raises(SystemExit, match="2"):
        main(["federate", *words, "--home", str(tmp_path)])
    assert "address" in capsys.readouterr().err


@pytest.mark.parametrize("url", ["somewhere", "ftp://host:1", "http://host", "http://host:port"])
def test_an_address_that_is_none_is_told(tmp_path, capsys, url):
    pytest.importorskip("flwr")
    code, told, _ = run(tmp_path, "join", url, "--federated", "on", capsys=capsys)
    assert code == 1
    assert told["error"]["code"] == "BadServerAddress"


def test_a_key_is_made_once(tmp_path, capsys):
    pytest.importorskip("flwr")
    keys = [run(tmp_path, "key", capsys=capsys)[1]["public_key"] for _ in range(2)]
    assert keys[0] == keys[1]
    assert "PUBLIC KEY" in keys[0]
    (tmp_path / "federated" / "key.pem").write_text("no key")
    assert run(tmp_path, "key", capsys=capsys)[1]["error"]["code"] == "DamagedKey"
