"""Several processes over gloo train as one does with the same whole batch."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from tfnas.compute import distributed
from tfnas.train.step import synchronize_batchnorm

SCRIPT = Path(__file__).with_name("gloo_training.py")


@pytest.fixture
def start(architecture, make_recipe, tmp_path):
    architecture.save(tmp_path / "architecture.json")

    def run(
        name: str, processes: int, *, dies_at_save: int = 0, teacher: bool = False, **changes: Any
    ) -> subprocess.CompletedProcess[str]:
        """Without drop-connect and dropout, whose noise is each process's own."""
        values = {"epochs": 2, "batch_size": 24, "drop_connect": 0.0, **changes}
        recipe = make_recipe(**values).model_dump(mode="json")
        options = {"recipe": recipe, "architecture": str(tmp_path / "architecture.json"), "dies_at_save": dies_at_save}
        options["teacher"] = teacher
        (tmp_path / name).mkdir(exist_ok=True)
        launch = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes)]
        command = [sys.executable, *launch, str(SCRIPT), str(tmp_path / name), json.dumps(options)]
        return subprocess.run(command, capture_output=True, text=True, timeout=900)

    return run


def read(folder: Path) -> tuple[list[float], list[dict[str, float]], dict[str, torch.Tensor]]:
    result = json.loads((folder / "result.json").read_text())
    history = [*result["history"], {"kept_epoch": result["kept_epoch"]}]
    return result["losses"], history, torch.load(folder / "weights.pt", weights_only=True)


@pytest.mark.slow
@pytest.mark.parametrize("teacher", [False, True])
def test_two_processes_equal_one_with_the_same_whole_batch(start, tmp_path, teacher) -> None:
    """With BatchNorm synchronised; each batch in two parts with a BatchNorm of their own, as in one; clipped."""
    epochs = 1 if teacher else 2  # after two epochs with a teacher, rounding has grown to 1e-4
    for name, processes in (("one", 1), ("two", 2)):
        options = {"epochs": epochs, "sync_batchnorm": True, "accumulate": 2, "gradient_clip": 0.5}
        done = start(name, processes, teacher=teacher, **options)
        assert done.returncode == 0, done.stderr
    one, two = read(tmp_path / "one"), read(tmp_path / "two")
    assert len(one[0]) == 11 * epochs
    assert two[0][:20] == pytest.approx(one[0][:20], rel=1e-5)
    for ours, theirs in zip(two[1], one[1], strict=True):
        assert ours == pytest.approx(theirs, rel=1e-3)
    for key, value in one[2].items():
        torch.testing.assert_close(two[2][key], value, rtol=1e-3, atol=1e-4, msg=key)


@pytest.mark.slow
@pytest.mark.parametrize(("keep", "teacher"), [("last", False), ("best", True)])
def test_two_processes_killed_in_an_epoch_equal_undisturbed(start, tmp_path, keep, teacher) -> None:
    """BatchNorm not synchronised: the processes' running statistics differ when the first one's are saved."""
    options: dict[str, Any] = {"checkpoint_every_steps": 4, "drop_connect": 0.3, "extras": {"ema_decay": 0.5}}
    options |= {"keep": keep, "sampler": "balanced", "teacher": teacher}
    assert start("undisturbed", 2, **options).returncode == 0
    assert start("killed", 2, dies_at_save=4, **options).returncode != 0
    assert not (tmp_path / "killed" / "weights.pt").exists()
    assert start("killed", 2, **options).returncode == 0
    undisturbed, killed = read(tmp_path / "undisturbed"), read(tmp_path / "killed")
    assert killed[1] == undisturbed[1]
    for key, value in undisturbed[2].items():
        assert torch.equal(killed[2][key], value), key


def test_one_process_alone_is_left_as_it_is() -> None:
    norm = torch.nn.Sequential(torch.nn.BatchNorm2d(3))
    values = torch.randn(4, 3, 2, 2)
    before = norm(values)
    synchronize_batchnorm(norm, torch.device("cpu"))
    assert torch.equal(norm(values), before)
    assert distributed.gather(1) == [1] and torch.equal(distributed.mean(values), values)
