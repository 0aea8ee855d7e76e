import os
import threading

import numpy as np
import pytest
from safetensors.numpy import save_file

from device_agent.atomic import replace_folder
from device_agent.cloud.client import CloudClient, CloudUnreachable
from device_agent.runtime.kits import COMPILE_TRIES, DamagedKit, KitStore, WrongBackbone
from protocol.errors import KitNotFound, KitNotReady
from tests.device_agent.scripted_cloud import Answer, ScriptedCloud, json_answer
from tests.device_agent.small_kit import HIDDEN, small_facts, small_kit, write_kit


class KitCloud:
    """Serves facts and kits out of a folder; single answers can be replaced."""

    def __init__(self, folder):
        self.folder = folder
        self.manifest = write_kit(folder)
        self.facts = small_facts()
        self.special = {}

    def __call__(self, request):
        if request.path in self.special:
            return self.special[request.path](request)
        if request.path == "/v1/backbone":
            return json_answer(self.facts.to_json())
        if "/files/" in request.path:
            return Answer((self.folder / request.path.rsplit("/", 1)[1]).read_bytes())
        if request.path in ("/v1/kits/small", f"/v1/kits/{self.manifest.id}"):
            return json_answer(self.manifest.to_json())
        fault = KitNotFound(kit=request.path)
        return json_answer(fault.to_json(), fault.status)


@pytest.fixture
def kit_cloud(tmp_path):
    return KitCloud(tmp_path / "cloud")


@pytest.fixture
def server(kit_cloud):
    with ScriptedCloud(kit_cloud).serving() as server:
        yield server


@pytest.fixture
def cloud(server):
    with CloudClient(server.url, sleep=lambda _: None) as cloud:
        yield cloud


@pytest.fixture
def store(tmp_path):
    return KitStore(tmp_path / "home", sleep=lambda _: None)


def files_under(folder):
    return sorted(path.name for path in folder.rglob("*") if path.is_file())


def downloads(server):
    return [path for path in server.paths() if "/files/" in path]


def test_a_kit_arrives_whole(store, cloud, kit_cloud):
    kit = store.obtain(cloud, "small")
    assert kit.manifest == kit_cloud.manifest
    for name in kit.manifest.files:
        assert kit.path(name).read_bytes() == (kit_cloud.folder / name).read_bytes()
    assert kit.path("head.codes").parent == kit.path("head.onnx").parent
    assert store.check(kit) == []


def test_a_kit_is_fetched_once(store, cloud, server):
    store.obtain(cloud, "small")
    count = len(downloads(server))
    store.obtain(cloud, "small")
    store.obtain(cloud, "small-1")
    assert len(downloads(server)) == count == 6


def test_a_file_that_two_kits_share_is_fetched_and_kept_once(store, cloud, server, kit_cloud):
    first = store.obtain(cloud, "small")
    kit_cloud.manifest = write_kit(kit_cloud.folder, kit_id="small-2")
    second = store.obtain(cloud, "small")
    assert second.folder != first.folder
    assert len(downloads(server)) == 6
    if hasattr(os, "link"):
        assert os.path.samefile(first.path("head.codes"), second.path("head.codes"))


def test_where_there_are_no_hard_links_a_kit_is_copied(store, cloud, monkeypatch):
    def refuse(source, target):
        raise OSError("not supported")

    monkeypatch.setattr(os, "link", refuse)
    assert store.check(store.obtain(cloud, "small")) == []


def test_progress_tells_bytes_and_sizes(store, cloud, kit_cloud):
    seen = {}
    store.obtain(cloud, "small", lambda name, done, size: seen.__setitem__(name, (done, size)))
    assert seen == {name: (file.size, file.size) for name, file in kit_cloud.manifest.files.items()}


def test_a_kit_that_is_being_compiled_is_waited_for(cloud, kit_cloud, tmp_path):
    pauses = []
    asked = []

    def busy(_request):
        asked.append(True)
        if len(asked) == 5:
            return json_answer(kit_cloud.manifest.to_json())
        fault = KitNotReady(recipe="small")
        return json_answer(fault.to_json(), fault.status)

    kit_cloud.special["/v1/kits/small"] = busy
    KitStore(tmp_path / "home", sleep=pauses.append).obtain(cloud, "small")
    assert len(pauses) == 4


def test_a_kit_that_is_never_ready_is_given_up(store, cloud, kit_cloud):
    fault = KitNotReady(recipe="small")
    asked = []
    kit_cloud.special["/v1/kits/small"] = lambda request: (
        asked.append(True) or json_answer(fault.to_json(), fault.status)
    )
    with pytest.raises(KitNotReady):
        store.obtain(cloud, "small")
    assert len(asked) == COMPILE_TRIES


def test_a_cut_download_is_made_again(store, cloud, server, kit_cloud):
    whole = (kit_cloud.folder / "head.codes").read_bytes()
    cuts = [Answer(whole[:1000], missing=len(whole) - 1000), Answer(whole)]
    kit_cloud.special["/v1/kits/small-1/files/head.codes"] = lambda request: cuts.pop(0)
    kit = store.obtain(cloud, "small")
    assert kit.path("head.codes").read_bytes() == whole
    assert len(downloads(server)) == 7


@pytest.mark.parametrize(
    "spoil",
    [
        lambda data: data[:-1] + bytes([data[-1] ^ 1]),
        lambda data: data[:-1],
        lambda data: data + b"\x00",
        lambda data: b"",
    ],
    ids=["one bit", "short", "long", "empty"],
)
def test_a_corrupted_download_is_detected_and_leaves_nothing(
    store, cloud, kit_cloud, tmp_path, spoil
):
    data = (kit_cloud.folder / "head.codes").read_bytes()
    kit_cloud.special["/v1/kits/small-1/files/head.codes"] = lambda request: Answer(spoil(data))
    with pytest.raises(DamagedKit, match=r"head\.codes"):
        store.obtain(cloud, "small")
    assert kit_cloud.manifest.files["head.codes"].sha256 not in files_under(tmp_path / "home")
    assert not [name for name in files_under(tmp_path / "home") if "part" in name]
    assert store.find("small") is None


def test_what_an_interrupted_fetch_had_whole_is_not_fetched_again(store, cloud, server, kit_cloud):
    gone = "/v1/kits/small-1/files/infer.onnx"
    kit_cloud.special[gone] = lambda request: Answer(b"", missing=9)
    with pytest.raises(CloudUnreachable):
        store.obtain(cloud, "small")
    had = {path for path in downloads(server) if not path.endswith("infer.onnx")}
    del kit_cloud.special[gone]
    server.requests.clear()
    store.obtain(cloud, "small")
    assert not had & set(downloads(server))


def test_a_fetch_stopped_by_the_person_leaves_nothing_half(store, cloud, tmp_path):
    def stop(name, done, size):
        if name == "head.onnx":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        store.obtain(cloud, "small", stop)
    assert store.find("small") is None
    assert not [name for name in files_under(tmp_path / "home") if "part" in name]


def test_a_blob_that_rotted_is_fetched_again(store, cloud, kit_cloud, tmp_path):
    (tmp_path / "home" / "blobs").mkdir(parents=True)
    sha256 = kit_cloud.manifest.files["head.codes"].sha256
    (tmp_path / "home" / "blobs" / sha256).write_bytes(b"rotten")
    assert store.check(store.obtain(cloud, "small")) == []


def test_a_kit_that_rotted_is_found_by_the_check(store, cloud):
    kit = store.obtain(cloud, "small")
    data = bytearray(kit.path("head.bias").read_bytes())
    data[3] ^= 1
    kit.path("head.bias").unlink()
    kit.path("head.bias").write_bytes(data)
    kit.path("head.scales").unlink()
    assert store.check(kit) == ["head.bias", "head.scales"]


def test_a_kit_for_another_backbone_than_the_clouds_is_refused(store, cloud, kit_cloud):
    kit_cloud.facts = small_facts(fingerprint="e" * 64)
    with pytest.raises(WrongBackbone) as caught:
        store.obtain(cloud, "small")
    assert (caught.value.expected, caught.value.got) == ("e" * 64, "f" * 64)


def test_a_kit_on_the_device_is_refused_once_the_cloud_has_changed(store, cloud, server, kit_cloud):
    store.obtain(cloud, "small-1")
    kit_cloud.facts = small_facts(fingerprint="e" * 64)
    count = len(downloads(server))
    with pytest.raises(WrongBackbone):
        store.obtain(cloud, "small-1")
    assert len(downloads(server)) == count


@pytest.mark.parametrize("name", ["small", "small-1"])
def test_without_the_cloud_a_kit_that_is_here_will_do(store, cloud, name):
    store.obtain(cloud, "small")
    with CloudClient("http://127.0.0.1:9", sleep=lambda _: None) as nobody:
        assert store.obtain(nobody, name).manifest.id == "small-1"


def test_without_the_cloud_and_the_kit_the_cloud_is_missed(store):
    with CloudClient("http://127.0.0.1:9", sleep=lambda _: None) as nobody:
        with pytest.raises(CloudUnreachable):
            store.obtain(nobody, "small")


def test_a_kit_that_the_cloud_does_not_have_is_told(store, cloud):
    with pytest.raises(KitNotFound):
        store.obtain(cloud, "grand")


@pytest.mark.parametrize("name", ["../../outside", "/etc", "", "."])
def test_a_name_that_is_a_path_finds_nothing(store, tmp_path, name):
    (tmp_path / "outside").mkdir()
    write_kit(tmp_path / "outside")
    (tmp_path / "outside" / "manifest.json").write_text("{}")
    (tmp_path / "home" / "kits").mkdir(parents=True)
    (tmp_path / "home" / "kits" / "manifest.json").write_text("{}")
    assert store.find(name) is None


@pytest.mark.parametrize("content", [b"", b"{}", b"[1]", b"\xff"])
def test_a_kit_whose_manifest_rotted_is_put_together_again(store, cloud, server, content):
    kit = store.obtain(cloud, "small")
    (kit.folder / "manifest.json").write_bytes(content)
    assert store.find("small") is None
    count = len(downloads(server))
    assert store.obtain(cloud, "small-1").manifest == kit.manifest
    assert store.find("small") is not None
    assert len(downloads(server)) == count


def test_two_processes_that_fetch_at_once_both_get_the_kit(server, tmp_path):
    kits, errors = [], []

    def fetch():
        try:
            with CloudClient(server.url) as cloud:
                kits.append(KitStore(tmp_path / "home").obtain(cloud, "small"))
        except Exception as error:
            errors.append(error)

    threads = [threading.Thread(target=fetch) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    assert len(kits) == 4


def test_a_kit_that_another_process_has_just_put_there_will_do(store, cloud, monkeypatch):
    def too_late(temporary, final):
        replace_folder(temporary, final)
        raise FileExistsError(final)

    monkeypatch.setattr("device_agent.runtime.kits.replace_folder", too_late)
    assert store.check(store.obtain(cloud, "small")) == []


def test_a_kit_that_cannot_be_put_in_its_place_is_told(store, cloud, monkeypatch):
    def refuse(temporary, final):
        raise PermissionError(final)

    monkeypatch.setattr("device_agent.runtime.kits.replace_folder", refuse)
    with pytest.raises(PermissionError):
        store.obtain(cloud, "small")
    assert store.find("small") is None


def test_initial_weights_are_those_that_the_manifest_names(tmp_path):
    kit = small_kit(tmp_path)
    assert {name: array.shape for name, array in kit.initial().items()} == {"scale": (HIDDEN,)}
    save_file({"scale": np.zeros(3, np.float32)}, tmp_path / "initial.safetensors")
    with pytest.raises(DamagedKit, match="initial"):
        kit.initial()


def test_a_file_that_the_kit_does_not_have_is_told(tmp_path):
    with pytest.raises(DamagedKit, match=r"grand\.onnx"):
        small_kit(tmp_path).path("grand.onnx")
