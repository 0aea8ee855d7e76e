"""A training step for a backbone of any depth that nobody has to pull: for measuring steps alone."""

from pathlib import Path

from adapters.export import export
from adapters.graphs import train_graph
from adapters.plan import make_plan
from adapters.recipe import Recipe
from protocol.facts import BackboneFacts
from protocol.limits import Limits


def export_step(recipe: Recipe, layers: int, path: Path) -> None:
    """Write the training graph of ``recipe`` for a backbone of width 64 and 64 tokens."""
    facts = BackboneFacts(
        name="narrow",
        fingerprint="0" * 64,
        family="llama",
        layers=layers,
        hidden=64,
        vocabulary=64,
        positions=4096,
        tokenizer_sha256="0" * 64,
        chat_template=None,
        bos_token=None,
        eos_token=None,
        stop_tokens=(),
        dtype="f32",
        logit_softcap=None,
        protocol=("1.0",),
        codecs=("f32",),
        limits=Limits(),
    )
    path.write_bytes(export(train_graph(*make_plan(recipe, facts))).SerializeToString())
