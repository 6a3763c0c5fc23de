"""The summary says what the results say, with numbers as numbers."""

from __future__ import annotations

import csv
import json
from pathlib import Path

from tfnas.report.inputs import read_results
from tfnas.report.page import everything
from tfnas.report.summary import stage_rows, summarize, summary_csv, write_summary
from tfnas.report.worth import compared_networks
from tfnas.stages.params import Params


def test_the_summary_equals_the_metrics_of_the_stages(shared_results: Path, params: Params) -> None:
    summary = summarize(read_results(params, shared_results))
    assert list(summary) == list(params.targets)
    for target, numbers in summary.items():
        derived = json.loads((shared_results / f"derive/{target}/metrics.json").read_text())
        assert {name: numbers[name] for name in derived} == derived
        retrain = json.loads((shared_results / f"retrain/{target}/metrics.json").read_text())
        assert numbers["retrain_top1_percent"] == retrain["top1_percent"]
        for dataset in params.transfer.datasets:
            transfer = json.loads((shared_results / f"transfer/{target}/{dataset}/metrics.json").read_text())
            assert numbers[f"transfer_{dataset}_top1_percent"] == transfer["top1_percent"]
        assert all(type(value) in (int, float) for value in numbers.values())


def test_start_teacher_and_kept_epoch_are_told(shared_results: Path, params: Params) -> None:
    results = read_results(params, shared_results)
    target = results.targets[0]
    before = {row.stage: row.outcome for row in stage_rows(results)}["retrain"]
    assert "began with trained weights" not in compared_networks(target).text
    target.retrain.metrics.update(initial_top1_percent=41.5, teacher_top1_percent=93.25, kept_epoch=1)
    numbers = summarize(results)[target.name]
    assert (numbers["retrain_initial_top1_percent"], numbers["retrain_teacher_top1_percent"]) == (41.5, 93.25)
    told = {row.stage: row.outcome for row in stage_rows(results)}["retrain"]
    epochs = len(target.retrain.history)
    assert f"after epoch 1 of {epochs}, the best on these images, taught by a network of 93.25 %" in told
    assert f"after {epochs} epochs" in before and "taught" not in before
    rows = {name: cells[0] for name, _, cells in everything(summarize(results))}
    assert compared_networks(target).text.count("began with trained weights") == 1
    assert rows["Top-1 before retraining"] == "41.50" and rows["Top-1 of the teacher"] == "93.25"


def test_json_and_csv_hold_the_same(shared_results: Path, params: Params, tmp_path: Path) -> None:
    summary = summarize(read_results(params, shared_results))
    write_summary(summary, tmp_path)
    assert json.loads((tmp_path / "summary.json").read_text()) == summary
    with (tmp_path / "summary.csv").open(newline="") as file:
        rows = {row.pop("target"): {k: float(v) for k, v in row.items() if v} for row in csv.DictReader(file)}
    assert rows == summary


def test_a_number_that_a_target_lacks_is_an_empty_cell() -> None:
    text = summary_csv({"A": {"depth": 3, "transfer_x_top1_percent": 9.5}, "B": {"depth": 4}})
    assert text == "target,depth,transfer_x_top1_percent\nA,3,9.5\nB,4,\n"
