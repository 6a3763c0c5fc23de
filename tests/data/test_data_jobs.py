"""The three jobs of the data room, from parameters to files; tracking is a stand-in."""

from __future__ import annotations

import csv
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tfnas.data import load_transfer_set, read_manifest, read_samples
from tfnas.jobs.artifacts import digest_file
from tfnas.jobs.errors import UserError
from tfnas.stages.build_subset import check_subset, run_build_subset
from tfnas.stages.job import Job
from tfnas.stages.params import Params, load_params
from tfnas.stages.prepare_data import check_sources, run_prepare_data
from tfnas.stages.rank_classes import check_ranking, run_rank_classes

PARAMS = Path(__file__).parents[2] / "params.yaml"


def changed(params: Params, **changes: Any) -> Params:
    """Other values, by section."""
    values = params.model_dump(by_alias=True, exclude_unset=True)
    for section, value in changes.items():
        values[section] = values[section] | value if isinstance(value, dict) else value
    return Params.model_validate(values)


@pytest.fixture
def digits() -> Params:
    return changed(load_params(PARAMS), resolution=16)


@pytest.fixture
def own_images(digits: Params, image_folder: Path) -> Params:
    """Three own classes instead of the digits, and no transfer."""
    return changed(
        digits,
        prepare_data={"source": "imagefolder", "root": str(image_folder), "verify": True},
        rank_classes={"fit": {"epochs": 1, "batch_size": 4, "learning_rate": 0.001}},
        build_subset={"groups": 2},
        transfer={"datasets": []},
    )


@pytest.fixture
def run(tmp_path: Path, monkeypatch) -> Callable[..., Path]:
    monkeypatch.chdir(tmp_path)  # checkpoints/ are there

    def run(stage: Callable[..., None], params: Params, out: str, *inputs: Path) -> Path:
        """Run a job; returns its folder."""
        folder = tmp_path / out
        folder.mkdir(exist_ok=True)
        tracked: list[dict[str, float]] = []
        job = Job(params, SimpleNamespace(log_metrics=tracked.append), folder)
        stage(job, *inputs)
        job.end()
        assert all(isinstance(value, (int, float)) for metrics in tracked for value in metrics.values()) and tracked
        return folder

    return run


def test_digits_are_made_with_the_same_bytes_each_time(digits: Params, run) -> None:
    first = run(run_prepare_data, digits, "first")
    second = run(run_prepare_data, changed(digits, seed=7), "second")
    assert sorted(path.name for path in first.iterdir()) == [
        "broken.csv",
        "classes.csv",
        "folders.csv",
        "images",
        "manifest.csv",
        "transfer",
    ]
    assert digest_file(first) == digest_file(second)
    records = read_manifest(first / "manifest.csv")
    files = {path.relative_to(first / "images").as_posix() for path in first.rglob("*.png")}
    assert {record.path for record in records} == files and len(records) == len(files) == 1797
    made = load_transfer_set("shifted-digits", first / "transfer", False, lambda image: image)
    assert len(made) == sum(record.split == "val" for record in records)


def test_from_own_images_to_the_subset(own_images: Params, image_folder: Path, run) -> None:
    before = digest_file(image_folder)
    prepared = run(run_prepare_data, own_images, "prepared")
    for name, only in (("images", "source.json"), ("transfer", "README.txt")):  # nothing is copied
        assert [path.name for path in (prepared / name).iterdir()] == [only]
    manifest = prepared / "manifest.csv"
    check_ranking(own_images, manifest)
    ranking = run(run_rank_classes, own_images, "ranked", manifest, prepared / "images")
    check_subset(own_images, ranking / "class_accuracy.csv")
    out = run(run_build_subset, own_images, "subset", ranking / "class_accuracy.csv", manifest, prepared / "images")
    assert digest_file(image_folder) == before

    ranked = read_rows(ranking / "class_accuracy.csv")
    metrics = json.loads((ranking / "metrics.json").read_text())
    assert [int(row["images"]) for row in ranked] == [4, 4, 4]
    assert metrics["top1_percent"] == 100 * sum(int(row["correct"]) for row in ranked) / 12
    assert (metrics["images"], metrics["num_classes"]) == (12, 3)

    classes = read_rows(out / "classes.csv")
    assert [list(row) for row in classes] == [["label", "class", "group", "top1"]] * 2
    assert sorted(row["group"] for row in classes) == ["1", "2"]
    assert {(row["class"], row["top1"]) for row in classes} <= {(row["class"], row["top1"]) for row in ranked}
    train, val = read_samples(out / "train.csv"), read_samples(out / "val.csv")
    assert (len(train), len(val)) == (6, 2)
    for path, label in train + val:
        assert (image_folder / path).is_file() and f"/{classes[label]['class']}/" in path


def test_classes_of_any_name_are_ranked_and_drawn(own_images: Params, image_folder: Path, run) -> None:
    names = ["$_$", "x\\alpha_{y", "<b>", "\"&'", "=cmd|' C calc'!A0", "%", "_", "W" * 200, "שלום"]
    pictures = [sorted((image_folder / split).rglob("*.JPEG"))[0] for split in ("train", "val")]
    for split, picture in zip(("train", "val"), pictures, strict=True):
        for name in names:
            (image_folder / split / name).mkdir()
            for number in range(2):
                shutil.copy(picture, image_folder / split / name / f"{number}.jpeg")
    prepared = run(run_prepare_data, own_images, "prepared")
    manifest = prepared / "manifest.csv"
    check_ranking(own_images, manifest)
    ranking = run(run_rank_classes, own_images, "ranked", manifest, prepared / "images")
    assert {row["class"] for row in read_rows(ranking / "class_accuracy.csv")} >= set(names)
    assert "$_$" in (ranking / "class_accuracy.svg").read_text(encoding="utf-8")
    out = run(run_build_subset, own_images, "subset", ranking / "class_accuracy.csv", manifest, prepared / "images")
    assert len(read_rows(out / "classes.csv")) == 2


def read_rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_ranking_is_repeatable_and_no_batch_size_changes_it(own_images: Params, run) -> None:
    prepared = run(run_prepare_data, own_images, "prepared")
    inputs = prepared / "manifest.csv", prepared / "images"
    other = changed(own_images, rank_classes={"batch_size": 5})
    digests = {
        digest_file(run(run_rank_classes, params, f"ranked{number}", *inputs))
        for number, params in enumerate((own_images, own_images, other))
    }
    assert len(digests) == 1


def test_data_sets_that_are_not_there(own_images: Params, image_folder: Path, cifar, tmp_path: Path) -> None:
    for changes, words in [
        ({"transfer": {"datasets": ["cifar100"]}}, r"params\.yaml: transfer\.root is null, .* cifar-100-python"),
        ({"transfer": {"datasets": ["cifar100"], "root": str(tmp_path)}}, r"cifar-100-python/train: is missing"),
        ({"prepare_data": {"root": "none"}}, r"none: there is no such folder; set prepare_data\.root"),
    ]:
        with pytest.raises(UserError, match=words):
            check_sources(changed(own_images, **changes))
    check_sources(
        changed(own_images, transfer={"datasets": ["cifar10", "shifted-digits"], "root": str(cifar("cifar10"))})
    )
    shutil.rmtree(image_folder / "val" / "n01443537")
    with pytest.raises(UserError, match="val: has no folder 'n01443537'"):
        check_sources(own_images)


def test_digits_have_no_root(digits: Params) -> None:
    with pytest.raises(ValueError, match="write root: null, or source: imagefolder"):
        changed(digits, prepare_data={"root": "data"})


def test_an_image_that_is_none_leaves_earlier_results(own_images: Params, image_folder: Path, run) -> None:
    before = digest_file(run(run_prepare_data, own_images, "prepared"))
    (image_folder / "train" / "n01440764" / "a.jpg").write_text("text")
    with pytest.raises(UserError, match=r"a\.jpg: is no image"):
        run(run_prepare_data, own_images, "prepared")
    assert digest_file(image_folder.parent / "prepared") == before


def test_rankings_that_cannot_be_made(own_images: Params, tmp_path: Path) -> None:
    manifest = tmp_path / "manifest.csv"
    manifest.write_text("split,class,path,bytes\ntrain,a,train/a/1.png,1\ntrain,b,train/b/1.png,1\n")
    check_ranking(own_images, manifest)
    for changes, words in [
        ({"weights": "imagenet"}, r"rank_classes\.weights: imagenet .* 2 classes; write `fit`"),
        ({"weights": "none.pth"}, r"none\.pth: is missing"),
        ({"fit": {"epochs": 1, "batch_size": 1, "learning_rate": 0.1}}, r"fit\.batch_size: 1 is too small"),
    ]:
        with pytest.raises(UserError, match=words):
            check_ranking(changed(own_images, rank_classes=changes), manifest)
    manifest.write_text("split,class,path,bytes\ntrain,a,train/a/1.png,1\nval,b,val/b/1.png,1\n")
    with pytest.raises(UserError, match=r"manifest\.csv: has 1 classes to train on; ranking needs 2"):
        check_ranking(own_images, manifest)


def test_a_ranking_of_other_images_or_too_few_classes(own_images: Params, run, tmp_path: Path) -> None:
    prepared = run(run_prepare_data, own_images, "prepared")
    manifest = prepared / "manifest.csv"
    ranking = tmp_path / "class_accuracy.csv"
    rows = ["class,images,correct,top1", "n01440764,4,1,25.0", "n01443537,4,2,50.0", ""]
    ranking.write_text("\n".join(rows))
    with pytest.raises(UserError, match=r"build_subset\.groups: 3 groups, but there are 2 classes"):
        check_subset(changed(own_images, build_subset={"groups": 3}), ranking)
    with pytest.raises(
        UserError, match=r"class_accuracy\.csv: has 0 training images of class 'n01484850'.* has 4; run"
    ):
        run(run_build_subset, own_images, "subset", ranking, manifest, prepared / "images")
