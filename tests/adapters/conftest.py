from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch

from adapters.compile import compile_kit
from adapters.head import HeadWeights
from adapters.plan import Plan, make_plan
from adapters.recipe import Recipe
from adapters.targets.base import Target
from protocol.facts import BackboneFacts
from protocol.kit import KitManifest
from tests.adapters.samples import LADDER, SPA, tiny_facts, tiny_head


@dataclass(frozen=True)
class Compiled:
    """A kit on disk and what it was made from."""

    recipe: Recipe
    facts: BackboneFacts
    head: HeadWeights
    folder: Path
    manifest: KitManifest
    plan: Plan
    target: Target


def compiled(recipe: Recipe, facts: BackboneFacts, head: HeadWeights, parent: Path) -> Compiled:
    folder = parent / recipe.name
    manifest = compile_kit(recipe, facts, head, folder, lambda stage: None)
    return Compiled(recipe, facts, head, folder, manifest, *make_plan(recipe, facts))


@pytest.fixture(autouse=True, scope="session")
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def ladder_kit(tmp_path_factory: pytest.TempPathFactory) -> Compiled:
    return compiled(LADDER, tiny_facts(), tiny_head(), tmp_path_factory.mktemp("kits"))


@pytest.fixture(scope="session")
def spa_kit(tmp_path_factory: pytest.TempPathFactory) -> Compiled:
    facts, head = tiny_facts(softcap=8.0), tiny_head(bias=True, softcap=8.0)
    return compiled(SPA, facts, head, tmp_path_factory.mktemp("kits"))


@pytest.fixture(params=["ladder_kit", "spa_kit"])
def kit(request: pytest.FixtureRequest) -> Compiled:
    made: Compiled = request.getfixturevalue(request.param)
    return made
