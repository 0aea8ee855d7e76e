import pytest

from tests.device_agent.desk import Desk
from tests.device_agent.home import toy_home
from tests.device_agent.scripted_cloud import ScriptedCloud
from tests.device_agent.talk import Talk


@pytest.fixture
def talk_to():
    """Serve a reply over a real socket and talk to it."""
    open_ones = []

    def begin(reply, **options):
        server = ScriptedCloud(reply)
        serving = server.serving()
        serving.__enter__()
        talk = Talk(server.url, **options)
        open_ones.append((talk, serving))
        return talk, server

    yield begin
    for talk, serving in open_ones:
        talk.cloud.close()
        serving.__exit__(None, None, None)


@pytest.fixture
def sideplug(tmp_path, capsys, monkeypatch):
    """Commands in an empty home that knows a toy cloud."""
    with toy_home(tmp_path) as (cloud, settings):
        yield Desk(cloud, settings, capsys, monkeypatch)
