"""A results folder as the other stages leave it, written by their own functions, with made numbers."""

from __future__ import annotations

import csv
import math
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
import pytest

from tfnas.jobs.artifacts import write_json, write_provenance
from tfnas.latency import Curve, LatencyTable, OperationKey
from tfnas.latency.params import KNOWN, baseline_kind
from tfnas.latency.validation import VALIDATED
from tfnas.report.inputs import Results
from tfnas.report.page import render_page
from tfnas.search import result as search_history
from tfnas.search.constraint import latency_constraint
from tfnas.search.derivation.strongest import Derived, searchable_layers
from tfnas.search.params import untrained_above
from tfnas.space import Architecture, Space, count_macs, count_params, load_space, zoo
from tfnas.space.membership import assemble
from tfnas.stages import rank_baselines
from tfnas.stages.params import Params, load_params, stage_params
from tfnas.train.metrics import Metrics, TrainingEpoch, write_seeds, write_training_history

ROOT = Path(__file__).parents[2]
DIGITS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")


@pytest.fixture(scope="session")
def params() -> Params:
    """The parameters as shipped."""
    return load_params(ROOT / "params.yaml")


@pytest.fixture(scope="session")
def make_results() -> Callable[..., Path]:
    return write_results


@pytest.fixture(scope="session")
def shared_results(tmp_path_factory: pytest.TempPathFactory, params: Params) -> Path:
    """One results folder for all tests that only read."""
    return write_results(tmp_path_factory.mktemp("shared") / "results", params)


@pytest.fixture(scope="session")
def make_page() -> Callable[[Results], str]:
    return lambda results: render_page(results, title="TF-NAS")


@pytest.fixture(scope="session")
def make_table() -> Callable[[Space, int], LatencyTable]:
    return lambda space, resolution: _made_table(space, resolution, np.random.default_rng(0))


def write_results(folder: Path, params: Params, *, classes: Iterable[str] = DIGITS) -> Path:
    """Everything that the report reads, for the targets and data sets of `params`."""
    random = np.random.default_rng(0)
    space = load_space(params.space)
    _write_data(folder, list(classes), params, random)
    table = _made_table(space, params.resolution, random)
    table.save(folder / "profile_latency/latency_table.json")
    made = [
        (f"random{i:02}", ms, ms * random.uniform(0.97, 1.06), ms) for i, ms in enumerate(random.uniform(5, 12, 10))
    ]
    _write_csv(folder / "profile_latency/validation.csv", ("network", *VALIDATED), made)
    for number, target in enumerate(params.targets):
        rng = np.random.default_rng(number + 1)
        given = params.targets[target].constraint.architecture
        if given is not None:
            _write_given(folder, target, given, table, params)
        else:
            architecture = _write_search(folder / "search" / target, space, table, params.search, target, rng)
            _write_derive(folder / "derive" / target, architecture, table, params)
        _write_training(folder / "retrain" / target, params.retrain.epochs, 98.6 - 0.4 * number, rng)
        _write_seeds(folder / "retrain" / target, 98.6 - 0.4 * number)
        if target in params.transfer.targets:
            for dataset in params.transfer.datasets:
                _write_training(folder / "transfer" / target / dataset, params.transfer.epochs, 94 - number, rng)
    for number, (target, network) in enumerate(
        (target, network) for target in params.baselines.targets for network in params.baselines.networks
    ):
        scaled = {"measured_latency_ms": 5.0, "macs": 600_000 + 7_000 * (number % 3)}
        write_json(folder / "scale_baseline" / target / network / "metrics.json", scaled)
        _write_seeds(folder / "train_baseline" / target / network, 96.0 + 0.5 * number)
    for target in params.baselines.targets:
        _write_ranked(folder / "rank_baselines" / target, params.baselines.networks)
    _write_all_provenance(folder, params)
    return folder


def _write_seeds(folder: Path, top1: float) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    write_seeds([Metrics(0.1, top1, 99.9)], folder / "seeds.csv")


def _write_ranked(folder: Path, networks: Iterable[str]) -> None:
    ranked = [(name, baseline_kind(name)) for name in networks if baseline_kind(name) != KNOWN]
    rows = [(name, kind, 80.0 + 2.5 * number) for number, (name, kind) in enumerate(ranked)]
    _write_csv(folder / "supernet_top1.csv", rank_baselines.COLUMNS, rows)


def _write_csv(path: Path, header: Iterable[str], rows: Iterable[Iterable[object]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(header)
        writer.writerows(rows)


def _write_data(folder: Path, classes: list[str], params: Params, random: np.random.Generator) -> None:
    _write_csv(folder / "prepare_data/classes.csv", ("label", "class"), enumerate(classes))
    images = [("train", name, f"train/{name}/{i}.png", 300) for name in classes for i in range(20)]
    images += [("val", name, f"val/{name}/{i}.png", 300) for name in classes for i in range(5)]
    _write_csv(folder / "prepare_data/manifest.csv", ("split", "class", "path", "bytes"), images)
    correct = sorted((int(n) for n in random.integers(850, 1000, len(classes))), reverse=True)
    ranked = [(name, 1000, n, n / 10) for name, n in zip(classes, correct, strict=True)]
    _write_csv(folder / "rank_classes/class_accuracy.csv", ("class", "images", "correct", "top1"), ranked)
    write_json(folder / "rank_classes/metrics.json", {"top1_percent": sum(correct) / len(correct) / 10})
    size = max(1, len(classes) // params.build_subset.groups)
    chosen = [ranked[min(g * size + int(random.integers(size)), len(ranked) - 1)] for g in range(len(classes) // size)]
    rows = [(label, row[0], label, row[3]) for label, row in enumerate(chosen)]
    _write_csv(folder / "build_subset/classes.csv", ("label", "class", "group", "top1"), rows)


def _made_table(space: Space, resolution: int, random: np.random.Generator) -> LatencyTable:
    curves = {}
    for layer in searchable_layers(space, resolution):
        for candidate in space.candidates:
            key = OperationKey.of_candidate(layer, candidate)
            low, high = candidate.width_range(layer.in_channels)
            known = curves.get(key)
            low, high = (low, high) if known is None else (min(low, known.widths[0]), max(high, known.widths[-1]))
            cost = 0.05 + 1e-7 * (key.in_channels + key.out_channels + key.kernel**2) * key.resolution**2
            curves[key] = Curve((low, high), (cost * (1 + low / 500), cost * (1 + high / 500)))
    return LatencyTable(space.name, resolution, 8, "Made CPU @ 2.50 GHz", 0.9, curves)


def _write_search(folder: Path, space: Space, table: LatencyTable, search, target: str, rng) -> Architecture:
    """Choices that settle with the epochs; the last epoch's network is returned."""
    layers, records = searchable_layers(space), []
    operations = rng.integers(len(space.candidates), size=len(layers))
    depths = {stage.stage: stage.max_depth for stage in space.searchable_stages}
    for epoch in range(1, search.epochs + 1):
        warm, progress = epoch <= search.warmup_epochs, epoch / search.epochs
        if not warm:
            redraw = rng.random(len(layers)) < 0.35 * (1 - progress)
            operations = np.where(redraw, rng.integers(len(space.candidates), size=len(layers)), operations)
            depths = {
                s.stage: int(rng.integers(s.min_depth, s.max_depth + 1)) if rng.random() < 0.3 else depths[s.stage]
                for s in space.searchable_stages
            }
        ranges = [[c.width_range(layer.in_channels) for c in space.candidates] for layer in layers]
        widths = [[round(low + (high - low) * progress) for low, high in row] for row in ranges]
        choices = {
            stage: [
                (space.candidates[operations[i]], widths[i][operations[i]])
                for i, layer in enumerate(layers)
                if layer.stage == stage and layer.position <= depth
            ]
            for stage, depth in depths.items()
        }
        architecture = assemble(space, f"{space.name}-{target}", choices)
        kept = tuple(layer.position <= depths[layer.stage] for layer in layers)
        derived = Derived(architecture, tuple(int(i) for i in operations), kept, depths)
        entropies = [2.0 * (1 - progress)] * len(layers)
        after = table.latency_ms(architecture)
        records.append(
            search_history.EpochRecord(
                epoch=epoch,
                seconds=None if warm else 10.0,
                seconds_per_weight_step=None if warm else 0.2,
                seconds_per_architecture_step=None if warm else 0.4,
                learning_rate=0.025 * (1 + math.cos(math.pi * progress)) / 2,
                temperature=5.0 * 0.96 ** max(0, epoch - search.warmup_epochs),
                train_loss=1.6 * (1 - 0.6 * progress),
                train_top1=40 + 45 * progress + float(rng.normal(0, 1)),
                train_top5=100.0,
                architecture_loss=None if warm else 1.5 * (1 - 0.5 * progress),
                latency_loss=None if warm else 0.1 * (1 - progress),
                expected_latency_ms=after * (1.3 - 0.2 * progress),
                derived_latency_before_ms=after * (1 + 0.25 * float(rng.random())),
                derived_latency_after_ms=after,
                target_ms=0.0,
                alpha_entropy=2.0 * (1 - progress),
                val_top1=38 + 44 * progress + float(rng.normal(0, 2)),
                val_top5=100.0,
                derived_top1=42 + 45 * progress + float(rng.normal(0, 2)),
                random_top1_mean=30 + 38 * progress + float(rng.normal(0, 1)),
                random_top1_std=9.0 - 4 * progress,
                derived=search_history.derived_columns(space, derived, widths, entropies),
            )
        )
    target_ms = records[-1].derived_latency_after_ms * 1.002
    records = [search_history.EpochRecord(**{**vars(record), "target_ms": target_ms}) for record in records]
    folder.mkdir(parents=True)
    search_history.write_history(records, folder / "history.csv")
    last = {
        **records[-1].accuracies(),
        "num_classes": 5,
        "evaluation_images": 2000,
        "warm_up_loss": records[search.warmup_epochs - 1].train_loss,
        "untrained_above": untrained_above(5),
    }
    write_json(folder / "metrics.json", {**latency_constraint(space, table, target_ms).metrics(architecture), **last})
    return architecture


def _write_given(folder: Path, target: str, name: str, table: LatencyTable, params: Params) -> None:
    """A target whose network is given; only one of the space has a latency by the table."""
    (folder / "search" / target).mkdir(parents=True)
    metrics = search_history.write_no_supernet(folder / "search" / target, "it is given")
    write_json(folder / "search" / target / "metrics.json", metrics)
    architecture = zoo.load(name)
    _write_derive(
        folder / "derive" / target, architecture, table if architecture.space == table.space else None, params
    )


def _write_derive(folder: Path, architecture: Architecture, table: LatencyTable | None, params: Params) -> None:
    architecture.save(folder / "architecture.json")
    latency_ms = 5.0 if table is None else table.latency_ms(architecture)
    predicted = {}
    if table is not None:
        predicted = latency_constraint(load_space(params.space), table, latency_ms * 1.002).metrics(architecture)
    if architecture.name in zoo.names():  # given: there is no target latency
        predicted = {name: predicted[name] for name in predicted if name == "table_latency_ms"}
    metrics = {
        **predicted,
        "measured_latency_ms": latency_ms * 1.021,
        "macs": count_macs(architecture, params.resolution, params.profile_latency.num_classes),
        "params": count_params(architecture, params.profile_latency.num_classes),
        "depth": len(architecture.blocks),
    }
    write_json(folder / "metrics.json", metrics)


def _write_training(folder: Path, epochs: int, final: float, rng: np.random.Generator) -> None:
    records = []
    for epoch in range(1, epochs + 1):
        top1 = final * (1 - 0.85 * math.exp(-6 * (epoch - 0.5) / epochs)) + float(rng.normal(0, 0.2))
        records.append(TrainingEpoch(epoch, 3.0, 0.01, 2 / epoch, top1 * 0.95, 2 / epoch, top1))
    folder.mkdir(parents=True)
    write_training_history(records, folder / "history.csv")
    metrics = {"top1_percent": records[-1].val_top1, "top5_percent": 99.9, "loss": 0.1, "epochs": epochs}
    write_json(folder / "metrics.json", metrics)


def _write_all_provenance(folder: Path, params: Params) -> None:
    from tfnas.report.inputs import job_folders

    for job in job_folders(params):
        stage, *rest = job.split("/")
        values = stage_params(params, stage, rest[0] if rest else None)
        write_provenance(folder / job, stage=stage, params=values, inputs=[], outputs=[], device="Made CPU @ 2.50 GHz")
