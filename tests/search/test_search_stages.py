"""The stages warm_up, search and derive on tiny pictures: their files, their tracking, their checkpoints."""

from __future__ import annotations

import csv
import json
import math
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml

from tests.helpers.jobs import make_job, run_job
from tfnas.jobs.errors import UserError
from tfnas.latency.params import ConstraintParams
from tfnas.search.result import load_search_result, load_warm_up
from tfnas.search.session import count_classes
from tfnas.space import Architecture, build_network, zoo
from tfnas.stages import derive, search, warm_up
from tfnas.stages.params import TargetParams

ROOT = Path(__file__).parents[2]


class FakeRun:
    """Notes what is logged; fails at an epoch when told to."""

    id = "run-1"

    def __init__(self, fails_at: int | None = None) -> None:
        self.fails_at, self.metrics = fails_at, []

    def log_metrics(self, metrics, step=None) -> None:
        if step is not None and step == self.fails_at:
            raise ConnectionError
        self.metrics.append((dict(metrics), step))


IMAGES = ("train", "val", "images")
FILES = {"train": "train.csv", "val": "val.csv", "images": "images"}
FILES |= {"table": "latency_table.json", "warm_up": "warm_up/supernet.pt"}


def warm_up_job(params, folder):
    job = make_job("warm_up", folder / "warm_up", params, {name: folder / FILES[name] for name in IMAGES})
    job.run = FakeRun()
    return job


def search_job(params, folder, out, *, fails_at=None):
    """The job of a search, its warm-up run where it has not been."""
    if not (folder / FILES["warm_up"]).exists():
        job = warm_up_job(params, folder)
        warm_up.run(job, warm_up.check(job))
        job.end()
    job = make_job("search", folder / out, params, {name: folder / file for name, file in FILES.items()}, "A")
    job.run = FakeRun(fails_at)
    return job


def run(params, folder, out, *, fails_at=None):
    job = search_job(params, folder, out, fails_at=fails_at)
    checked = search.check(job)
    search.run(job, checked)
    job.end()
    return job, checked.constraint


def derive_job(params, folder, searched):
    inputs = {"supernet": searched.out / "supernet.pt", "table": folder / FILES["table"]}
    job = make_job("derive", folder / "derived", params, inputs, "A")
    job.run = FakeRun()
    return job


def test_job_writes_its_files_and_logs_every_epoch(params, folder, tiny_table) -> None:
    job, constraint = run(params, folder, "out")
    assert sorted(path.name for path in job.out.iterdir()) == ["history.csv", "metrics.json", "supernet.pt"]
    metrics = json.loads((job.out / "metrics.json").read_text())
    assert all(isinstance(value, (int, float)) for value in metrics.values())
    assert metrics["table_latency_ms"] <= metrics["target_ms"] == constraint.limit
    assert metrics["num_classes"] == 3
    assert [step for _, step in job.run.metrics] == [1, 2, 3, None]
    architecture = derive.check(derive_job(params, folder, job)).architecture
    assert tiny_table.latency_ms(architecture) == metrics["table_latency_ms"]
    assert not list(folder.rglob("checkpoints/**/*.pt"))


@pytest.mark.parametrize("stage", ["warm_up", "search"])
def test_metrics_and_tracking_have_the_accuracies_of_the_last_epoch(params, folder, stage) -> None:
    job, _ = run(params, folder, "out")
    out = job.out if stage == "search" else folder / "warm_up"
    with (out / "history.csv").open(newline="") as file:
        history = list(csv.DictReader(file))
    metrics = json.loads((out / "metrics.json").read_text())
    for name in ("val_top1", "derived_top1", "random_top1_mean", "random_top1_std"):
        assert metrics[f"{name}_percent"] == float(history[-1][name])
        if stage == "search":
            logged = {step: values for values, step in job.run.metrics}
            assert [logged[epoch][name] for epoch in (1, 2, 3)] == [float(row[name]) for row in history]
            assert metrics["warm_up_loss"] == float(history[params.search.warmup_epochs - 1]["train_loss"])
            assert metrics["untrained_above"] == pytest.approx(0.9 * math.log(metrics["num_classes"]))


@pytest.mark.parametrize("scaling", [True, False])
def test_search_and_derive_agree_on_the_network_within_the_budget(params, folder, tiny_table, scaling) -> None:
    changes = {
        "derive": params.derive.model_copy(update={"within": "budget"}),
        "search": params.search.model_copy(update={"elasticity_scaling": scaling}),
        "targets": {"A": TargetParams(constraint=ConstraintParams(relative=0.9), dropout=0.2)},
    }
    budget = params.model_copy(update=changes)
    job, constraint = run(budget, folder, "out")
    architecture = derive.check(derive_job(budget, folder, job)).architecture
    metrics = json.loads((job.out / "metrics.json").read_text())
    with (job.out / "history.csv").open(newline="") as file:
        last = list(csv.DictReader(file))[-1]
    latency_ms = tiny_table.latency_ms(architecture)
    assert latency_ms == metrics["table_latency_ms"] == float(last["derived_latency_after_ms"])
    assert [int(last[f"stage{s}_depth"]) for s in (3, 4)] == [
        sum(block.stage == s for block in architecture.blocks) for s in (3, 4)
    ]
    unbudgeted = params.model_copy(update={"targets": changes["targets"]})
    strongest = derive.check(derive_job(unbudgeted, folder, job)).architecture
    assert strongest != architecture
    if scaling:
        assert 0.99 * constraint.limit <= latency_ms <= constraint.limit


@pytest.mark.parametrize(
    ("within", "relative", "says"),
    [
        ("strongest", 0.9, "its widths are as large as they may be, so a lower target, derive.within: budget or"),
        ("budget", 0.9, None),
    ],
)
def test_a_network_far_below_its_target_is_reported(params, folder, caplog, within, relative, says) -> None:
    target = TargetParams(constraint=ConstraintParams(relative=relative), dropout=0.2)
    derive_params = params.derive.model_copy(update={"within": within})
    run(params.model_copy(update={"derive": derive_params, "targets": {"A": target}}), folder, "out")
    warnings = [record.getMessage() for record in caplog.records if "below the target" in record.getMessage()]
    assert len(warnings) == (says is not None)
    assert says is None or says in warnings[0]


def test_interrupted_job_resumes_and_leaves_the_same_bytes(params, folder) -> None:
    whole, _ = run(params, folder, "whole")
    with pytest.raises(ConnectionError):
        run(params, folder, "other", fails_at=2)
    job = search_job(params, folder, "other")
    assert search.resumes(job, search.check(job)) == "run-1"
    job = warm_up_job(params, folder)
    assert warm_up.resumes(job, warm_up.check(job)) is None
    assert len(list((folder / "checkpoints/search/A").glob("*.pt"))) == 2
    resumed, _ = run(params, folder, "other")
    for name in ("supernet.pt", "metrics.json"):
        assert (resumed.out / name).read_bytes() == (whole.out / name).read_bytes()
    assert [step for _, step in resumed.run.metrics] == [1, 2, 3, None]
    assert not (folder / "checkpoints/search/A").exists()


@pytest.mark.parametrize("change", ["seed", "train.csv", "space"])
def test_checkpoint_of_another_job_is_not_resumed(params, folder, change, caplog, tiny_space_file) -> None:
    with pytest.raises(ConnectionError):
        run(params, folder, "out", fails_at=1)
    if change == "seed":
        params = params.model_copy(update={"seed": 7})
    elif change == "train.csv":
        (folder / "train.csv").write_text("\n".join((folder / "train.csv").read_text().splitlines()[:-1]) + "\n")
    else:  # the same name and the same candidates, one of them beginning elsewhere
        text = tiny_space_file.read_text().replace("expand_ratio: 6", "expand_ratio: 5")
        other = tiny_space_file.with_name("other.yaml")
        other.write_text(text)
        params = params.model_copy(update={"space": str(other)})
    shutil.rmtree(folder / "warm_up")
    with caplog.at_level("INFO", logger="tfnas"):
        run(params, folder, "out")
    assert "resumes after" not in caplog.text


def test_derived_files_hold_no_measured_number(params, folder, monkeypatch, tiny_table) -> None:
    searched, _ = run(params, folder, "out")
    job, written = derive_job(params, folder, searched), []
    checked = derive.check(job)
    architecture = checked.architecture
    for measured in (1.5, 2.5):
        result = SimpleNamespace(median_ms=measured)
        monkeypatch.setattr(derive, "measure_architecture_ms", lambda *a, r=result, **k: r)
        derive.run(job, checked)
        metrics = json.loads((job.out / "metrics.json").read_text())
        assert metrics["measured_latency_ms"] == measured
        assert metrics["table_latency_ms"] == tiny_table.latency_ms(architecture)
        assert metrics["depth"] == len(architecture.blocks)
        written.append([(job.out / name).read_bytes() for name in ("architecture.json", "initial.pt")])
    assert written[0] == written[1]
    assert Architecture.load(job.out / "architecture.json") == architecture


def test_derive_hands_over_the_weights_where_they_are_asked_for_and_else_always_the_same(params, folder, tmp_path):
    searched, _ = run(params, folder, "out")
    job = derive_job(params, folder, searched)
    assert derive.check(job).initial == {}
    asked = params.model_copy(update={"retrain": params.retrain.model_copy(update={"initial": "supernet"})})
    checked = derive.check(derive_job(asked, folder, searched))
    network = build_network(checked.architecture, 3)
    network.load_state_dict(checked.initial)
    assert checked.architecture == derive.check(job).architecture


def test_supernet_of_another_target_is_a_user_error(params, folder) -> None:
    job, _ = run(params, folder, "out")
    target = TargetParams(constraint=ConstraintParams(relative=0.5), dropout=0.2)
    other = params.model_copy(update={"targets": {"A": target}})
    with pytest.raises(UserError, match=r"was searched for .* ms, target A now asks for"):
        derive.check(derive_job(other, folder, job))


def test_one_class_is_a_user_error() -> None:
    assert count_classes([("a", 0)], [("b", 1)], source="train.csv") == 2
    with pytest.raises(UserError, match=r"train\.csv: has 1 classes"):
        count_classes([("a", 0)], [("b", 0)], source="train.csv")


@pytest.mark.slow
def test_a_search_killed_by_the_system_ends_with_the_same_bytes_in_the_same_run(
    params, folder, tiny_space_file
) -> None:
    """By the benchmark that does so at many moments."""
    (folder / "inputs" / "spaces").mkdir(parents=True)
    shutil.copy(tiny_space_file, folder / "inputs" / "spaces")
    params = params.model_copy(update={"space": f"inputs/spaces/{tiny_space_file.name}"})
    layout = {"train.csv": "build_subset", "val.csv": "build_subset", "images": "build_subset"}
    layout |= {"latency_table.json": "profile_latency"}
    for name, stage in layout.items():
        (folder / "results" / stage).mkdir(parents=True, exist_ok=True)
        shutil.move(folder / name, folder / "results" / stage / name)
    inputs = {name: folder / "results" / layout[FILES[name]] / FILES[name] for name in IMAGES}
    job = make_job("warm_up", folder / "results" / "warm_up", params, inputs)
    warm_up.run(job, warm_up.check(job))
    (folder / "params.yaml").write_text(
        yaml.safe_dump(params.model_dump(mode="json", by_alias=True, exclude_unset=True))
    )
    kills = ["search", "--target", "A", "--kills", "2", "--seed", "1"]
    command = [sys.executable, "-m", "benchmarks.pipeline.kills", *kills]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    finished = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=900)
    assert finished.returncode == 0, finished.stdout + finished.stderr
    assert finished.stdout.count("killed after") == 2


def given(params, network: str, **search_values):
    """The parameters with a given network as target A."""
    target = TargetParams(constraint=ConstraintParams(architecture=network), dropout=0.2)
    search_params = params.search.model_copy(update=search_values)
    return params.model_copy(update={"targets": {"A": target}, "search": search_params})


def derive_given(params, folder):
    """The outcome of stages search and derive of target A, in a folder where no warm-up has been."""
    inputs = {name: folder / file for name, file in FILES.items()}
    searched = make_job("search", folder / "searched", params, inputs, "A")
    searched.run = FakeRun()
    run_job(searched)
    derived = derive_job(params, folder, searched)
    run_job(derived)
    return searched, derived


def test_a_given_network_is_not_searched(params, folder, tiny_space) -> None:
    """No warm-up is needed, no epoch is written, and the supernet's file says why it has none."""
    mine = folder / "mine.json"
    zoo.load("TF-NAS-CPU-B").save(mine)
    params = given(params, str(mine))
    job, derived = derive_given(params, folder)
    assert search.reads(job) == [] and not (folder / FILES["warm_up"]).exists()
    assert (job.out / "history.csv").read_text().count("\n") == 1
    assert json.loads((job.out / "metrics.json").read_text()) == {"epochs": 0}
    with pytest.raises(UserError) as caught:
        load_search_result(job.out / "supernet.pt", tiny_space)
    assert "holds no supernet, since target A names its network" in str(caught.value)
    assert Architecture.load(derived.out / "architecture.json") == zoo.load("TF-NAS-CPU-B")


def test_the_table_predicts_a_given_network_of_its_space_only(params, folder, tiny_space, tiny_table) -> None:
    searched, _ = run(params, folder, "out")
    member = derive.check(derive_job(params, folder, searched)).architecture
    wider = replace(member, head=replace(member.head, out_channels=member.head.out_channels + 1))
    for network, predicted in ((member, {"table_latency_ms": tiny_table.latency_ms(member)}), (wider, {})):
        network.save(folder / "mine.json")
        _, derived = derive_given(given(params, str(folder / "mine.json")), folder)
        metrics = json.loads((derived.out / "metrics.json").read_text())
        assert {name: metrics[name] for name in predicted} == predicted
        assert {
            "measured_latency_ms",
            "macs",
            "params",
            "depth",
            "measured_on",
            "table_of",
        } == metrics.keys() - predicted


def test_without_epochs_the_warm_up_trains_nothing(params, folder, tiny_space) -> None:
    params = given(params, "TF-NAS-CPU-B", epochs=0)
    job = warm_up_job(params, folder)
    job.run = FakeRun()
    run_job(job)
    assert json.loads((job.out / "metrics.json").read_text()) == {"epochs": 0}
    assert (job.out / "history.csv").read_text().count("\n") == 1
    with pytest.raises(UserError, match=r"holds no supernet, since search\.epochs is 0"):
        load_warm_up(job.out / "supernet.pt", tiny_space, {})
    assert not list(folder.rglob("checkpoints/**/*.pt"))


def test_a_warm_up_that_no_target_needs_says_so(params, folder, caplog) -> None:
    with caplog.at_level("INFO", logger="tfnas"):
        for some in (params, given(params, "TF-NAS-CPU-B")):
            job = warm_up_job(some, folder)
            warm_up.run(job, warm_up.check(job))
            job.end()
    assert caplog.text.count("search.epochs: 0 would spare") == 1
