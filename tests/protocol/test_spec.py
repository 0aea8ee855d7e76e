"""The specification and the code say the same."""

import re
from dataclasses import fields
from pathlib import Path
from string import Formatter

import pytest

import protocol
from protocol.codecs import CODECS
from protocol.errors import FAULTS
from protocol.facts import BackboneFacts
from protocol.kit import KitManifest
from protocol.limits import Limits
from protocol.messages import PrefixKept, SessionOpened, SessionRequest, Wants

SPEC = (Path(protocol.__file__).parent / "SPEC.md").read_text(encoding="utf-8")
ROWS = [[cell.strip() for cell in line.strip("|").split("|")] for line in SPEC.splitlines()]


def section(title: str) -> str:
    return SPEC.split(f"## {title}\n")[1].split("\n## ")[0]


def test_the_table_of_faults_is_that_of_the_code():
    rows = [tuple(row) for row in ROWS if len(row) == 4 and row[0].isdigit() and row[2].isdigit()]
    written = [row for row in rows if re.fullmatch("[a-z_]+", row[1]) and int(row[0]) >= 100]
    assert written == [
        (
            str(fault.number),
            fault.code,
            str(fault.status),
            ", ".join(name for _, name, _, _ in Formatter().parse(fault.sentence) if name),
        )
        for fault in FAULTS.values()
    ]


def test_every_fault_named_in_the_text_is_one():
    assert set(re.findall("`([a-z]+_[a-z]+)`", SPEC)) <= set(FAULTS) | set(Limits().to_json())


def test_the_table_of_codecs_is_that_of_the_code():
    rows = [line.split("|")[1:3] for line in section("Codecs").splitlines() if line[2:3].isdigit()]
    assert [(int(number), name.strip()) for number, name in rows] == [
        (codec.number, codec.name) for codec in CODECS.values()
    ]


@pytest.mark.parametrize(("name", "value"), Limits().to_json().items())
def test_the_default_limits_are_those_of_the_code(name, value):
    assert re.search(rf"`{name}` {value}\b", section("Limits"))


@pytest.mark.parametrize(
    "document", [BackboneFacts, KitManifest, PrefixKept, Wants, SessionRequest, SessionOpened]
)
def test_every_field_of_a_document_is_written_down(document):
    text = section("JSON")
    assert [
        field.name for field in fields(document) if not re.search(rf"\b{field.name}\b", text)
    ] == []
