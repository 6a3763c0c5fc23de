"""What the report reads: the results of all other stages, as typed values."""

from __future__ import annotations

import csv
import math
import statistics
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tfnas.jobs.artifacts import PROVENANCE, read_json
from tfnas.jobs.errors import UserError
from tfnas.latency import LatencyTable
from tfnas.latency.params import KNOWN, baseline_kind
from tfnas.latency.validation import VALIDATED
from tfnas.space import Architecture

if TYPE_CHECKING:
    from tfnas.stages.params import Params

Row = dict[str, Any]
SEARCH_COLUMNS = (
    "epoch",
    "expected_latency_ms",
    "derived_latency_before_ms",
    "derived_latency_after_ms",
    "target_ms",
    "alpha_entropy",
    "val_top1",
    "derived_top1",
)
SEARCH_METRICS = ("val_top1_percent", "num_classes", "evaluation_images")
SCALED = ("measured_latency_ms", "macs")  # of scale_baseline: what is told of a network to compare with
TRAINING_COLUMNS = ("epoch", "train_top1", "val_top1")
NETWORK_METRICS = ("measured_latency_ms", "macs", "params", "depth")
DERIVED_METRICS = ("target_ms", "table_latency_ms", "gap_percent", *NETWORK_METRICS)


@dataclass(frozen=True)
class ClassResult:
    """A class of the whole data set, and its group where it was drawn into the subset."""

    name: str
    top1_percent: float
    group: int | None


@dataclass(frozen=True)
class Training:
    """One retraining or transfer: one row per epoch, accuracies in percent, and its final metrics."""

    history: list[Row]
    metrics: dict[str, Any]


class OverSeeds:
    """A network that was trained once per seed."""

    top1: tuple[float, ...]  # percent

    @property
    def mean(self) -> float:
        return statistics.fmean(self.top1)

    @property
    def std(self) -> float | None:
        """Over seeds, of the sample; None with one seed."""
        return statistics.stdev(self.top1) if len(self.top1) > 1 else None


@dataclass(frozen=True)
class BaselineResult(OverSeeds):
    """A network to compare with: its kind (random, any or known), measured latency, multiply-adds, top-1 of each seed.

    Also its top-1 in the searched supernet; None of a known network, which is not of the space.
    """

    name: str
    kind: str
    measured_ms: float
    macs: float
    top1: tuple[float, ...]
    supernet_top1: float | None = None


@dataclass(frozen=True)
class TargetResult(OverSeeds):
    """All results for one target; `transfers` by data set and `baselines`, empty where there are none.

    A target whose network is given was not searched: it has no rows and no metrics of a search, and no target latency.
    """

    name: str
    architecture: Architecture
    derived: dict[str, Any]  # metrics.json of derive
    search: list[Row]
    search_metrics: dict[str, Any]
    retrain: Training
    top1: tuple[float, ...]  # of the retraining, of each seed; the saved weights are the first's
    transfers: dict[str, Training] = field(default_factory=dict)
    is_given: bool = False
    baselines: tuple[BaselineResult, ...] = ()

    @property
    def table_ms(self) -> float | None:
        """Latency by the table; None for a given network outside of the table's space."""
        return self.derived.get("table_latency_ms")

    @property
    def measured_on_the_tables_device(self) -> bool:
        """Whether the network was measured on the device that it was searched for; True where nothing is said."""
        return self.derived.get("measured_on") == self.derived.get("table_of")


@dataclass(frozen=True)
class Results:
    """Everything the page shows."""

    source: str  # of the images: `prepare_data.source`
    images: dict[str, int]  # number of images of each split
    classes: list[ClassResult]  # best first
    table: LatencyTable
    validation: list[Row]  # empty where profile_latency.validation_networks is 0
    targets: list[TargetResult]  # one or more
    compared: list[Row]  # networks measured by `tfnas compare`; empty where the report names no file
    provenance: dict[str, dict[str, Any]]  # by job, e.g. `search/A`; a job without the file is absent

    @property
    def searched(self) -> list[TargetResult]:
        """The targets whose networks were searched for, and not given."""
        return [target for target in self.targets if not target.is_given]


def read_results(params: Params, folder: Path) -> Results:
    """Read the results of all stages.

    Raises:
        UserError: a file that is missing, damaged, or lacks a column or a number.
    """
    profile = folder / "profile_latency"
    images: dict[str, int] = {}
    for row in read_typed_rows(folder / "prepare_data/manifest.csv", texts=("split", "class", "path")):
        images[row["split"]] = images.get(row["split"], 0) + 1
    return Results(
        source=params.prepare_data.source,
        images=images,
        classes=_read_classes(folder),
        table=LatencyTable.load(profile / "latency_table.json"),
        validation=read_typed_rows(
            profile / "validation.csv", texts=("network",), numbers=VALIDATED, may_be_empty=True
        ),
        targets=[_read_target(params, folder, name) for name in params.targets],
        compared=_read_comparison(params),
        provenance=_read_provenance(params, folder),
    )


def required_files(params: Params, folder: Path) -> list[Path]:
    """The files that `read_results` needs, below the results folder."""
    names = {
        "prepare_data": ("manifest.csv",),
        "rank_classes": ("class_accuracy.csv",),
        "build_subset": ("classes.csv",),
        "profile_latency": ("latency_table.json", "validation.csv"),
        "warm_up": (),
        "search": ("history.csv", "metrics.json"),
        "derive": ("architecture.json", "metrics.json"),
        "retrain": ("history.csv", "metrics.json", "seeds.csv"),
        "transfer": ("history.csv", "metrics.json"),
        "scale_baseline": ("metrics.json",),
        "train_baseline": ("seeds.csv",),
        "rank_baselines": ("supernet_top1.csv",),
    }
    return [folder / job / name for job in job_folders(params) for name in names[job.split("/")[0]]]


def job_folders(params: Params) -> Iterator[str]:
    """The folder of every job before this one, below the results folder, in the order of the pipeline."""
    yield from ("prepare_data", "rank_classes", "build_subset", "profile_latency", "warm_up")
    for stage in ("search", "derive", "retrain"):
        yield from (f"{stage}/{target}" for target in params.targets)
    yield from (f"transfer/{target}/{dataset}" for target, dataset in _transfers(params))
    for stage in ("scale_baseline", "train_baseline"):
        yield from (f"{stage}/{t}/{network}" for t in params.baselines.targets for network in params.baselines.networks)
    yield from (f"rank_baselines/{target}" for target in params.baselines.targets)


def _transfers(params: Params) -> list[tuple[str, str]]:
    return [(target, dataset) for target in params.transfer.targets for dataset in params.transfer.datasets]


def _read_classes(folder: Path) -> list[ClassResult]:
    subset = read_typed_rows(folder / "build_subset/classes.csv", texts=("class",), numbers=("group",))
    groups = {row["class"]: int(row["group"]) for row in subset}
    path = folder / "rank_classes/class_accuracy.csv"
    rows = read_typed_rows(path, texts=("class",), numbers=("images", "correct"))
    for row in rows:
        if row["images"] < 1:
            raise UserError(f"{path}: images: {row['images']} of class {row['class']!r}; run rank_classes again")
    accuracies = [(row["class"], 100.0 * row["correct"] / row["images"]) for row in rows]
    accuracies.sort(key=lambda pair: -pair[1])
    unknown = groups.keys() - dict(accuracies).keys()
    if unknown:
        raise UserError(f"{path}: has no class {min(unknown)!r}, which the subset holds; run build_subset again")
    return [ClassResult(name, top1, groups.get(name)) for name, top1 in accuracies]


def _read_target(params: Params, folder: Path, name: str) -> TargetResult:
    derive, search = folder / "derive" / name, folder / "search" / name
    transfers = {
        dataset: _read_training(folder / "transfer" / name / dataset)
        for target, dataset in _transfers(params)
        if target == name
    }
    is_given = params.targets[name].constraint.is_given
    searched = () if is_given else SEARCH_METRICS
    return TargetResult(
        name=name,
        architecture=Architecture.load(derive / "architecture.json"),
        derived=_read_metrics(derive / "metrics.json", NETWORK_METRICS if is_given else DERIVED_METRICS),
        search=read_typed_rows(search / "history.csv", numbers=SEARCH_COLUMNS, may_be_empty=is_given),
        search_metrics=_read_metrics(search / "metrics.json", searched),
        retrain=_read_training(folder / "retrain" / name),
        transfers=transfers,
        is_given=is_given,
        top1=_read_seeds(folder / "retrain" / name),
        baselines=tuple(_read_baselines(params, folder, name)),
    )


def _read_baselines(params: Params, folder: Path, target: str) -> Iterator[BaselineResult]:
    if target not in params.baselines.targets:
        return
    path = folder / "rank_baselines" / target / "supernet_top1.csv"
    ranked = read_typed_rows(path, texts=("network",), numbers=("top1_percent",), may_be_empty=True)
    supernet_top1 = {row["network"]: row["top1_percent"] for row in ranked}
    for name in params.baselines.networks:
        metrics = _read_metrics(folder / "scale_baseline" / target / name / "metrics.json", SCALED)
        top1, kind = _read_seeds(folder / "train_baseline" / target / name), baseline_kind(name)
        if kind != KNOWN and name not in supernet_top1:
            raise UserError(f"{path}: has no network {name!r}; run rank_baselines again")
        yield BaselineResult(name, kind, *(metrics[key] for key in SCALED), top1, supernet_top1.get(name))


def _read_seeds(folder: Path) -> tuple[float, ...]:
    return tuple(row["top1_percent"] for row in read_typed_rows(folder / "seeds.csv", numbers=("top1_percent",)))


def _read_training(folder: Path) -> Training:
    history = read_typed_rows(folder / "history.csv", numbers=TRAINING_COLUMNS)
    return Training(history, _read_metrics(folder / "metrics.json", ("top1_percent",)))


def _read_metrics(path: Path, names: tuple[str, ...]) -> dict[str, Any]:
    metrics = read_json(path)
    for name in names:
        value = metrics.get(name)
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
            raise UserError(f"{path}: {name}: expected a number, got {value!r}; run the stage that writes it again")
    return metrics


def _read_comparison(params: Params) -> list[Row]:
    if params.report.comparison is None:
        return []
    path = Path(params.report.comparison)
    return read_typed_rows(path, texts=("network", "source"), numbers=("latency_ms", "macs", "published_top1"))


def _read_provenance(params: Params, folder: Path) -> dict[str, dict[str, Any]]:
    paths = {job: folder / job / PROVENANCE for job in job_folders(params)}
    return {job: read_json(path) for job, path in paths.items() if path.exists()}


def read_typed_rows(
    path: Path, *, texts: Sequence[str] = (), numbers: Sequence[str] = (), may_be_empty: bool = False
) -> list[Row]:
    """The rows of a CSV file with a header.

    Args:
        texts: columns that must be there and stay text.
        numbers: columns that must be there and hold numbers. Every other column becomes a number where it holds
            one, None where it is empty, and stays text otherwise.
        may_be_empty: allow a header without rows.

    Raises:
        UserError: missing file, no rows, a missing column, or a value that is not a finite number. Names file and line.
    """
    try:
        with path.open(newline="", encoding="utf-8") as file:
            reader = csv.DictReader(file)
            raw, columns = list(reader), reader.fieldnames or ()
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}); run the stage that writes it") from None
    except (UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"{path}: is not a CSV file ({error}); run the stage that writes it again") from None
    if not raw and not may_be_empty:
        raise UserError(f"{path}: has no rows; run the stage that writes it again")
    missing = [name for name in (*texts, *numbers) if name not in columns]
    if missing:
        raise UserError(f"{path}: has no column {missing[0]!r}; run the stage that writes it again")
    rows = []
    for line, cells in enumerate(raw, start=2):
        if None in cells or None in cells.values():
            raise UserError(f"{path}: line {line} has not as many cells as the header; run the stage again")
        row = {name: cell if name in texts else _value(cell) for name, cell in cells.items()}
        for name in numbers:
            value = row[name]
            if not isinstance(value, (int, float)) or not math.isfinite(value):
                raise UserError(f"{path}: line {line}: {name}: expected a number, got {cells[name]!r}")
        rows.append(row)
    return rows


def _value(cell: str) -> int | float | str | None:
    if cell == "":
        return None
    for kind in (int, float):
        try:
            return kind(cell)
        except ValueError:
            continue
    return cell
