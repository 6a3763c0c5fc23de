"""A ranking that is killed and started again gives what an undisturbed one gives."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch

from tests.helpers.images import own_image_params, write_image_folder
from tests.helpers.jobs import make_job, run_job
from tests.helpers.params import changed
from tfnas.data.ranking import count_correct
from tfnas.jobs.artifacts import digest_file
from tfnas.jobs.checkpoints import CheckpointFolder
from tfnas.stages import rank_classes
from tfnas.stages.params import Params


class Killed(BaseException):
    """As a signal would come."""


class Undisturbed(NamedTuple):
    """A ranking that was never stopped."""

    params: Params
    inputs: dict[str, Path]
    network: dict[str, torch.Tensor]
    digest: str


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Undisturbed:
    """Three epochs of fitting and six shards of one batch."""
    folder = tmp_path_factory.mktemp("undisturbed")
    fit = {"epochs": 3, "batch_size": 4, "learning_rate": 0.01}
    params = changed(own_image_params(write_image_folder(folder / "own")), rank_classes={"batch_size": 2, "fit": fit})
    run_job(make_job("prepare_data", folder / "prepared", params, {}))
    inputs = {"manifest": folder / "prepared/manifest.csv", "images": folder / "prepared/images"}
    with pytest.MonkeyPatch.context() as patch, contextlib.chdir(folder):
        patch.setattr(rank_classes, "SHARD_BATCHES", 1)
        job = make_job("rank_classes", folder / "ranked", params, inputs)
        saves = note_saves(patch)
        run_job(job)
    return Undisturbed(params, inputs, saves[-1]["network"], digest_file(job.out))


def note_saves(monkeypatch: pytest.MonkeyPatch, *, kills_at: int = 0) -> list[dict[str, Any]]:
    """What is saved as checkpoints from now on; the job is killed after the `kills_at`-th."""
    original, saves = CheckpointFolder.save, []

    def save(self: CheckpointFolder, state: dict[str, Any]) -> None:
        original(self, state)
        saves.append(state)
        if len(saves) == kills_at:
            raise Killed

    monkeypatch.setattr(CheckpointFolder, "save", save)
    return saves


@pytest.mark.parametrize("saved", [1, 3, 4, 6])
def test_a_killed_ranking_goes_on_with_the_same_outcome(
    undisturbed: Undisturbed, run, monkeypatch: pytest.MonkeyPatch, saved: int
) -> None:
    monkeypatch.setattr(rank_classes, "SHARD_BATCHES", 1)
    with monkeypatch.context() as patch, pytest.raises(Killed):
        before = note_saves(patch, kills_at=saved)
        run("rank_classes", undisturbed.params, "killed", **undisturbed.inputs)
    shards: list[int] = []
    monkeypatch.setattr(
        rank_classes, "count_correct", lambda *args, **options: shards.append(1) or count_correct(*args, **options)
    )
    after = note_saves(monkeypatch)
    again = run("rank_classes", undisturbed.params, "again", **undisturbed.inputs)
    assert digest_file(again) == undisturbed.digest
    assert all(torch.equal(value, undisturbed.network[name]) for name, value in after[-1]["network"].items())
    assert len(before) == saved and len(before) + len(after) == 3 + 1 + 6  # nothing was done twice
    assert len(shards) == min(6, 10 - saved)
    assert not list(Path("checkpoints").rglob("*.pt"))
