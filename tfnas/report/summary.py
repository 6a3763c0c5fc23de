"""The numbers of every target, as one JSON object and one CSV row a target."""

from __future__ import annotations

import csv
import io
from pathlib import Path

from tfnas.report.inputs import Results, TargetResult
from tfnas.runtime.artifacts import write_json, write_text

Numbers = dict[str, float | int]


def summarize(results: Results) -> dict[str, Numbers]:
    """The numbers of each target, by its name; latencies in ms, accuracies and gaps in percent."""
    return {target.name: _target_numbers(target) for target in results.targets}


def _target_numbers(target: TargetResult) -> Numbers:
    derived, retrain = target.derived, target.retrain.metrics
    numbers: Numbers = {
        "target_ms": derived["target_ms"],
        "table_latency_ms": derived["table_latency_ms"],
        "gap_percent": derived["gap_percent"],
        "measured_latency_ms": derived["measured_latency_ms"],
        "macs": derived["macs"],
        "params": derived["params"],
        "depth": derived["depth"],
        "search_val_top1_percent": target.search_metrics["val_top1_percent"],
        "retrain_top1_percent": retrain["top1_percent"],
    }
    if "top5_percent" in retrain:
        numbers["retrain_top5_percent"] = retrain["top5_percent"]
    for dataset, training in target.transfers.items():
        numbers[f"transfer_{dataset}_top1_percent"] = training.metrics["top1_percent"]
    return numbers


def write_summary(summary: dict[str, Numbers], folder: Path) -> None:
    """Write summary.json and summary.csv; a cell stays empty where a target has no such number."""
    write_json(folder / "summary.json", summary)
    write_text(folder / "summary.csv", summary_csv(summary))


def summary_csv(summary: dict[str, Numbers]) -> str:
    """One row a target, one column a number."""
    columns = list(dict.fromkeys(name for numbers in summary.values() for name in numbers))
    text = io.StringIO()
    writer = csv.DictWriter(text, ["target", *columns], restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows({"target": name, **numbers} for name, numbers in summary.items())
    return text.getvalue()
