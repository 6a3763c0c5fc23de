"""What came out of each stage, in a sentence."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from tfnas.report.inputs import Results, TargetResult
from tfnas.report.result_figures import validation_error_text

CLOSE_PERCENT = 1.0  # of the target; the search has met it


class StageRow(NamedTuple):
    """A stage, what it does, what came out, and the section of the page that shows it."""

    stage: str
    does: str
    outcome: str
    section: str


def stage_rows(results: Results) -> list[StageRow]:
    """One row a stage, in the order of the pipeline."""
    return [
        StageRow("prepare_data", "lists the images", _images(results), "classes"),
        StageRow("rank_classes", "ranks the classes by accuracy", _ranking(results), "classes"),
        StageRow("build_subset", "draws a class of each group", _subset(results), "classes"),
        StageRow("profile_latency", "measures every operation", _table(results), "latency-table"),
        StageRow("warm_up", "trains weights, α and β frozen", f"{_frozen(results.targets[0])} epochs", "search"),
        StageRow("search", "searches operations, depths, widths", _each(results, _searched), "search"),
        StageRow("derive", "derives the network and measures it", _each(results, _derived), "networks"),
        StageRow("retrain", "trains it on all classes", _each(results, _retrained), "training"),
        StageRow("transfer", "fine-tunes it on other data", _each(results, _transferred) or "none", "training"),
    ]


def _each(results: Results, tell: Callable[[TargetResult], str]) -> str:
    told = [(target.name, tell(target)) for target in results.targets]
    return "; ".join(f"{name}: {text}" for name, text in told if text)


def _images(results: Results) -> str:
    counts = " + ".join(f"{count:,} ({split})" for split, count in results.images.items())
    return f"{counts} images of {len(results.classes)} classes, {results.source}"


def _ranking(results: Results) -> str:
    best, worst = results.classes[0], results.classes[-1]
    return f"from {best.top1_percent:.1f} % (class {best.name}) to {worst.top1_percent:.1f} % (class {worst.name})"


def _subset(results: Results) -> str:
    chosen = [result.name for result in results.classes if result.group is not None]
    names = f": {', '.join(chosen)}" if len(chosen) <= 10 else ""
    return f"{len(chosen)} of {len(results.classes)} classes{names}"


def _table(results: Results) -> str:
    text = f"{len(results.table.curves)} operations"
    if results.validation:
        text += f"; off by {validation_error_text(results.validation)}"
    return text


def _frozen(target: TargetResult) -> int:
    return sum(row.get("architecture_loss", 0.0) is None for row in target.search)


def _searched(target: TargetResult) -> str:
    rows = [row for row in target.search if row.get("architecture_loss", 0.0) is not None]
    met = sum(
        -CLOSE_PERCENT <= 100.0 * (row["derived_latency_after_ms"] / row["target_ms"] - 1.0) <= 0.0 for row in rows
    )
    return f"{len(rows)} epochs, {met} of them within {CLOSE_PERCENT:g} % below the target"


def _derived(target: TargetResult) -> str:
    derived = target.derived
    return f"{derived['table_latency_ms']:.3f} of {derived['target_ms']:.3f} ms, {derived['depth']} blocks"


def _retrained(target: TargetResult) -> str:
    return f"{target.retrain.metrics['top1_percent']:.2f} % after {len(target.retrain.history)} epochs"


def _transferred(target: TargetResult) -> str:
    return ", ".join(f"{name} {run.metrics['top1_percent']:.2f} %" for name, run in target.transfers.items())
