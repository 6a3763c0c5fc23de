"""The profiles: what each gives Snakemake; GPUs are counted where nobody says how many there are."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

from tests.helpers.engines.calls import call
from tests.helpers.projects import set_param
from tfnas.stages.params import ResourcesParams, load_params
from tfnas.stages.registry import STAGES

ROOT = Path(__file__).parents[2]
TARGET = "results/rank_classes/metrics.json"


@pytest.mark.parametrize("name", ["default", "slurm", "kubernetes"])
def test_every_profile_goes_on_after_a_kill(name) -> None:
    profile = yaml.safe_load((ROOT / "profiles" / name / "profile.yaml").read_text())
    assert profile["rerun-incomplete"] is True
    assert (profile.get("retries", 0) > 0) == (name != "default")


def test_every_stage_has_its_resources_and_none_depends_on_them() -> None:
    assert list(ResourcesParams.model_fields) == list(STAGES)
    assert not any(key.startswith("resources") for stage in STAGES.values() for key in stage.keys)


def test_the_default_profile_is_found_and_rules_ask_for_what_params_say(folder) -> None:
    set_param(folder, "resources.rank_classes", {"mem_mb": 1234, "minutes": 56})
    rules = folder / "Snakefile"  # Snakemake lists what a job asks for only where its rule has no message
    rules.write_text(re.sub(r"    message:\n.*\n", "", rules.read_text()))
    text = call(folder, "snakemake", "--dry-run", "--cores", "2", TARGET)
    assert "profile profiles/default" in text
    assert "mem_mb=1234" in text and "runtime=56" in text
    assert load_params(folder / "params.yaml").resources.rank_classes.minutes == 56


@pytest.mark.parametrize(
    ("device", "visible", "options", "provided"),
    [
        ("cuda", "0,1,2", [], 3),
        ("cuda:1", "0,1,2", [], 1),
        ("cuda", "0,1,2", ["--resources", "gpu=2"], 2),
    ],
)
def test_jobs_on_gpus_are_no_more_than_the_gpus(folder, monkeypatch, device, visible, options, provided) -> None:
    monkeypatch.setenv("TFNAS_STEPS", "1")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    set_param(folder, "device.name", device)
    text = call(folder, "snakemake", "--cores", "4", TARGET, *options)
    assert re.search(rf'Provided resources: gpu=(Resource\("gpu", )?{provided}\b', text), text
