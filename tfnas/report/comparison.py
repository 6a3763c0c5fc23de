"""This run and the paper: Tables 2, 7, 8 and 9, and which of their rows can be compared with this run's."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from tfnas.jobs.errors import UserError
from tfnas.report.inputs import Results, TargetResult
from tfnas.report.paper_tables import CPU, GPU, TABLE_2, TABLE_7, TABLE_8, TABLE_9, Cited
from tfnas.space import Architecture, count_macs, count_params, zoo

RESOLUTION, CLASSES = 224, 1000  # of all the paper's networks
NONE = "–"


class ComparedRow(NamedTuple):
    """A row of a table: `ours` is this run's network, `tf_nas` one of the paper's authors."""

    cells: tuple[str, ...]
    ours: bool = False
    tf_nas: bool = False


@dataclass(frozen=True)
class ComparedTable:
    """A table of the paper, with what compares in words."""

    key: str  # of the element in the page
    title: str
    columns: tuple[str, ...]
    rows: list[ComparedRow]
    compares: str


class DeviceRow(NamedTuple):
    """A network with its latency by the run's own table: this run's, or one that the paper publishes."""

    name: str
    ours: bool
    macs: int  # at the paper's resolution and number of classes
    params: int
    table_ms: float
    published_top1_percent: float | None


def is_the_papers_task(results: Results) -> bool:
    """Whether this run's task is the paper's: ImageNet's 1,000 classes at 224 x 224."""
    return (results.source, len(results.classes), results.table.resolution) == ("imagenet", CLASSES, RESOLUTION)


def networks_on_device(results: Results) -> list[DeviceRow]:
    """This run's networks of its space and the published ones by its latency table, fastest first.

    The one comparison with the paper that holds on any data set: the same space, device, table and counting.
    """
    table, rows = results.table, []
    for target in results.targets:
        if target.table_ms is not None:
            ms = table.latency_ms(target.architecture)
            rows.append(DeviceRow(f"{target.name} (this run)", True, *_sizes(target.architecture), ms, None))
    for name in zoo.names():
        architecture = zoo.load(name)
        if architecture.space != table.space:
            continue
        try:
            ms = table.latency_ms(architecture)
        except UserError:  # an operation or a width that the table does not have
            continue
        rows.append(DeviceRow(name, False, *_sizes(architecture), ms, zoo.published(name).top1))
    return sorted(rows, key=lambda row: row.table_ms)


def _sizes(architecture: Architecture) -> tuple[int, int]:
    return count_macs(architecture, RESOLUTION, CLASSES), count_params(architecture, CLASSES)


def paper_tables(results: Results) -> list[ComparedTable]:
    """Tables 2, 7, 8 and 9 with this run's rows where they belong."""
    same = is_the_papers_task(results)
    ours = results.targets if same else ()
    cited = ("network", "top-1, %", "latency, ms", "multiply-adds, M", "training epochs", "search, GPU days")
    return [
        ComparedTable(
            "table-2", f"Table 2: ImageNet, latency on a {GPU}", (*cited, "venue"),
            [*_cited_rows(ours, TABLE_2, venue=True)], _what_compares(results),
        ),
        ComparedTable(
            "table-7", "Table 7: transfer to CIFAR", ("network", "CIFAR10, %", "CIFAR100, %", "multiply-adds, M"),
            [*_transfer_rows(results.targets)], _what_compares_of_transfers(results),
        ),
        ComparedTable(
            "table-8", f"Table 8: ImageNet, latency on a CPU ({CPU})", cited,
            [*_cited_rows(ours, TABLE_8, venue=False)], _what_compares(results),
        ),
        ComparedTable(
            "table-9", "Table 9: latency by the lookup table and measured",
            ("network", "device", "by the table, ms", "measured, ms", "table against measured, %"),
            [*_lookup_rows(results)],
            "The last column compares on any device and data set: how well the sum of a table (Eq. 4) meets the"
            " network’s own time. Milliseconds compare only on one device.",
        ),
    ]  # fmt: skip


def _what_compares(results: Results) -> str:
    if is_the_papers_task(results):
        return (
            "This run is on ImageNet at 224 × 224 as well: top-1 and multiply-adds compare. Its latencies are of"
            f" {results.table.device} at batch {results.table.batch_size} and do not compare with the paper’s."
        )
    size, count = results.table.resolution, len(results.classes)
    return (
        f"No row compares with this run’s accuracies: they are of {count} classes of {results.source} at"
        f" {size} × {size}, these of ImageNet’s 1,000 classes at 224 × 224."
    )


def _what_compares_of_transfers(results: Results) -> str:
    done = {dataset for target in results.targets for dataset in target.transfers}
    if not done & {"cifar10", "cifar100"}:
        other = f" (only to {', '.join(sorted(done))})" if done else ""
        return f"No row compares with this run: it did not transfer to CIFAR{other}."
    if is_the_papers_task(results):
        return "This run’s rows compare: the same test images, networks trained on ImageNet before."
    return f"The test images are the same; this run’s networks were trained on {results.source} before, not ImageNet."


def _cited_rows(ours: Sequence[TargetResult], cited: Sequence[Cited], *, venue: bool) -> Iterator[ComparedRow]:
    for target in ours:
        latency = NONE if target.table_ms is None else f"{target.table_ms:.2f}"
        numbers = (f"{target.mean:.1f}", latency)
        epochs = str(len(target.retrain.history))
        cells = (f"{target.name} (this run)", *numbers, _millions(_sizes(target.architecture)[0]), epochs, NONE)
        yield ComparedRow((*cells, NONE) if venue else cells, ours=True)
    for row in cited:
        days = NONE if row.gpu_days is None else f"{row.gpu_days:,g}"
        numbers = (f"{row.top1_percent:.1f}", f"{row.latency_ms:.2f}", str(row.macs_millions))
        cells = (row.name, *numbers, NONE if row.epochs is None else str(row.epochs), days)
        yield ComparedRow((*cells, row.venue or NONE) if venue else cells, tf_nas=row.is_tf_nas)


def _transfer_rows(targets: Sequence[TargetResult]) -> Iterator[ComparedRow]:
    for target in targets:
        found = [target.transfers.get(dataset) for dataset in ("cifar10", "cifar100")]
        if any(found):
            cells = (NONE if training is None else f"{training.metrics['top1_percent']:.2f}" for training in found)
            macs = _millions(_sizes(target.architecture)[0])
            yield ComparedRow((f"{target.name} (this run)", *cells, macs), ours=True)
    for row in TABLE_7:
        cells = (f"{row.cifar10_percent:.2f}", f"{row.cifar100_percent:.2f}", str(row.macs_millions))
        yield ComparedRow((row.name, *cells), tf_nas=True)


def _lookup_rows(results: Results) -> Iterator[ComparedRow]:
    for target in results.targets:
        if target.measured_on_the_tables_device:
            numbers = _lookup(target.table_ms, target.derived["measured_latency_ms"])
            yield ComparedRow((f"{target.name} (this run)", results.table.device, *numbers), ours=True)
    for row in TABLE_9:
        yield ComparedRow((row.name, "the paper’s GPU", *_lookup(row.gpu_table_ms, row.gpu_ms)), tf_nas=True)
        yield ComparedRow((row.name, "the paper’s CPU", *_lookup(row.cpu_table_ms, row.cpu_ms)), tf_nas=True)


def _lookup(table_ms: float | None, measured_ms: float) -> tuple[str, str, str]:
    if table_ms is None:
        return NONE, f"{measured_ms:.2f}", NONE
    percent = 100.0 * (table_ms / measured_ms - 1.0)
    return f"{table_ms:.2f}", f"{measured_ms:.2f}", signed(percent, "+.1f")


def signed(value: float, form: str) -> str:
    """A number with its sign, a true minus; without one where it is written as 0."""
    text = format(value, form)
    return text.replace("-", "−") if float(text) else text[1:]


def _millions(count: int) -> str:
    return f"{count / 1e6:.0f}"
