"""`snakemake claims` end to end on tiny parameters, with the real scripts; a second run repeats nothing."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.helpers.engines.calls import snakemake
from tests.helpers.projects import copy_project, set_param
from tfnas.claims.unit import UnitInputs, network_of, run_unit
from tfnas.claims.variants import WARM_UP, required_claims
from tfnas.latency import LatencyTable
from tfnas.space import count_params, load_space
from tfnas.stages.params import load_params

pytestmark = pytest.mark.slow

TINY_SPACE = Path(__file__).parents[1] / "engines" / "tiny_space.yaml"
TINY = {
    "space": "inputs/spaces/tiny_space.yaml",
    "resolution": 16,
    "targets": {"A": {"constraint": {"relative": 0.7}, "dropout": 0.0}},
    "baselines": {"targets": [], "networks": ["random_1"]},
    "transfer.targets": [],
    "rank_classes.fit.epochs": 1,
    "prepare_data.images_per_class": 40,
    "profile_latency.minutes": 0.03,
    "profile_latency.warmup_runs": 1,
    "profile_latency.repeats": 4,
    "profile_latency.validation_networks": 3,
    "search.epochs": 4,
    "search.warmup_epochs": 1,
    "search.weight_sharing": "none",
    "retrain.epochs": 1,
    "retrain.warmup_epochs": 0,
    "claims": {
        "tested": ["appendix-e", "appendix-b"],
        "seeds": 1,
        "weight_sharing": ["none"],
        "lambda_log": 0.3,
        "lambda_linear": 0.02,
        "early_stopping": {"layers": 0.1, "epochs": 1},
        "groups": 5,
    },
}
VARIANTS = {"tf_nas", "early_stopping", "ranked_classes", "random_classes"}
RERUN = {"claims_unit": str(len(VARIANTS)), "claims_warm_up": "1", "claims_page": "1", "claims": "1"}
TIMES = ("began", "ended", "seconds", "cpu_seconds", "search_cpu_seconds")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    project = copy_project(tmp_path / "project")
    shutil.copy(TINY_SPACE, project / "inputs" / "spaces")
    for key, value in TINY.items():
        set_param(project, key, value)
    return project


def tracked(folder: Path) -> list[Any]:
    """The units' MLflow runs."""
    import mlflow

    client = mlflow.MlflowClient(f"sqlite:///{folder}/mlflow.db")
    experiments = [experiment.experiment_id for experiment in client.search_experiments()]
    return list(client.search_runs(experiments, "tags.stage = 'claims'"))


def check_records(folder: Path, units: dict[str, Any]) -> None:
    """The network that a search's last record describes is the one that it ends with (so earlier records can be)."""
    space = load_space(folder / TINY["space"])
    table = LatencyTable.load(folder / "results" / "profile_latency" / "latency_table.json")
    for unit in units.values():
        network = network_of(unit["history"][-1], space, "last")
        assert table.latency_ms(network) == unit["table_latency_ms"] == unit["history"][-1]["derived_latency_after_ms"]
        assert (count_params(network, unit["num_classes"]), len(network.blocks)) == (unit["params"], unit["depth"])


def run_alone(folder: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """The unit of TF-NAS with a warm-up of its own, in this process."""
    monkeypatch.chdir(folder)
    params, results = load_params("params.yaml"), Path("results")
    inputs = UnitInputs(
        table=results / "profile_latency" / "latency_table.json",
        train=results / "build_subset" / "train.csv",
        val=results / "build_subset" / "val.csv",
        images=results / "build_subset" / "images",
        class_accuracy=results / "rank_classes" / "class_accuracy.csv",
        manifest=results / "prepare_data" / "manifest.csv",
        all_images=results / "prepare_data" / "images",
    )
    return run_unit(params, required_claims(params, "params.yaml"), inputs, name="tf_nas", sharing="none", number=0)


def test_a_shared_warm_up_changes_no_result(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = "results/claims/units/tf_nas/none/seed_0/unit.json"
    snakemake(folder, path)
    shared, alone = json.loads((folder / path).read_text()), run_alone(folder, monkeypatch)
    timeless = {key: value for key, value in alone.items() if key not in TIMES}
    assert {key: value for key, value in shared.items() if key not in TIMES} == timeless
    warm_up = json.loads((folder / "results/claims/units/warm_up/none/seed_0/unit.json").read_text())
    assert shared["search_cpu_seconds"] > warm_up["cpu_seconds"]


def test_claims_run_resume_and_leave_the_ordinary_run_alone(folder: Path) -> None:
    snakemake(folder, "claims")
    found = (folder / "results" / "claims" / "units").rglob("unit.json")
    paths = sorted(path for path in found if WARM_UP not in path.parts)
    units = {path.parts[-4]: json.loads(path.read_text()) for path in paths}
    assert units.keys() == VARIANTS
    assert all(0.0 <= unit["top1_percent"] <= 100.0 for unit in units.values())
    assert {name: unit["num_classes"] for name, unit in units.items() if "classes" in name} == dict.fromkeys(
        ("ranked_classes", "random_classes"), 5
    )
    stopped = units["early_stopping"]
    assert len(stopped["history"]) < 4 and "compared_top1_percent" in stopped
    check_records(folder, units)
    verdicts = json.loads((folder / "results" / "claims" / "claims.json").read_text())
    assert verdicts["units"] == {"finished": 4, "wanted": 4}
    found = verdicts["weight_sharing"]["none"]["claims"]
    assert {key: claim["verdict"] for key, claim in found.items()} == dict.fromkeys(
        TINY["claims"]["tested"], "not shown"
    )
    page = (folder / "results" / "claims" / "claims.html").read_text()
    assert "http://" not in page.replace("http://www.w3.org", "") and "<script src" not in page

    runs = tracked(folder)
    assert sorted(run.data.tags["variant"] for run in runs) == sorted(VARIANTS | {WARM_UP})
    assert {run.data.tags["seed"] for run in runs} == {"0"} and {run.info.status for run in runs} == {"FINISHED"}

    written = {path: path.stat().st_mtime_ns for path in paths}
    assert "Nothing to be done" in snakemake(folder, "claims")
    paths[0].unlink()
    snakemake(folder, "claims")
    assert {path for path in paths if path.stat().st_mtime_ns == written[path]} == set(paths[1:])
    assert not (folder / "results" / "search").exists()

    for code, rerun in (("claims/page.py", {"claims": "1", "claims_page": "1"}), ("search/sampling.py", RERUN)):
        with (folder / "tfnas" / code).open("a") as file:
            file.write("\n# edited\n")
        plan = snakemake(folder, "claims", "-n")
        assert dict(re.findall(r"^(claims\w*) +(\d+)$", plan, re.MULTILINE)) == rerun, code


def test_without_the_section_one_line_says_what_to_do(folder: Path) -> None:
    params = yaml.safe_load((folder / "params.yaml").read_text())
    del params["claims"]
    (folder / "params.yaml").write_text(yaml.safe_dump(params))
    said = snakemake(folder, "claims", "-n", ok=False)
    assert "params.yaml: has no section claims; `tfnas init claims` writes a params.yaml that has one" in said
