"""The sets of images that a job trains on; a whole job on tiny pictures: its files, its tracking, its checkpoint."""

from __future__ import annotations

import csv
import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.helpers.jobs import make_job, run_job
from tests.helpers.params import changed
from tfnas.jobs.artifacts import digest_file
from tfnas.jobs.checkpoints import write_tensors
from tfnas.jobs.errors import UserError
from tfnas.space import build_network, count_macs, count_params
from tfnas.train.loop import EpochLoop, TrainingEpoch
from tfnas.train.metrics import MetricSums
from tfnas.train.session import check_classes, check_shares, load_architecture, retrain_sets
from tfnas.train.weights import load_own_weights


def test_sets_follow_the_manifest(params, pictures) -> None:
    sets = retrain_sets(params, *pictures)
    assert (len(sets.train), len(sets.val), sets.num_classes) == (24, 9, 3)
    image, label = sets.val[len(sets.val) - 1]
    assert image.shape == (3, 16, 16) and label == 2  # white


def test_rand_augment_changes_training_images_only(params, pictures) -> None:
    extras = params.retrain.extras.model_copy(update={"rand_augment": 15})
    changed = params.model_copy(update={"retrain": params.retrain.model_copy(update={"extras": extras})})
    plain, other = (retrain_sets(some, *pictures) for some in (params, changed))

    def images(dataset, seed: int) -> torch.Tensor:
        torch.manual_seed(seed)
        return torch.stack([dataset[index][0] for index in range(8)])

    assert torch.equal(images(plain.val, 0), images(other.val, 0))
    assert not torch.equal(images(plain.train, 0), images(other.train, 0))
    assert torch.equal(images(other.train, 1), images(other.train, 1))
    assert images(other.train, 1).shape == images(plain.train, 1).shape


def test_classes_must_agree() -> None:
    check_classes(["a", "b"], ["a", "b"], source="m.csv")
    for train, val, words in [
        (["a"], ["a"], "has 1 classes"),
        (["a", "b"], ["a", "c"], "class 'b' is in one"),
        (["a", "b"], [], "class 'a' is in one"),
    ]:
        with pytest.raises(UserError, match=f"^m.csv: .*{words}"):
            check_classes(train, val, source="m.csv")


def test_a_network_of_other_images_is_one_line(architecture, tmp_path) -> None:
    grey = dataclasses.replace(architecture, stem=dataclasses.replace(architecture.stem, in_channels=1))
    grey.save(tmp_path / "grey.json")
    with pytest.raises(UserError, match=r"grey.json: stem.in_channels is 1"):
        load_architecture(tmp_path / "grey.json")


class FakeRun:
    """Notes what is logged; fails at an epoch, or at the model, when told to."""

    id = None

    def __init__(self, *, fails_at: int | str | None = None) -> None:
        self.fails_at = fails_at
        self.metrics: list[tuple[dict[str, float], int | None]] = []
        self.examples: list[np.ndarray] = []

    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        if step is not None and step == self.fails_at:
            raise ConnectionError
        self.metrics.append((dict(metrics), step))

    def log_model(self, network: torch.nn.Module, example: np.ndarray, *, alias: str) -> None:
        if self.fails_at == "model":
            raise ConnectionError
        network(torch.from_numpy(example))
        assert alias == "A"
        self.examples.append(example)


@pytest.fixture
def retrain(architecture, pictures, params, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    architecture.save("architecture.json")
    for name in ("initial.pt", "network.pt"):  # of what is off by default
        write_tensors({}, name)

    def run(out: str, tracking: FakeRun, *, drop: int = 0, **recipe: Any) -> Path:
        """Without the first `drop` pictures, those of the first class; with other values of the recipe."""
        lines = pictures[0].read_text().splitlines(keepends=True)
        Path("given.csv").write_text("".join([lines[0], *lines[1 + drop :]]))
        files = {"architecture": "architecture.json", "initial": "initial.pt", "ranking": "network.pt"}
        inputs = {name: Path(file) for name, file in files.items()}
        inputs |= {"manifest": Path("given.csv"), "images": pictures[1]}
        job = make_job("retrain", tmp_path / out, changed(params, retrain=recipe), inputs, target="A")
        job.run = tracking
        run_job(job)
        job.end()
        return job.out

    return run


def test_files_and_tracking(retrain, architecture) -> None:
    tracking = FakeRun()
    out = retrain("out", tracking)
    metrics = json.loads((out / "metrics.json").read_text())
    with (out / "history.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert metrics["top1_percent"] == float(rows[-1]["val_top1"])
    assert metrics["loss"] == float(rows[-1]["val_loss"])
    assert "top5_percent" not in metrics  # three classes
    assert (metrics["epochs"], metrics["kept_epoch"], metrics["params"], metrics["macs"]) == (
        3,
        3,
        count_params(architecture, 3),
        count_macs(architecture, 16, 3),
    )
    assert [step for _, step in tracking.metrics] == [1, 2, 3, None]
    assert {*tracking.metrics[0][0], "epoch"} == set(rows[0]) == set(TrainingEpoch.__dataclass_fields__)
    assert tracking.examples[0].shape == (1, 3, 16, 16) and tracking.examples[0].dtype == np.float32
    load_own_weights(build_network(architecture, 3), out / "weights.pt")


@pytest.fixture
def images_per_class(retrain, monkeypatch):
    """How many images of each class were trained on in three epochs; the first class has two of eight pictures left."""

    def count(sampler: str) -> list[int]:
        counts = [0, 0, 0]
        add = MetricSums.add

        def counting(self, logits, labels, loss) -> None:
            if torch.is_grad_enabled():  # a step, not validation
                for label in labels.tolist():
                    counts[label] += 1
            add(self, logits, labels, loss)

        monkeypatch.setattr(MetricSums, "add", counting)
        retrain(sampler, FakeRun(), drop=6, sampler=sampler)
        monkeypatch.setattr(MetricSums, "add", add)
        return counts

    return count


def test_a_balanced_sampler_trains_on_each_class_equally_often(images_per_class) -> None:
    """18 images, two batches of 8 an epoch; `as_is` trains on the two images of the first class once an epoch."""
    balanced, as_is = images_per_class("balanced"), images_per_class("as_is")
    assert sum(balanced) == sum(as_is) == 3 * 16
    assert max(balanced) - min(balanced) <= 3 and as_is[0] <= 6


def test_two_jobs_leave_the_same_weights_and_no_checkpoint(retrain, tmp_path) -> None:
    first, second = retrain("first", FakeRun()), retrain("second", FakeRun())
    for name in ("weights.pt", "metrics.json"):
        assert digest_file(first / name) == digest_file(second / name), name
    assert not list((tmp_path / "checkpoints").rglob("*.pt"))


def test_a_job_that_fails_after_training_does_not_train_again(retrain, monkeypatch) -> None:
    with pytest.raises(ConnectionError):
        retrain("first", FakeRun(fails_at="model"))
    monkeypatch.setattr(EpochLoop, "train_epoch", lambda *_: pytest.fail("trained again"))
    again = FakeRun()
    out = retrain("second", again)
    assert digest_file(out / "weights.pt") == digest_file(out.parent / "first" / "weights.pt")
    assert [step for _, step in again.metrics] == [1, 2, 3, None]


@pytest.mark.parametrize("epoch", [1, 2, 3])
def test_a_job_that_is_cut_off_goes_on_to_the_same_files(retrain, tmp_path, epoch) -> None:
    undisturbed = retrain("undisturbed", FakeRun())
    with pytest.raises(ConnectionError):
        retrain("cut", FakeRun(fails_at=epoch))
    assert list((tmp_path / "checkpoints" / "retrain" / "A").glob("*.pt"))
    resumed = retrain("resumed", FakeRun())
    for name in ("weights.pt", "metrics.json"):
        assert digest_file(resumed / name) == digest_file(undisturbed / name), name


def test_one_seed_leaves_one_row(retrain) -> None:
    out = retrain("out", FakeRun())
    metrics, (row,) = json.loads((out / "metrics.json").read_text()), seeds(out)
    assert (float(row["top1_percent"]), float(row["loss"])) == (metrics["top1_percent"], metrics["loss"])
    assert row["seed"] == "1" and row["top5_percent"] == "" and "seeds" not in metrics


def seeds(out: Path) -> list[dict[str, str]]:
    with (out / "seeds.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def test_more_seeds_change_nothing_of_the_first(retrain) -> None:
    one, three = retrain("one", FakeRun()), retrain("three", FakeRun(), seeds=3)
    assert digest_file(one / "weights.pt") == digest_file(three / "weights.pt")
    first, metrics = (json.loads((out / "metrics.json").read_text()) for out in (one, three))
    rows = seeds(three)
    assert metrics.items() >= first.items() and rows[0] == seeds(one)[0]
    assert len({row["loss"] for row in rows}) == 3  # trainings of their own
    top1 = np.array([float(row["top1_percent"]) for row in rows])
    assert metrics["seeds"] == 3
    assert metrics["top1_mean_percent"] == pytest.approx(top1.mean())
    assert metrics["top1_std_percent"] == pytest.approx(top1.std(ddof=1))


def test_a_kill_in_the_second_seed_resumes_there(retrain, tmp_path, monkeypatch) -> None:
    undisturbed = retrain("undisturbed", FakeRun(), seeds=2)
    train_epoch, trained = EpochLoop.train_epoch, []

    def note(loop: EpochLoop, ticks) -> None:
        if len(trained) == 4:  # three epochs of the first, one of the second
            raise ConnectionError
        trained.append(loop.name)
        train_epoch(loop, ticks)

    monkeypatch.setattr(EpochLoop, "train_epoch", note)
    with pytest.raises(ConnectionError):
        retrain("cut", FakeRun(), seeds=2)
    first, second = trained[:3], trained[3:]
    trained.clear()
    resumed = retrain("resumed", FakeRun(), seeds=2)
    assert first == 3 * ["retrain/A"] and second == ["retrain/A/seed_2"] and trained == 2 * second
    for name in ("weights.pt", "seeds.csv", "metrics.json"):
        assert digest_file(resumed / name) == digest_file(undisturbed / name), name
    assert not (tmp_path / "checkpoints" / "retrain" / "A").exists()


@pytest.mark.parametrize(("batch_size", "accumulate", "processes"), [(24, 2, 5), (8, 2, 4), (24, 1, 24)])
def test_a_batch_that_cannot_be_shared_is_one_line(make_recipe, monkeypatch, batch_size, accumulate, processes) -> None:
    recipe = make_recipe(batch_size=batch_size, accumulate=accumulate)
    check_shares(recipe, "retrain/A")
    monkeypatch.setenv("WORLD_SIZE", str(processes))
    with pytest.raises(
        UserError, match=rf"^retrain/A: batch_size {batch_size} .* {processes} processes in {accumulate}"
    ):
        check_shares(recipe, "retrain/A")
