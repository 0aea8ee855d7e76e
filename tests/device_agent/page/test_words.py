"""The page has words for all that it may have to show."""

import re

from device_agent.api.page import FOLDER
from device_agent.cloud.traffic import KINDS


def test_each_kind_of_request_is_explained():
    script = (FOLDER / "egress.js").read_text(encoding="utf-8")
    rows = script.partition("const KINDS = {")[2].partition("};")[0]
    assert set(re.findall(r"^  (\w+): ", rows, re.MULTILINE)) == set(KINDS)
