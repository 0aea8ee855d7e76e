"""The Grafana dashboard asks for nothing that is not counted, and the metrics keep to their forms."""

import json
import re
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

import cloud_service
from tests.cloud_service.running import EVERYTHING, ids_of, tokens_of

FILE = Path(cloud_service.__file__).parent / "dashboard" / "grafana.json"
DASHBOARD = json.loads(FILE.read_text())
PANELS = [panel for panel in DASHBOARD["panels"] if panel["type"] != "row"]


@pytest.fixture(scope="module")
def families(cloud):
    """The metrics of a service that has done a little of everything."""
    session = cloud.open(EVERYTHING).session
    cloud.step(session, tokens_of(ids_of(3)))
    cloud.step(session, tokens_of(ids_of(1), position=3, step=1))
    cloud.post(session, tokens_of(ids_of(1), step=2))
    text = cloud.http.get("/metrics").text
    return {family.name: family for family in text_string_to_metric_families(text)}


def samples(families):
    return {sample.name: sample for family in families.values() for sample in family.samples}


@pytest.mark.parametrize("panel", PANELS, ids=lambda panel: panel["title"])
def test_every_metric_that_a_panel_asks_for_is_counted_with_its_labels(families, panel):
    counted = samples(families)
    for target in panel["targets"]:
        asked = re.findall(r"sideplug_\w+", target["expr"])
        assert asked
        for name in asked:
            assert name in counted
            for label in re.findall(r"by \(([^)]*)\)", target["expr"]):
                assert set(label.split(", ")) <= counted[name].labels.keys()
            shown = re.findall(r"{{(\w+)}}", target["legendFormat"])
            assert set(shown) - {"instance"} <= counted[name].labels.keys()


def test_panels_stand_beside_each_other_and_have_numbers_of_their_own():
    assert len({panel["id"] for panel in DASHBOARD["panels"]}) == len(DASHBOARD["panels"])
    places = set()
    for panel in DASHBOARD["panels"]:
        place = panel["gridPos"]
        cells = {
            (place["x"] + x, place["y"] + y) for x in range(place["w"]) for y in range(place["h"])
        }
        assert not places & cells
        assert all(x < 24 for x, _ in cells)
        places |= cells


def test_metrics_have_our_prefix_base_units_and_total_where_they_only_grow(families):
    for name, family in families.items():
        assert name.startswith("sideplug_")
        assert not re.search(r"_(ms|milliseconds|kb|mb|minutes|percent)\b", name)
        if family.type == "counter":
            assert {sample.name for sample in family.samples} <= {
                f"{name}_total",
                f"{name}_created",
            }
    for name in ("time_to_first_token_seconds", "inter_token_latency_seconds"):
        assert families[f"sideplug_{name}"].type == "histogram"
    assert families["sideplug_num_requests_running"].type == "gauge"
