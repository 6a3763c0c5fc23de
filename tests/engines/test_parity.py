"""The Snakefile and dvc.yaml hold the same jobs; each kind of deviation is noticed."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

from tests.helpers.engines.calls import snakemake
from tests.helpers.engines.resolved_jobs import ResolvedJob, differences, dvc_jobs, snakemake_jobs
from tests.helpers.projects import copy_project, set_param
from tfnas.space import zoo
from tfnas.stages.params import load_params
from tfnas.stages.registry import NAMED_FILES, STAGES

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, ResolvedJob]:
    """Snakemake's jobs as shipped; what is changed in dvc.yaml does not change them."""
    return snakemake_jobs(copy_project(tmp_path_factory.mktemp("shipped") / "project"))


def test_both_engines_hold_the_same_jobs(project) -> None:
    dvc, snakemake = dvc_jobs(project), snakemake_jobs(project)
    params = load_params(project / "params.yaml")
    transfers = len(params.transfer.targets) * len(params.transfer.datasets)
    baselines = len(params.baselines.targets) * len(params.baselines.networks)
    jobs = {(): 1, ("target",): len(params.targets), ("target", "dataset"): transfers, ("target", "network"): baselines}
    counts = {name: jobs[stage.per] for name, stage in STAGES.items()} | {
        "rank_baselines": len(params.baselines.targets)
    }
    assert len(dvc) == sum(counts.values())
    assert differences(dvc, snakemake) == []


def test_both_engines_hold_the_same_jobs_for_other_targets(project) -> None:
    path = project / "params.yaml"
    params = yaml.safe_load(path.read_text())
    params["targets"]["slow_1"] = {"constraint": {"latency_ms": 1.5}, "dropout": 0.1}
    params["transfer"] |= {"targets": ["slow_1"], "datasets": ["cifar10", "cifar100"], "root": "cifar"}
    params["baselines"] = {"targets": ["A", "slow_1"], "networks": ["any_12", "mobilenet_v2", "TF-NAS-CPU-B"]}
    path.write_text(yaml.safe_dump(params))
    dvc, snakemake = dvc_jobs(project), snakemake_jobs(project)
    assert {"search@slow_1", "transfer@slow_1-cifar100"} <= set(dvc)
    assert "transfer@A-shifted-digits" not in dvc
    for network in ("any_12", "mobilenet_v2", "TF-NAS-CPU-B"):
        assert {f"{stage}@slow_1-{network}" for stage in ("scale_baseline", "train_baseline")} <= set(dvc)
    assert {job for job in dvc if job.startswith("rank_baselines")} == {"rank_baselines@A", "rank_baselines@slow_1"}
    assert "train_baseline@B-random_1" not in dvc
    assert differences(dvc, snakemake) == []


def test_both_engines_watch_the_users_own_files(project) -> None:
    for named in NAMED_FILES:
        if not named.per_target:
            (project / "inputs" / named.folder / "mine").write_text("mine")
    dvc, snakemake = dvc_jobs(project), snakemake_jobs(project)
    assert differences(dvc, snakemake) == []
    watching = {job.partition("-")[0] for job, resolved in dvc.items() if "inputs/spaces/mine" in resolved.files}
    per_target = {f"{stage}@{target}" for stage in ("search", "derive") for target in "AB"}
    assert watching == {"profile_latency", "warm_up", "scale_baseline@B", "rank_baselines@B", *per_target}


def test_a_given_network_depends_on_its_own_file_and_its_search_on_nothing(project) -> None:
    """In Snakemake. dvc.yaml cannot say so: there it depends on whatever a search does, which is more and harmless."""
    architectures = project / "inputs" / "architectures"
    for name in ("mine", "others"):
        zoo.load("TF-NAS-CPU-B").save(architectures / f"{name}.json")
    for target, name in (("A", "mine"), ("B", "others")):
        set_param(project, f"targets.{target}.constraint", {"architecture": f"inputs/architectures/{name}.json"})
    set_param(project, "baselines.targets", [])  # given networks have no latency to bring others to
    dvc, snakemake = dvc_jobs(project), snakemake_jobs(project)
    for target, own, other in (("A", "mine", "others"), ("B", "others", "mine")):
        derive, search = f"derive@{target}", f"search@{target}"
        assert dvc[derive].files - snakemake[derive].files == {f"inputs/architectures/{other}.json"}
        assert f"inputs/architectures/{own}.json" in snakemake[derive].files
        assert not any(file.startswith("results/") for file in snakemake[search].files)
        assert list(json.loads(snakemake[search].params)) == [f"targets.{target}.constraint"]
        assert snakemake[search].files < dvc[search].files
    coarse = ("search@", "derive@")
    assert [line for line in differences(dvc, snakemake) if not line.startswith(coarse)] == []
    assert {job.command for job in dvc.values()} == {job.command for job in snakemake.values()}


def test_both_engines_do_without_transfers_and_baselines(project) -> None:
    path = project / "params.yaml"
    params = yaml.safe_load(path.read_text())
    params["transfer"] |= {"targets": [], "datasets": []}
    params["baselines"] |= {"targets": []}
    path.write_text(yaml.safe_dump(params))
    assert differences(dvc_jobs(project), snakemake_jobs(project)) == []


def test_both_engines_take_quoted_names_that_yaml_would_take_for_something_else(project) -> None:
    path = project / "params.yaml"
    params = yaml.safe_load(path.read_text())
    names = ["15", "015", "no", "on", "1e3", "null", "true", "0x10"]
    params["targets"] = dict.fromkeys(names, params["targets"]["A"])
    params["transfer"]["targets"] = params["baselines"]["targets"] = names
    path.write_text(json.dumps(params))  # YAML with all texts in quotes
    dvc, snakemake = dvc_jobs(project), snakemake_jobs(project)
    assert {f"search@{name}" for name in names} <= set(dvc)
    assert differences(dvc, snakemake) == []


def test_a_file_that_is_not_utf_8_is_one_line_of_snakemake(project) -> None:
    path = project / "params.yaml"
    path.write_bytes(path.read_text().replace("TF-NAS on", "für").encode("latin-1"))
    text = snakemake(project, "--dry-run", ok=False)
    assert "is not UTF-8" in text and "Traceback" not in text


@pytest.mark.parametrize(
    ("right", "wrong", "noticed"),
    [
        ("        - results/warm_up/supernet.pt\n", "", "search@A: files differ"),
        ("      - inputs/spaces\n", "", "profile_latency: files differ"),
        ("      - inputs/class_lists\n", "", "build_subset: files differ"),
        ("      - tfnas/compute\n", "", "prepare_data: files differ"),
        ("      - tfnas/stages/report.py\n", "", "report: files differ"),
        ("      - search.weights\n", "", "warm_up: params differ"),
        ("        - tfnas/latency\n", "        - tfnas/authors\n", "search@A: files differ"),
        ("      - seed\n      - build_subset\n", "      - seed\n      - rank_classes\n", "build_subset: params differ"),
        ("--results results ", "--outcomes results ", "report: command differ"),
        ("results/report/summary.csv", "results/report/sumary.csv", "report: outputs differ"),
        ("  build_subset:\n", "  build_sub:\n", "build_sub: only in one"),
    ],
)
def test_a_deviation_is_noticed(project, undisturbed, right, wrong, noticed) -> None:
    path = project / "dvc.yaml"
    text = path.read_text()
    assert right in text
    path.write_text(text.replace(right, wrong, 2))
    assert any(line.startswith(noticed) for line in differences(dvc_jobs(project), undisturbed))
