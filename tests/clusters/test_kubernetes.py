"""The Kubernetes profile with a stand-in for kubectl, which keeps the manifests and runs the jobs here."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path

import pytest

from tests.helpers.engines.calls import call
from tests.helpers.engines.processes import TARGET
from tests.helpers.projects import set_param
from tfnas.engines.snakemake import cancel_cluster_jobs

FAKE = Path(__file__).with_name("fake_kubectl.py")
PLUGIN = "snakemake_executor_plugin_cluster_generic"


@pytest.fixture
def cluster(tmp_path: Path, monkeypatch) -> Path:
    """A folder with what the stand-in was asked for."""
    tool = tmp_path / "bin" / "kubectl"
    tool.parent.mkdir()
    tool.write_text(f'#!/bin/sh\nexec {sys.executable} {FAKE} "$@"\n')
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", str(tool.parent), prepend=":")
    monkeypatch.setenv("TFNAS_FAKE_CLUSTER", str(tmp_path / "cluster"))
    monkeypatch.setenv("TFNAS_IMAGE", "registry.example/tfnas:1")
    monkeypatch.setenv("TFNAS_CLAIM", "tfnas-project")
    (tmp_path / "cluster").mkdir()
    return tmp_path / "cluster"


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec(PLUGIN) is None, reason="needs the extra `cluster`")
def test_jobs_run_as_kubernetes_jobs_on_the_shared_volume(folder, cluster, monkeypatch) -> None:
    monkeypatch.setenv("TFNAS_STEPS", "2")
    set_param(folder, "device.name", "cuda")
    text = call(folder, "snakemake", "--workflow-profile", "kubernetes", "--latency-wait", "5", TARGET)
    assert (folder / TARGET).exists(), text
    jobs = {path.name.rpartition("-")[0]: json.loads(path.read_text()) for path in cluster.glob("*.json")}
    assert set(jobs) == {"tfnas-prepare-data", "tfnas-rank-classes"}
    spec = jobs["tfnas-rank-classes"]["spec"]
    (container,) = spec["template"]["spec"]["containers"]
    assert container["image"] == "registry.example/tfnas:1" and container["workingDir"] == str(folder)
    wanted = {"cpu": "1", "memory": "4000M", "nvidia.com/gpu": "1"}
    assert container["resources"] == {"requests": wanted, "limits": wanted}
    assert (spec["activeDeadlineSeconds"], spec["backoffLimit"]) == (1800, 0)
    (mounted,) = container["volumeMounts"]
    (volume,) = spec["template"]["spec"]["volumes"]
    assert mounted == {"name": volume["name"], "mountPath": str(folder)}
    assert volume["persistentVolumeClaim"] == {"claimName": "tfnas-project"}
    assert {name.rpartition("-")[0] for name in cancel_cluster_jobs(folder)} == {
        "job.batch/tfnas-prepare-data",
        "job.batch/tfnas-rank-classes",
    }
    assert cancel_cluster_jobs(folder.parent) == []
    (container,) = jobs["tfnas-prepare-data"]["spec"]["template"]["spec"]["containers"]
    assert "nvidia.com/gpu" not in container["resources"]["limits"]


def test_what_must_be_set_is_said_in_one_line(folder, cluster, monkeypatch) -> None:
    monkeypatch.delenv("TFNAS_CLAIM")
    numbers = ("--cpus", "1", "--gpus", "0", "--mem-mb", "1", "--minutes", "1")
    command = (sys.executable, "profiles/kubernetes/jobs.py", "submit", "--rule", "search", *numbers, "script.sh")
    assert call(folder, *command, ok=False) == "error: TFNAS_CLAIM must be set (docs/clusters.md)\n"
    assert list(cluster.iterdir()) == []
