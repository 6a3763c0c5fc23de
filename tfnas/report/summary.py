"""The results in brief: the numbers of every target, the outcome of each stage, and the provenance of each job."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from tfnas.jobs.artifacts import write_json, write_text
from tfnas.report.figures.results import validation_error_text
from tfnas.report.inputs import DERIVED_METRICS, Results, TargetResult
from tfnas.report.ranking import ranking
from tfnas.report.worth import compared_networks

UNKNOWN = "not recorded"
CLOSE_PERCENT = 1.0  # a network that is no further below its target uses its time up
RETRAIN_METRICS = ("initial_top1_percent", "teacher_top1_percent", "top1_percent", "top5_percent")
Numbers = dict[str, float | int]


def summarize(results: Results) -> dict[str, Numbers]:
    """The numbers of each target, by its name; latencies in ms, accuracies and gaps in percent.

    A given network has no numbers of a search and no target; outside of the table's space also no table latency.
    """
    return {target.name: _target_numbers(target) for target in results.targets}


def _target_numbers(target: TargetResult) -> Numbers:
    derived, retrain = target.derived, target.retrain.metrics
    numbers: Numbers = {
        **{name: derived[name] for name in DERIVED_METRICS if name in derived},
        **_evaluated(target),
        **{f"retrain_{name}": retrain[name] for name in RETRAIN_METRICS if name in retrain},
    }
    if target.std is not None:
        numbers["retrain_top1_mean_percent"] = target.mean
        numbers["retrain_top1_std_percent"] = target.std
    numbers |= compared_networks(target).numbers() | ranking(target).numbers()
    for dataset, training in target.transfers.items():
        numbers[f"transfer_{dataset}_top1_percent"] = training.metrics["top1_percent"]
    return numbers


def _evaluated(target: TargetResult) -> Numbers:
    """Accuracies in the supernet after the last epoch, of a search; those of random paths where some were drawn."""
    names = ("val_top1_percent", "derived_top1_percent", "random_top1_mean_percent", "random_top1_std_percent")
    return {f"search_{name}": target.search_metrics[name] for name in names if name in target.search_metrics}


def write_summary(summary: dict[str, Numbers], folder: Path) -> None:
    """Write summary.json and summary.csv; a cell stays empty where a target has no such number."""
    write_json(folder / "summary.json", summary)
    write_text(folder / "summary.csv", summary_csv(summary))


def summary_csv(summary: dict[str, Numbers]) -> str:
    """One row per target, one column per number."""
    columns = list(dict.fromkeys(name for numbers in summary.values() for name in numbers))
    text = io.StringIO()
    writer = csv.DictWriter(text, ["target", *columns], restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows({"target": name, **numbers} for name, numbers in summary.items())
    return text.getvalue()


class StageRow(NamedTuple):
    """A stage, what it does, what came out, and the section of the page that shows it."""

    stage: str
    does: str
    outcome: str
    section: str


def stage_rows(results: Results) -> list[StageRow]:
    """One row per stage, in the order of the pipeline."""
    return [
        StageRow("prepare_data", "lists the images", _images(results), "classes"),
        StageRow("rank_classes", "ranks the classes by accuracy", _ranking(results), "classes"),
        StageRow("build_subset", "draws a class of each group", _subset(results), "classes"),
        StageRow("profile_latency", "measures every operation", _table(results), "latency-table"),
        StageRow("warm_up", "trains weights, α and β frozen", _warmed_up(results), "search"),
        StageRow("search", "searches operations, depths, widths", _each(results, _searched), "search"),
        StageRow("derive", "derives the network and measures it", _each(results, _derived), "networks"),
        StageRow("retrain", "trains it on all classes", _each(results, _retrained), "training"),
        StageRow("transfer", "fine-tunes it on other data", _each(results, _transferred) or "none", "training"),
        StageRow("scale_baseline", "scales networks to compare with", _each(results, _scaled) or "none", "worth"),
        StageRow("train_baseline", "trains them as the found one", _each(results, _compared) or "none", "worth"),
        StageRow("rank_baselines", "ranks them by the supernet", _each(results, _ranked) or "none", "worth"),
    ]


class ProvenanceRow(NamedTuple):
    """The origin of one job's results."""

    job: str
    commit: str
    device: str
    params_digest: str


def provenance_rows(provenance: dict[str, dict[str, Any]]) -> list[ProvenanceRow]:
    """One row per job, with the digests shortened to what a person compares.

    Times and MLflow runs are omitted: a job repeated with the same outcome leaves the same page.
    """
    return [
        ProvenanceRow(
            job,
            _text(fields, "git_commit", _short_commit),
            _text(fields, "device"),
            _text(fields, "params_digest", lambda digest: digest[:12]),
        )
        for job, fields in provenance.items()
    ]


def recorded_packages(provenance: dict[str, dict[str, Any]]) -> list[str]:
    """Each set of versions that a job ran with, as `python 3.11.9, torch 2.14.1`; one where all agree."""
    found = []
    for fields in provenance.values():
        packages = fields.get("packages")
        if isinstance(packages, dict) and packages:
            found.append(", ".join(f"{name} {version}" for name, version in packages.items()))
    return list(dict.fromkeys(found))


def _text(fields: dict[str, Any], name: str, cut: Callable[[str], str] = str) -> str:
    value = fields.get(name)
    return cut(value) if isinstance(value, str) and value else UNKNOWN


def _short_commit(commit: str) -> str:
    head, dash, rest = commit.partition("-")
    return head[:10] + dash + rest


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


def _warmed_up(results: Results) -> str:
    if not results.searched:
        return "not needed"
    frozen = sum(row.get("architecture_loss", 0.0) is None for row in results.searched[0].search)
    return f"{frozen} epochs"


def _searched(target: TargetResult) -> str:
    if target.is_given:
        return "given, not searched"
    rows = [row for row in target.search if row.get("architecture_loss", 0.0) is not None]
    met = sum(
        -CLOSE_PERCENT <= 100.0 * (row["derived_latency_after_ms"] / row["target_ms"] - 1.0) <= 0.0 for row in rows
    )
    return f"{len(rows)} epochs, {met} of them within {CLOSE_PERCENT:g} % below the target"


def _derived(target: TargetResult) -> str:
    derived = target.derived
    if target.is_given:
        return (
            f"{target.architecture.name}, measured {derived['measured_latency_ms']:.3f} ms, {derived['depth']} blocks"
        )
    return f"{derived['table_latency_ms']:.3f} of {derived['target_ms']:.3f} ms, {derived['depth']} blocks"


def _retrained(target: TargetResult) -> str:
    metrics, epochs = target.retrain.metrics, len(target.retrain.history)
    kept = int(metrics.get("kept_epoch", epochs))
    how = f"after {epochs} epochs" if kept == epochs else f"after epoch {kept} of {epochs}, the best on these images"
    taught = (
        f", taught by a network of {metrics['teacher_top1_percent']:.2f} %" if "teacher_top1_percent" in metrics else ""
    )
    seeds = f" (mean of {len(target.top1)} seeds)" if len(target.top1) > 1 else ""
    return f"{target.mean:.2f} %{seeds} {how}{taught}"


def _scaled(target: TargetResult) -> str:
    return ", ".join(f"{one.name} {one.measured_ms:.3f} ms" for one in target.baselines)


def _compared(target: TargetResult) -> str:
    return ", ".join(f"{one.name} {one.mean:.2f} %" for one in target.baselines)


def _ranked(target: TargetResult) -> str:
    return ", ".join(f"{b.name} {b.supernet_top1:.1f} %" for b in target.baselines if b.supernet_top1 is not None)


def _transferred(target: TargetResult) -> str:
    return ", ".join(f"{name} {run.metrics['top1_percent']:.2f} %" for name, run in target.transfers.items())
