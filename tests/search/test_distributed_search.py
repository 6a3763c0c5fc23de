"""Two processes against one with the same batches, and a process that goes astray."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from tests.helpers.searching_process import main
from tfnas.jobs.checkpoints import read_tensors

PROCESS = Path(__file__).parents[1] / "helpers" / "searching_process.py"
TORCHRUN = (sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2")


@pytest.fixture
def folder(tmp_path, tiny_space_file, tiny_table, make_params, request):
    """What both sides search with; parametrized indirectly by changes of the parameters."""
    shutil.copy(tiny_space_file, tmp_path / "space.yaml")
    tiny_table.save(tmp_path / "table.json")
    params = make_params(epochs=3, warmup_epochs=1, batch_size=8, **getattr(request, "param", {}))
    (tmp_path / "params.json").write_text(params.model_dump_json(by_alias=True, exclude_unset=True))
    return tmp_path


def run_two(folder, *options):
    command = [*TORCHRUN, str(PROCESS), str(folder), *options]
    return subprocess.run(command, capture_output=True, text=True, timeout=900)


ONE = {"weight_sharing": "entangled", "depth_space": "skip_in", "architecture": {"paths": "one"}}


@pytest.mark.parametrize(
    "folder", [{}, {"weight_sharing": "entangled"}, ONE], ids=["none", "entangled", "one"], indirect=True
)
def test_two_processes_end_as_one_with_the_same_batches(folder) -> None:
    threads = torch.get_num_threads()
    main(folder, spoiled=-1)  # alone, in this process
    torch.set_num_threads(threads)
    one = read_tensors(folder / "found.pt")
    (folder / "found.pt").unlink()
    both = run_two(folder)
    assert both.returncode == 0, both.stderr
    two = read_tensors(folder / "found.pt")
    assert float((one["alphas"][0] + torch.tensor(4.0).log()).abs().max()) > 0.05  # it has searched
    torch.testing.assert_close(two["alphas"], one["alphas"], rtol=0, atol=1e-5)
    torch.testing.assert_close(two["betas"], one["betas"], rtol=0, atol=1e-5)
    assert two["widths"] == one["widths"]
    for name, weight in one["weights"].items():
        torch.testing.assert_close(two["weights"][name], weight, rtol=0, atol=1e-4)
    for row_of_two, row_of_one in zip(two["rows"], one["rows"], strict=True):
        for name in ("train_top1", "train_top5", "val_top1", "val_top5", "derived_latency_after_ms", "stage4_depth"):
            assert row_of_two[name] == row_of_one[name], name
        assert row_of_two["train_loss"] == pytest.approx(row_of_one["train_loss"], abs=1e-5)


def test_processes_that_differ_stop(folder) -> None:
    both = run_two(folder, "1")
    assert both.returncode != 0
    assert "alpha, beta or widths differ between the 2 processes" in both.stderr
    assert not (folder / "found.pt").exists()
