import functools
import logging
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from transformers import PreTrainedModel
from transformers.utils import logging as transformers_logging

from cloud_service.backbones.causal import CausalBackbone
from cloud_service.backbones.families import FAMILIES
from cloud_service.backbones.loading import load_model
from cloud_service.pull import pull
from cloud_service.registry import Pulled, Registry
from tests.cloud_service.reading import KV_BYTES
from tests.cloud_service.running import Running, running, service_for
from tests.tiny import tiny_folder

transformers_logging.disable_progress_bar()


@pytest.fixture(autouse=True, scope="session")
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def folder_of(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Tiny random models in Hugging Face layout, each made once."""
    root = tmp_path_factory.mktemp("folders")

    def made(family: str) -> Path:
        folder = root / family
        return folder if folder.is_dir() else tiny_folder(family, folder)

    return made


@pytest.fixture(scope="session")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="session")
def pulled_of(cache: Path, folder_of: Callable[[str], Path]) -> Callable[[str], Pulled]:
    return lambda family: pull(str(folder_of(family)), Registry(cache), logging.debug)


@pytest.fixture(scope="session")
def backbone_of(pulled_of: Callable[[str], Pulled]) -> Callable[[str], CausalBackbone]:
    loaded: dict[str, CausalBackbone] = {}

    def made(family: str) -> CausalBackbone:
        if family not in loaded:
            pulled = pulled_of(family)
            loaded[family] = CausalBackbone(
                load_model(pulled.folder, "f32"), pulled.record.facts(), kv_bytes=KV_BYTES
            )
        return loaded[family]

    return made


@pytest.fixture(scope="session")
def reference_of(pulled_of: Callable[[str], Pulled]) -> Callable[[str], PreTrainedModel]:
    """The same models as transformers runs them by itself."""
    return functools.cache(lambda family: load_model(pulled_of(family).folder, "f32").eval())


@pytest.fixture(params=FAMILIES)
def backbone(
    request: pytest.FixtureRequest, backbone_of: Callable[[str], CausalBackbone]
) -> CausalBackbone:
    return backbone_of(request.param)


@pytest.fixture
def reference(
    backbone: CausalBackbone, reference_of: Callable[[str], PreTrainedModel]
) -> PreTrainedModel:
    """What ``backbone`` is, as transformers runs it by itself."""
    return reference_of(backbone.facts.family)


@pytest.fixture(scope="session")
def llama(backbone_of: Callable[[str], CausalBackbone]) -> CausalBackbone:
    return backbone_of("llama")


@pytest.fixture(scope="session")
def cloud(cache: Path, pulled_of: Callable[[str], Pulled]) -> Iterator[Running]:
    """A tiny llama, served over real HTTP and already in memory."""
    with running(service_for(cache, pulled_of("llama"), sessions=1000)) as served:
        served.wait()
        yield served


@pytest.fixture
def registry(tmp_path: Path) -> Registry:
    """An empty cache of a test's own."""
    return Registry(tmp_path / "cache")


@pytest.fixture
def pull_into(registry: Registry) -> Callable[[object], Pulled]:
    return lambda source: pull(str(source), registry, logging.debug)
