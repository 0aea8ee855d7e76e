"""Recipe and backbone in, kit out: a folder that is written whole or not at all."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

from safetensors.torch import save_file
from torch import Tensor

from adapters.blocks import BlockWeights
from adapters.check import check_graph, check_head, check_weights_used
from adapters.encodings import make_wire
from adapters.errors import HeadMismatch
from adapters.export import export
from adapters.frozen import FrozenFile, freeze, round_states
from adapters.graphs import infer_graph, received_graph, train_graph
from adapters.head import BLOCK, HeadWeights, write_head
from adapters.kit_folder import describe, publish, read_kit
from adapters.plan import Plan, kit_id, make_plan
from adapters.recipe import Recipe
from adapters.targets.base import Target
from protocol.basis import FILE as BASIS
from protocol.facts import BackboneFacts
from protocol.kit import KitFile, KitManifest, Schedule, WeightSpec
from protocol.messages import States

Progress = Callable[[str], None]
"""Told what the compiler does next, one short sentence at a time."""

Sample = Callable[[tuple[int, ...]], States]
"""From layers to states of public text: taps (K, N, H) and final (N, H)."""

Texts = Callable[[int], Tensor]
"""From a layer to states after it, of public texts of N tokens each: (texts, N, H)."""


def compile_kit(
    recipe: Recipe,
    facts: BackboneFacts,
    head: HeadWeights,
    folder: Path,
    progress: Progress,
    sample: Sample | None = None,
    blocks: BlockWeights | None = None,
    texts: Texts | None = None,
) -> KitManifest:
    """
    Compile ``recipe`` for a backbone into ``folder``; at once when the kit is already there.

    Args:
        recipe: What is trained and how.
        facts: The backbone as the service describes it.
        head: The backbone's LM head.
        folder: Where the kit is to be; its parent is made when missing.
        progress: Told each stage.
        sample: Gives public states; without them, or where the recipe wants none, the kit has no
            basis, and states travel whole.
        blocks: The backbone's blocks, for targets that compute them.
        texts: Gives states of whole public texts, for compressions that go by them.

    Raises:
        FolderTaken: ``folder`` holds something else.
        HeadMismatch: Head and facts do not belong together.
        UnusedWeight: A weight takes no part in the loss.
        CompileMismatch: A compiled graph does not compute what torch computes.

    """
    identity = kit_id(recipe, facts)
    if folder.exists():
        return read_kit(folder, identity)
    _check_head_fits(head, facts)
    folder.parent.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(prefix=f".{folder.name}.", dir=folder.parent) as scratch:
        draft = Path(scratch) / "kit"
        draft.mkdir()
        public = None
        if texts is not None and recipe.compression == "luc":
            progress("reading public text")
            (layer,) = recipe.layers(facts.layers)
            public = texts(layer)
        plan, target = make_plan(recipe, facts, blocks, public)
        _write_graphs(draft, plan, target, progress)
        progress("quantising the head")
        write_head(draft, head)
        check_head(draft, head)
        wire = None
        if sample is not None and recipe.coordinates:
            progress("reading public text")
            states = sample(plan.layers)
            progress("measuring encodings")
            wire = make_wire(states, target, head, recipe.coordinates)
            (draft / BASIS).write_bytes(wire.basis.to_bytes())
        manifest = _manifest(identity, plan, target, facts, describe(draft))
        if wire is not None:
            manifest = replace(manifest, basis=wire.spec, encodings=wire.encodings)
        return publish(draft, folder, manifest)


def _check_head_fits(head: HeadWeights, facts: BackboneFacts) -> None:
    expected = (facts.vocabulary, facts.hidden)
    if tuple(head.rows.shape) != expected:
        raise HeadMismatch("rows", expected, tuple(head.rows.shape))
    if head.bias is not None and tuple(head.bias.shape) != expected[:1]:
        raise HeadMismatch("bias", expected[:1], tuple(head.bias.shape))
    if head.softcap != facts.logit_softcap:
        raise HeadMismatch("softcap", facts.logit_softcap, head.softcap)


def _write_graphs(draft: Path, plan: Plan, target: Target, progress: Progress) -> None:
    """Write, and compare with torch, what depends on the target."""
    initial: Mapping[str, Tensor] = {
        name: weight.detach() for name, weight in target.named_parameters()
    }
    train, frozen = train_graph(plan, target), FrozenFile(draft)
    check_weights_used(train, initial, plan.recipe.dropout)
    graphs = [infer_graph(plan, target), train]
    if target.shared:
        graphs.append(received_graph(target))
    for graph in graphs:
        progress(f"exporting {graph.name}")
        model = export(graph)
        freeze(model, graph.constants, frozen)
        (draft / graph.name).write_bytes(model.SerializeToString())
        progress(f"comparing {graph.name} with torch")
        check_graph(graph, draft / graph.name, initial, plan.recipe.dropout)
        if round_states(model):
            (draft / graph.name).write_bytes(model.SerializeToString())
    save_file(dict(initial), draft / "initial.safetensors")


def _manifest(
    identity: str, plan: Plan, target: Target, facts: BackboneFacts, files: Mapping[str, KitFile]
) -> KitManifest:
    recipe = plan.recipe
    return KitManifest(
        id=identity,
        recipe=recipe.name,
        recipe_json=recipe.to_json(),
        backbone=facts.name,
        fingerprint=facts.fingerprint,
        tokenizer_sha256=facts.tokenizer_sha256,
        layers=facts.layers,
        hidden=facts.hidden,
        vocabulary=facts.vocabulary,
        taps=plan.layers,
        loss=plan.loss,
        shortlist=plan.shortlist,
        negatives=plan.negatives,
        mask=plan.mask,
        dropout=recipe.dropout,
        cache=target.cache,
        weights=tuple(WeightSpec(n, tuple(w.shape)) for n, w in target.named_parameters()),
        schedule=Schedule(
            rate=recipe.rate,
            warmup=recipe.warmup,
            epochs=recipe.epochs,
            batch_tokens=recipe.batch_tokens,
            segment=recipe.segment,
            patience=recipe.patience,
            answers=recipe.answers,
        ),
        head_block=BLOCK,
        softcap=facts.logit_softcap,
        files=files,
        shared=target.shared,
    )
