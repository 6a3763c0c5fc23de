"""A ranking that is killed and started again gives what an undisturbed one gives."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from tests.helpers.params import changed
from tfnas.data.ranking import count_correct
from tfnas.jobs.artifacts import digest_file
from tfnas.jobs.checkpoints import CheckpointFolder
from tfnas.stages import rank_classes
from tfnas.stages.params import Params


class Killed(BaseException):
    """As a signal would come."""


@pytest.fixture
def slow(own_images: Params, monkeypatch) -> Params:
    """Three epochs of fitting and six shards of one batch."""
    monkeypatch.setattr(rank_classes, "SHARD_BATCHES", 1)
    return changed(
        own_images, rank_classes={"batch_size": 2, "fit": {"epochs": 3, "batch_size": 4, "learning_rate": 0.01}}
    )


@pytest.mark.parametrize("saved", [1, 3, 4, 6])
def test_a_killed_ranking_goes_on_with_the_same_outcome(slow: Params, run, monkeypatch, saved: int) -> None:
    prepared = run("prepare_data", slow, "prepared")
    inputs = {"manifest": prepared / "manifest.csv", "images": prepared / "images"}
    original, saves, kills_at = CheckpointFolder.save, [], 0

    def save(self: CheckpointFolder, state: dict) -> None:
        original(self, state)
        saves.append(state)
        if len(saves) == kills_at:
            raise Killed

    monkeypatch.setattr(CheckpointFolder, "save", save)
    expected = digest_file(run("rank_classes", slow, "undisturbed", **inputs))
    network = saves[-1]["network"]
    saves, kills_at = [], saved
    with pytest.raises(Killed):
        run("rank_classes", slow, "killed", **inputs)
    before, shards = len(saves), []
    monkeypatch.setattr(
        rank_classes, "count_correct", lambda *args, **options: shards.append(1) or count_correct(*args, **options)
    )
    again = run("rank_classes", slow, "again", **inputs)
    assert digest_file(again) == expected
    assert all(torch.equal(value, network[name]) for name, value in saves[-1]["network"].items())
    assert len(saves) == 3 + 1 + 6 and before == saved  # nothing was done twice
    assert len(shards) == min(6, 10 - saved)
    assert not list(Path("checkpoints").rglob("*.pt"))
