"""One unit of work: a variant searched and, where a claim needs its accuracy, its network trained from scratch.

Search and training are the library's own; a unit only chooses their parameters and keeps what the claims look at. The
warm-up that most variants of a seed have in common is run once, as searches for several targets share theirs.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch.utils.data import Subset

from tfnas.claims.params import ClaimsParams
from tfnas.claims.units import KIND, VERSION
from tfnas.claims.variants import DEFAULT, WARM_UP, Variant, unit_search, unit_seed, variants, warm_up_values
from tfnas.compute.devices import open_device
from tfnas.compute.seeding import derive_seed, seed_everything
from tfnas.data import (
    image_root,
    make_loader,
    read_manifest,
    read_samples,
)
from tfnas.data.class_accuracy import read_class_accuracy
from tfnas.data.images.loader import EpochLoader
from tfnas.data.subset import build_subset
from tfnas.jobs.artifacts import read_json
from tfnas.search import EpochRecord, Loaders, search
from tfnas.search import Setting as SearchSetting
from tfnas.search.constraint import Constraint, read_constraint
from tfnas.search.derivation.strongest import searchable_layers
from tfnas.search.loop import run_warm_up
from tfnas.search.result import WarmUp, load_warm_up
from tfnas.search.session import search_loaders
from tfnas.space import Architecture, Space, build_network, count_macs, count_params, load_space
from tfnas.space.membership import assemble
from tfnas.train.loop import Setting, evaluate, train
from tfnas.train.session import ImageSets, retrain_sets

if TYPE_CHECKING:
    from tfnas.stages.params import Params

STREAM = "claims"  # the name of the training's random streams, the same for all variants
LEFT_OUT = ("seconds", "seconds_per_weight_step", "seconds_per_architecture_step")  # of an epoch's record

Samples = list[tuple[str, int]]
OnEpoch = Callable[[EpochRecord], None]


@dataclass(frozen=True)
class UnitInputs:
    """Other stages' results, and units that a unit needs: the warm-up, and that of `Variant.compared_at`."""

    table: Path
    train: Path
    val: Path
    images: Path  # of the subset
    class_accuracy: Path
    manifest: Path
    all_images: Path
    warm_up: Path | None = None  # unit.json, next to supernet.pt
    compared: Path | None = None


def run_unit(
    params: Params,
    claims: ClaimsParams,
    inputs: UnitInputs,
    *,
    name: str,
    sharing: str,
    number: int,
    on_epoch: OnEpoch | None = None,
) -> dict[str, Any]:
    """Search and train, and say how it went, as plain data.

    Args:
        number: of the seed, counted from 0.

    Raises:
        UserError: damaged inputs, a target out of reach, or a loss that is not finite.
    """
    began, start, cpu = datetime.now(UTC), time.monotonic(), time.process_time()
    variant, seed = variants(claims)[name], unit_seed(params, number)
    constraint = read_constraint(params, next(iter(params.targets)), inputs.table)
    loaders, setting = _prepared(params, claims, inputs, variant, name=name, sharing=sharing, seed=seed)
    device, settings = torch.device(setting.device), setting.params
    warm_up, warm_up_seconds = _warm_up_of(params, claims, variant, inputs, constraint.space, sharing, number)
    seed_everything(derive_seed(seed, "search"))
    result = search(constraint, loaders, setting, warm_up=warm_up, on_epoch=on_epoch)
    searched = time.process_time()
    network = result.derive(name, constraint, params.derive.within).architecture
    unit = {
        **_named(name, sharing, number),
        "seed": seed,
        "num_classes": loaders.num_classes,
        "target_ms": constraint.limit,
        "warmup_epochs": settings.warmup_epochs,
        "epochs": settings.epochs,
        "history": [_kept(record) for record in result.history],
        **_described(network, constraint, params.resolution, loaders.num_classes or 0),
    }
    if variant.trains:
        unit["top1_percent"] = trained_top1(params, inputs, network, seed, device)
    if variant.compared_at is not None:
        unit |= _compared(params, inputs, constraint.space, len(result.history), seed, device)
    return unit | {"search_cpu_seconds": round(warm_up_seconds + searched - cpu, 1)} | _spent(began, start, cpu)


def run_warm_up_unit(
    params: Params,
    claims: ClaimsParams,
    inputs: UnitInputs,
    *,
    sharing: str,
    number: int,
    on_epoch: OnEpoch | None = None,
) -> tuple[WarmUp, dict[str, Any]]:
    """What the variants of `Variant.shares_warm_up` start from, and how long it took, as plain data.

    Args, Raises: as in `run_unit`.
    """
    began, start, cpu = datetime.now(UTC), time.monotonic(), time.process_time()
    variant, seed = variants(claims)[DEFAULT], unit_seed(params, number)
    loaders, setting = _prepared(params, claims, inputs, variant, name=WARM_UP, sharing=sharing, seed=seed)
    seed_everything(derive_seed(seed, "search"))
    warm_up = run_warm_up(load_space(params.space), loaders, setting, on_epoch=on_epoch)
    return warm_up, _named(WARM_UP, sharing, number) | _spent(began, start, cpu)


def _prepared(
    params: Params, claims: ClaimsParams, inputs: UnitInputs, variant: Variant, *, name: str, sharing: str, seed: int
) -> tuple[Loaders, SearchSetting]:
    """The images and the setting of a search or of its warm-up."""
    device, settings = open_device(params.device.name, params.device.threads), unit_search(params, variant, sharing)
    loaders = _loaders(params, claims, variant, inputs, seed, device)
    precision, within = params.device.precision, params.derive.within
    return loaders, SearchSetting(settings, seed, device, precision, f"claims/{name}", within)


def _named(variant: str, sharing: str, number: int) -> dict[str, Any]:
    """Which unit it is."""
    what = {"variant": variant, "weight_sharing": sharing, "number": number}
    return {"kind": KIND, "format_version": VERSION} | what


def _spent(began: datetime, start: float, cpu: float) -> dict[str, Any]:
    """When a unit was run, and its seconds."""
    return {
        "began": began.isoformat(timespec="seconds"),
        "ended": datetime.now(UTC).isoformat(timespec="seconds"),
        "seconds": round(time.monotonic() - start, 1),
        "cpu_seconds": round(time.process_time() - cpu, 1),
    }


def _warm_up_of(
    params: Params, claims: ClaimsParams, variant: Variant, inputs: UnitInputs, space: Space, sharing: str, number: int
) -> tuple[WarmUp | None, float]:
    """The seed's warm-up and its CPU seconds; nothing where a variant has its own, which its search runs."""
    if inputs.warm_up is None or not variant.shares_warm_up:
        return None, 0.0
    spent = read_json(inputs.warm_up, kind=KIND, version=VERSION)["cpu_seconds"]
    values = warm_up_values(params, claims, sharing, number)
    return load_warm_up(inputs.warm_up.parent / "supernet.pt", space, values), spent


def _kept(record: EpochRecord) -> dict[str, Any]:
    """An epoch as in history.csv, and whether alpha and beta were trained in it."""
    row = {key: value for key, value in record.row().items() if key not in LEFT_OUT}
    return row | {"searches": record.architecture_loss is not None}


def _described(network: Architecture, constraint: Constraint, resolution: int, num_classes: int) -> dict[str, Any]:
    return {
        "table_latency_ms": constraint.cost.value(network),
        "macs": count_macs(network, resolution, num_classes),
        "params": count_params(network, num_classes),
        "depth": len(network.blocks),
    }


def _compared(
    params: Params, inputs: UnitInputs, space: Space, epoch: int, seed: int, device: torch.device
) -> dict[str, Any]:
    """The network of the other search at the epoch where this one stopped, trained (Appendix E)."""
    assert inputs.compared is not None
    other = read_json(inputs.compared, kind=KIND, version=VERSION)
    network = network_of(other["history"][epoch - 1], space, "compared")
    return {"compared_top1_percent": trained_top1(params, inputs, network, seed, device)}


def network_of(row: dict[str, Any], space: Space, name: str) -> Architecture:
    """The network that was derived after an epoch, with sink-connecting, from the epoch's record."""
    candidates = {candidate.name: candidate for candidate in space.candidates}
    choices: dict[int, list[Any]] = {stage.stage: [] for stage in space.searchable_stages}
    for layer in searchable_layers(space):
        column = f"stage{layer.stage}_layer{layer.position}"
        if layer.position <= row[f"stage{layer.stage}_depth"]:
            choices[layer.stage].append((candidates[row[f"{column}_op"]], row[f"{column}_width"]))
    return assemble(space, name, choices)


def trained_top1(params: Params, inputs: UnitInputs, network: Architecture, seed: int, device: torch.device) -> float:
    """Top-1 on all validation images, in percent, after training from scratch on all classes.

    The library's loop would validate after every epoch; here it sees a single batch then, and all images at the end.
    """
    recipe = params.retrain.model_copy(update={"keep": "last"})
    sets = retrain_sets(params, inputs.manifest, inputs.all_images)
    dropout = next(iter(params.targets.values())).dropout
    seed_everything(derive_seed(seed, STREAM, "network"))
    model = build_network(network, sets.num_classes, dropout, recipe.drop_connect)
    training, first, everything = _training_loaders(sets, recipe.batch_size, seed)
    precision = params.device.precision
    train(model, (training, first), recipe, Setting(STREAM, device, precision, seed))
    return evaluate(model, everything, device=device, precision=precision).top1_percent


def _training_loaders(sets: ImageSets, batch_size: int, seed: int) -> tuple[EpochLoader, EpochLoader, EpochLoader]:
    """Of training, of one validation batch, and of all validation images."""
    seed = derive_seed(seed, STREAM, "loader")
    few = Subset(sets.val, range(min(batch_size, len(sets.val))))  # type: ignore[arg-type]
    return (
        make_loader(sets.train, batch_size, shuffle=True, seed=seed, drop_last=True, workers=0),
        make_loader(few, batch_size, shuffle=False, seed=seed, drop_last=False, workers=0),
        make_loader(sets.val, batch_size, shuffle=False, seed=seed, drop_last=False, workers=0),
    )


def _loaders(
    params: Params, claims: ClaimsParams, variant: Variant, inputs: UnitInputs, seed: int, device: torch.device
) -> Loaders:
    """The images of the search: those of build_subset, or of classes drawn by the variant's strategy."""
    settings = params.build_subset
    if variant.classes is None:
        train_samples, val_samples = read_samples(inputs.train), read_samples(inputs.val)
        root = image_root(params.prepare_data.root, inputs.images)
    else:
        subset = build_subset(
            read_class_accuracy(inputs.class_accuracy),
            read_manifest(inputs.manifest),
            groups=claims.groups,
            train_fraction=settings.train_fraction,
            seed=seed,
            strategy=variant.classes,
            images_per_class=settings.images_per_class,
        )
        train_samples, val_samples = ([(image.path, image.label) for image in part] for part in subset[1:])
        root = image_root(params.prepare_data.root, inputs.all_images)
    own = params.model_copy(update={"seed": seed})
    train, val = search_loaders(own, (train_samples, val_samples), root, device)
    return Loaders(train, val, 1 + max(label for _, label in train_samples))
