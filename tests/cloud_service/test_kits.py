import asyncio
import hashlib
import json
import logging
import sys
import time

import pytest

from adapters.plan import kit_id
from adapters.recipe import RECIPES
from cloud_service import kits as kits_module
from cloud_service.errors import CompileFailed
from cloud_service.kits import Kits, compile_recipe
from protocol.errors import KitNotFound, KitNotReady, UnknownRecipe
from protocol.kit import KitManifest
from tests import tiny
from tests.cloud_service.running import fault_in, put_kit, running, service_for


@pytest.fixture(scope="module")
def spa(cache, pulled_of):
    """A kit that is ready, of a recipe that is not the default one."""
    return put_kit(cache, pulled_of("llama"), "spa")


@pytest.fixture
def facts(pulled_of):
    return pulled_of("llama").record.facts()


@pytest.fixture
def served(cache, pulled_of, spa):
    with running(service_for(cache, pulled_of("llama"))) as made:
        yield made


@pytest.mark.slow
def test_a_kit_is_compiled_once(folder_of, pull_into, tmp_path):
    pulled = pull_into(folder_of("llama"))
    first = compile_recipe("spa", pulled, tmp_path, logging.debug)
    assert first.id == kit_id(RECIPES["spa"], pulled.record.facts())
    assert (first.vocabulary, first.hidden) == (tiny.VOCABULARY, tiny.HIDDEN)
    said = []
    assert compile_recipe("spa", pulled, tmp_path, said.append).id == first.id
    assert said == []


def test_the_dtype_of_serving_asks_for_no_other_kit(cache, pulled_of, spa):
    kits = Kits(cache, pulled_of("llama").record.facts("bf16"), ("spa",))
    assert kits.missing() == []
    assert kits.manifest("spa").id == spa.id


def test_kits_are_listed_with_their_recipes(served, spa):
    assert served.http.get("/v1/kits").json() == {
        "kits": [{"id": spa.id, "recipe": "spa", "ready": True}]
    }


@pytest.mark.parametrize("by", ["recipe", "id"])
def test_a_manifest_is_found_by_recipe_and_by_id(served, spa, by):
    answer = served.http.get(f"/v1/kits/{getattr(spa, by)}")
    assert KitManifest.from_json(answer.json()) == KitManifest.from_json(
        json.loads(json.dumps(spa.to_json()))
    )


def test_every_file_of_a_kit_is_what_the_manifest_says(served, spa):
    for name, entry in spa.files.items():
        answer = served.http.get(f"/v1/kits/{spa.id}/files/{name}")
        assert hashlib.sha256(answer.content).hexdigest() == entry.sha256
        assert answer.headers["content-length"] == str(entry.size)
        assert answer.headers["etag"] == f'"{entry.sha256}"'


def test_a_download_that_broke_goes_on_where_it_was(served, spa):
    path = f"/v1/kits/{spa.id}/files/infer.onnx"
    whole = served.http.get(path).content
    assert len(whole) > 100
    rest = served.http.get(path, headers={"Range": "bytes=100-"})
    assert (rest.status_code, rest.content) == (206, whole[100:])


@pytest.mark.parametrize(
    "name", ["manifest.json", "absent", "..%2Fmanifest.json", "%2Fetc%2Fpasswd", "..%5C..%5Cx"]
)
def test_nothing_but_the_files_of_the_manifest_is_served(served, spa, name):
    answer = served.http.get(f"/v1/kits/{spa.id}/files/{name}")
    assert answer.status_code == 404
    assert fault_in(answer).code in ("kit_not_found", "unknown_endpoint")


def test_an_unknown_kit_or_recipe_is_told_so(served):
    assert isinstance(fault_in(served.http.get("/v1/kits/" + "0" * 64)), KitNotFound)
    unknown = fault_in(served.http.get("/v1/kits/ladr"))
    assert isinstance(unknown, UnknownRecipe)
    assert unknown.details == {"recipe": "ladr", "known": "spa"}


def test_a_recipe_that_is_not_offered_is_unknown(served):
    assert isinstance(fault_in(served.http.get("/v1/kits/ladder")), UnknownRecipe)


def test_a_kit_that_is_on_its_way_is_not_ready(cache, facts, spa):
    kits = Kits(cache, facts, ("ladder", "spa"))
    assert kits.missing() == ["ladder"]
    assert [(offer.recipe, offer.ready) for offer in kits.offers()] == [
        ("ladder", False),
        ("spa", True),
    ]
    with pytest.raises(KitNotReady) as refused:
        kits.manifest("ladder")
    assert refused.value.details == {"recipe": "ladder"}


def test_a_kit_of_another_backbone_is_not_handed_out(cache, pulled_of, spa):
    other = Kits(cache, pulled_of("qwen2").record.facts(), ("spa",))
    with pytest.raises(KitNotFound):
        other.manifest(spa.id)
    with pytest.raises(KitNotFound):
        other.file(spa.id, "infer.onnx")


def test_a_damaged_manifest_is_named(tmp_path, facts):
    folder = tmp_path / "kits" / kit_id(RECIPES["ladder"], facts)
    folder.mkdir(parents=True)
    (folder / "manifest.json").write_text("{}")
    with pytest.raises(CompileFailed, match="cannot be read"):
        Kits(tmp_path, facts, ("ladder",)).manifest("ladder")


def test_a_recipe_nobody_knows_is_refused_with_those_there_are(cache, pulled_of, facts):
    for ask in (
        lambda: Kits(cache, facts, ("ladr",)),
        lambda: compile_recipe("ladr", pulled_of("llama"), cache, logging.debug),
    ):
        with pytest.raises(CompileFailed, match="ladr") as refused:
            ask()
        assert "ladder" in refused.value.hint


def test_a_folder_that_holds_something_else_is_not_overwritten(tmp_path, pulled_of, facts):
    folder = tmp_path / "kits" / kit_id(RECIPES["spa"], facts)
    folder.mkdir(parents=True)
    (folder / "mine.txt").write_text("mine")
    with pytest.raises(CompileFailed, match="spa cannot be compiled"):
        compile_recipe("spa", pulled_of("llama"), tmp_path, logging.debug)
    assert (folder / "mine.txt").read_text() == "mine"


@pytest.fixture
def compiler(monkeypatch):
    """Puts a few lines of Python in the place of the command that compiles."""

    def put(lines):
        monkeypatch.setattr(kits_module, "COMPILER", (sys.executable, "-c", lines))

    return put


def test_what_cannot_be_compiled_is_logged_and_no_longer_offered(tmp_path, facts, compiler, caplog):
    compiler("import sys; print('working', file=sys.stderr); sys.exit('no room on the disk')")
    kits = Kits(tmp_path, facts, ("ladder",))
    asyncio.run(kits.compile_missing())
    assert "no room on the disk" in caplog.text
    assert kits.offers() == []
    with pytest.raises(UnknownRecipe):
        kits.manifest("ladder")


def test_a_compiler_that_says_nothing_is_known_by_its_exit_code(tmp_path, facts, compiler, caplog):
    compiler("import sys; sys.exit(3)")
    asyncio.run(Kits(tmp_path, facts, ("ladder",)).compile_missing())
    assert "exit code 3" in caplog.text


def test_stopping_the_service_stops_the_compiler(tmp_path, facts, compiler):
    begun, ended = tmp_path / "begun", tmp_path / "ended"
    compiler(
        "import pathlib, time;"
        f"pathlib.Path({str(begun)!r}).touch(); time.sleep(20); pathlib.Path({str(ended)!r}).touch()"
    )

    async def stop_it():
        task = asyncio.create_task(Kits(tmp_path, facts, ("ladder",)).compile_missing())
        while not begun.exists():
            await asyncio.sleep(0.02)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    started = time.monotonic()
    asyncio.run(stop_it())
    assert time.monotonic() - started < 15
    assert not ended.exists()


@pytest.mark.slow
def test_a_running_service_compiles_what_is_missing(tmp_path, folder_of, pull_into):
    pulled = pull_into(folder_of("llama"))
    with running(service_for(tmp_path / "cache", pulled, recipe=("spa",))) as served:
        answer = served.http.get("/v1/kits/spa")
        assert isinstance(fault_in(answer), KitNotReady)
        assert answer.headers["retry-after"] == "5"
        for _ in range(600):
            if served.http.get("/v1/kits/spa").status_code == 200:
                break
            time.sleep(0.2)
        manifest = KitManifest.from_json(served.http.get("/v1/kits/spa").json())
        assert manifest.fingerprint == pulled.record.fingerprint
