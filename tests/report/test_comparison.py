"""The paper's printed numbers, checked against each other and against the networks; and what compares with a run."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from tfnas.latency import LatencyTable
from tfnas.report.comparison import is_the_papers_task, networks_on_device, paper_tables
from tfnas.report.inputs import ClassResult, Results, Training, read_results
from tfnas.report.paper_tables import TABLE_2, TABLE_7, TABLE_8, TABLE_9
from tfnas.report.summary import stage_rows
from tfnas.space import Space, count_macs, load_space, zoo
from tfnas.stages.params import Params
from tfnas.stages.registry import STAGES

PAPER = Path(__file__).parents[3] / "shared/paper/tf-nas.txt"
MISPRINTED = "TF-NAS-A-wose"  # 504 M for 512.8 M: docs/paper.md


@pytest.fixture(scope="module")
def results(shared_results: Path, params: Params) -> Results:
    return read_results(params, shared_results)


@pytest.fixture(scope="module")
def on_imagenet(results: Results, make_table: Callable[[Space, int], LatencyTable]) -> Results:
    """The same results as if they were of ImageNet."""
    classes = [ClassResult(f"n{i:08}", 80.0, None) for i in range(1000)]
    table = make_table(load_space(results.table.space), 224)
    return replace(results, source="imagenet", classes=classes, table=table)


def test_tables_agree_where_they_repeat_each_other() -> None:
    looked_up = {row.name: row for row in TABLE_9}
    for rows, latency in ((TABLE_2, "gpu_ms"), (TABLE_8, "cpu_ms")):
        for row in rows:
            if row.is_tf_nas:
                other = looked_up[row.name]
                assert (row.top1_percent, row.latency_ms) == (other.top1_percent, getattr(other, latency))
                assert row.macs_millions == other.macs_millions
    assert {row.name for row in (*TABLE_2, *TABLE_8) if row.is_tf_nas} == looked_up.keys()
    assert all(row.macs_millions == looked_up[row.name].macs_millions for row in TABLE_7)


def test_numbers_are_those_of_the_networks() -> None:
    for row in TABLE_9:
        assert row.top1_percent == zoo.published(row.name).top1
        if row.name != MISPRINTED:
            assert abs(row.macs_millions - count_macs(zoo.load(row.name)) / 1e6) < 0.7  # rounded; biases may count


@pytest.mark.skipif(not PAPER.exists(), reason="the paper's text is not here")
def test_every_cited_row_stands_in_the_paper() -> None:
    text = re.sub(r"\$|\\mathrm|\{|\}|\\times|×|ms\b", " ", PAPER.read_text(encoding="utf-8"))
    text = re.sub(r"\b(\d\.\d+)x", r"\1", text)
    for row in (*TABLE_2, *TABLE_8):
        name = re.escape(row.name.replace("x", "") if row.name.endswith("x") else row.name).replace(r"\ ", r"\s+")
        numbers = rf"{row.top1_percent}\s+{row.latency_ms:.2f}\s+{row.macs_millions}\b"
        assert re.search(rf"{name}\s*(\(Ours\)|\[\d+\s*\]?)?\s*{numbers}", text), row


def test_networks_here_are_costed_by_the_runs_table(results: Results) -> None:
    rows = networks_on_device(results)
    latencies = [row.table_ms for row in rows]
    assert latencies == sorted(latencies)
    ours = {row.name: row for row in rows if row.ours}
    for target in results.targets:
        row = ours[f"{target.name} (this run)"]
        assert row.table_ms == results.table.latency_ms(target.architecture)
        assert row.macs == count_macs(target.architecture, 224, 1000)
    published = [row for row in rows if not row.ours]
    assert {row.name for row in published} <= {name for name in zoo.names() if zoo.load(name).space == "tf-nas"}
    assert published and all(row.table_ms == results.table.latency_ms(zoo.load(row.name)) for row in published)


def test_on_other_data_no_accuracy_of_the_run_stands_among_the_papers(results: Results) -> None:
    assert not is_the_papers_task(results)
    tables = {table.key: table for table in paper_tables(results)}
    for key in ("table-2", "table-7", "table-8"):
        assert not any(row.ours for row in tables[key].rows)
        assert tables[key].compares.startswith("No row compares")
    assert sum(row.ours for row in tables["table-9"].rows) == len(results.targets)


def test_on_imagenet_the_runs_rows_stand_first(on_imagenet: Results) -> None:
    assert is_the_papers_task(on_imagenet)
    count = len(on_imagenet.targets)
    for table in paper_tables(on_imagenet):
        if table.key != "table-7":
            assert [row.ours for row in table.rows] == [True] * count + [False] * (len(table.rows) - count)
            assert "No row compares" not in table.compares
        assert all(len(row.cells) == len(table.columns) for row in table.rows)


def test_a_transfer_to_cifar_stands_in_table_7(results: Results, on_imagenet: Results) -> None:
    cifar = {"cifar10": Training([], {"top1_percent": 97.5})}
    for run, said in ((results, "trained on digits before"), (on_imagenet, "rows compare")):
        first, *others = run.targets
        table = paper_tables(replace(run, targets=[replace(first, transfers=cifar), *others]))[1]
        assert [row.cells[1:3] for row in table.rows if row.ours] == [("97.50", "–")]
        assert said in table.compares


def test_one_row_a_stage_in_order(results: Results) -> None:
    assert [row.stage for row in stage_rows(results)] == [stage for stage in STAGES if stage != "report"]
    assert all(row.outcome for row in stage_rows(results))


def test_a_table_of_another_space_has_only_this_runs_networks(results: Results) -> None:
    rows = networks_on_device(replace(results, table=replace(results.table, space="mine")))
    assert len(rows) == len(results.targets) and all(row.ours for row in rows)


def test_the_page_of_imagenet_shows_the_published_networks_in_the_trade_off(
    on_imagenet: Results, make_page: Callable[[Results], str]
) -> None:
    html = make_page(on_imagenet)
    assert "TF-NAS-D (paper)\n74.2 % by the paper" in html and "The paper’s accuracies are of ImageNet" not in html
