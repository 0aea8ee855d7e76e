"""A cloud and an agent as processes of their own, on a tiny backbone; and a browser."""

import os

import pytest

from benchmarks.processes import measured
from benchmarks.services import CLOUD, cloud, pull
from device_agent.settings import Settings
from tests.device_agent.page.browser import chromium
from tests.device_agent.serving import served
from tests.tiny import tiny_folder


@pytest.fixture(scope="package")
def backbone(tmp_path_factory):
    """A pulled tiny backbone, with the kit that plugins are trained by."""
    before = os.environ.get("SIDEPLUG_CACHE")
    os.environ["SIDEPLUG_CACHE"] = str(tmp_path_factory.mktemp("cache"))
    try:
        pulled = pull(str(tiny_folder("llama", tmp_path_factory.mktemp("models") / "tiny")))
        measured([*CLOUD, "compile", "ladder", "--backbone", pulled.name])
        yield pulled
    finally:
        os.environ.pop("SIDEPLUG_CACHE")
        if before is not None:
            os.environ["SIDEPLUG_CACHE"] = before


@pytest.fixture(scope="package")
def cloud_url(backbone):
    with cloud(backbone, "f32", 1) as found:
        yield found.url


def settings_at(home, url):
    return Settings(
        home=home, cloud=url, threads=1, prefix=32, patience=20, port=0, train_when="always"
    )


@pytest.fixture
def agent(cloud_url, tmp_path):
    """The agent of an empty home."""
    with served(settings_at(tmp_path / "home", cloud_url)) as found:
        yield found


@pytest.fixture(scope="module")
def browser():
    with chromium() as found:
        yield found
