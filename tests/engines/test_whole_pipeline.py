"""The whole DAG on tiny parameters, with the real scripts, through both engines: target A searched, target B given."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path

import pytest
import yaml

from tests.helpers.engines.calls import call, snakemake
from tests.helpers.projects import set_param
from tfnas.engines.sync import sync
from tfnas.jobs.errors import UserError
from tfnas.latency import LatencyTable
from tfnas.latency.table import resolve_target_ms
from tfnas.search import latency_constraint, scale_widths
from tfnas.search.random_networks import random_baseline
from tfnas.space import Architecture, Block, Head, Stem, load_space

pytestmark = pytest.mark.slow

TINY_SPACE = Path(__file__).with_name("tiny_space.yaml")
GIVEN = "inputs/architectures/mine.json"
TINY = {
    "space": "inputs/spaces/tiny_space.yaml",
    "resolution": 16,
    "targets.B.constraint": {"architecture": GIVEN},
    "baselines": {"targets": ["A"], "networks": ["random_1", "random_2", "any_1"]},
    "rank_classes.fit.epochs": 1,
    "profile_latency.minutes": 0.03,
    "profile_latency.warmup_runs": 1,
    "profile_latency.repeats": 4,
    "profile_latency.validation_networks": 3,
    "search.epochs": 3,
    "search.warmup_epochs": 1,
    "derive.measure_repeats": 4,
    "retrain.epochs": 2,
    "retrain.warmup_epochs": 1,
    "transfer.epochs": 1,
    "transfer.resolution": 16,
}
DOWNSTREAM = [f"{stage}@{target}" for stage in ("search", "derive", "retrain") for target in "AB"]
DOWNSTREAM += ["transfer@A-shifted-digits", "transfer@B-shifted-digits", "rank_baselines@A", "report"]


@pytest.fixture
def folder(project) -> Path:
    shutil.copy(TINY_SPACE, project / "inputs" / "spaces")
    given_architecture().save(project / GIVEN)
    for key, value in TINY.items():
        set_param(project, key, value)
    return project


def choose_target(folder: Path) -> None:
    """Give A a latency that random networks have: so short a profile's table leaves gaps between a tiny space's few."""
    params = yaml.safe_load((folder / "params.yaml").read_text())
    space = load_space(folder / params["space"])
    table = LatencyTable.load(folder / "results" / "profile_latency" / "latency_table.json")
    for percent in range(70, 10, -5):
        target_ms = resolve_target_ms("A", None, percent / 100, space, table)
        try:
            for network in ("random_1", "random_2"):
                random_baseline(latency_constraint(space, table, target_ms), "A", network, params["seed"])
        except UserError:
            continue
        set_param(folder, "targets.A.constraint.relative", percent / 100)
        return
    pytest.fail("no target has random networks")


def given_architecture(width: int = 24) -> Architecture:
    """A network outside of the tiny space."""
    blocks = (Block(3, 8, width, 0, 16, "relu", 2, stage=1), Block(5, 16, 48, 4, 16, "swish", 1, stage=2))
    return Architecture("by-hand", "none", Stem(3, 3, 8, 2, "relu"), blocks, Head(32, "swish"))


def check_results(folder: Path) -> None:
    """Laws that hold of any finished run, whatever was measured."""
    results = folder / "results"
    params = yaml.safe_load((folder / "params.yaml").read_text())
    space = load_space(folder / params["space"])
    table = LatencyTable.load(results / "profile_latency" / "latency_table.json")
    summary = json.loads((results / "report" / "summary.json").read_text())
    page = (results / "report" / "report.html").read_text()
    with (results / "build_subset" / "classes.csv").open() as file:
        chosen = list(csv.DictReader(file))
    assert len(chosen) == params["build_subset"]["groups"]
    for target in params["targets"]:
        architecture = Architecture.load(results / "derive" / target / "architecture.json")
        derived = json.loads((results / "derive" / target / "metrics.json").read_text())
        is_given = target == "B"
        if is_given:
            assert architecture == given_architecture() and derived["measured_latency_ms"] > 0.0
            assert not {"table_latency_ms", "target_ms", "gap_percent"} & derived.keys()
        else:
            assert derived["table_latency_ms"] == table.latency_ms(architecture)
            scaled = scale_widths(architecture, latency_constraint(space, table, derived["target_ms"]))
            assert (derived["table_latency_ms"] <= derived["target_ms"]) == scaled.reached
        for stage, epochs in (("search", 0 if is_given else 3), ("retrain", 2)):
            with (results / stage / target / "history.csv").open() as file:
                assert len(list(csv.DictReader(file))) == epochs
        transferred = json.loads((results / "transfer" / target / "shifted-digits" / "metrics.json").read_text())
        assert 0.0 <= transferred["top1_percent"] <= 100.0
        assert architecture.name in page
        assert ("table_latency_ms" in summary[target]) == (not is_given)
    with (results / "rank_baselines" / "A" / "supernet_top1.csv").open() as file:
        assert [row["network"] for row in csv.DictReader(file)] == params["baselines"]["networks"]
    assert page.count("Does the supernet rank?") == 1 and "Over all sizes (n = 3): " in page
    assert not list((folder / "checkpoints").rglob("*.pt"))


def test_snakemake_runs_the_whole_pipeline_and_dvc_agrees(folder) -> None:
    snakemake(folder, "results/profile_latency/latency_table.json")
    choose_target(folder)
    snakemake(folder)
    check_results(folder)
    assert "Nothing to be done" in snakemake(folder)
    assert sync(folder).stale == ()
    assert "up to date" in call(folder, "dvc", "status")
    shown = call(folder, "dvc", "metrics", "show")
    assert "results/retrain/A/metrics.json" in shown and "top1_percent" in shown
    assert "file://" in call(folder, "dvc", "plots", "show")

    set_param(folder, "search.lambda", 0.3)
    planned = call(folder, "dvc", "repro", "--dry", "--force-downstream")
    assert [
        name for name in DOWNSTREAM if f"Running stage '{name}'" not in planned
    ] == []  # B's too: dvc.yaml is coarser
    assert "warm_up' didn't change" in planned
    assert "rank_classes' didn't change" in planned and "profile_latency' didn't change" in planned
    planned = snakemake(folder, "--dry-run", "--quiet", "rules")
    rules = {line.split()[0]: int(line.split()[1]) for line in planned.splitlines() if _is_count(line)}
    assert {name: count for name, count in rules.items() if name not in ("all", "total")} == {
        "search": 1,
        "derive": 1,
        "retrain": 1,
        "transfer": 1,
        "rank_baselines": 1,
        "report": 1,
    }


def test_dvc_runs_the_whole_pipeline_and_snakemake_agrees(folder) -> None:
    call(folder, "dvc", "repro", "profile_latency")
    choose_target(folder)
    call(folder, "dvc", "repro")
    check_results(folder)
    assert sync(folder).stale == ()
    assert "Nothing to be done" in snakemake(folder)


def _is_count(line: str) -> bool:
    words = line.split()
    return len(words) == 2 and words[1].isdigit()
