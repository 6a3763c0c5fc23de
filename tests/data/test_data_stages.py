"""Stages prepare_data, rank_classes and build_subset, from parameters to files."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path

import pytest

from tests.helpers.jobs import make_job
from tests.helpers.params import changed
from tfnas.data import load_transfer_set, read_manifest, read_samples
from tfnas.jobs.artifacts import digest_file
from tfnas.jobs.errors import UserError
from tfnas.stages import build_subset, prepare_data, rank_classes
from tfnas.stages.params import Params


def test_digits_are_made_with_the_same_bytes_each_time(digits: Params, run) -> None:
    first = run("prepare_data", digits, "first")
    second = run("prepare_data", changed(digits, seed=7), "second")
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
    prepared = run("prepare_data", own_images, "prepared")
    for name, only in (("images", "source.json"), ("transfer", "README.txt")):  # nothing is copied
        assert [path.name for path in (prepared / name).iterdir()] == [only]
    manifest = prepared / "manifest.csv"
    images = prepared / "images"
    ranking = run("rank_classes", own_images, "ranked", manifest=manifest, images=images)
    inputs = {"class_accuracy": ranking / "class_accuracy.csv", "manifest": manifest, "images": images}
    out = run("build_subset", own_images, "subset", **inputs)
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
    prepared = run("prepare_data", own_images, "prepared")
    manifest = prepared / "manifest.csv"
    images = prepared / "images"
    ranking = run("rank_classes", own_images, "ranked", manifest=manifest, images=images)
    assert {row["class"] for row in read_rows(ranking / "class_accuracy.csv")} >= set(names)
    assert "$_$" in (ranking / "class_accuracy.svg").read_text(encoding="utf-8")
    inputs = {"class_accuracy": ranking / "class_accuracy.csv", "manifest": manifest, "images": images}
    out = run("build_subset", own_images, "subset", **inputs)
    assert len(read_rows(out / "classes.csv")) == 2


def read_rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_ranking_is_repeatable_and_no_batch_size_changes_it(own_images: Params, run) -> None:
    prepared = run("prepare_data", own_images, "prepared")
    inputs = {"manifest": prepared / "manifest.csv", "images": prepared / "images"}
    other = changed(own_images, rank_classes={"batch_size": 5})
    digests = {
        digest_file(run("rank_classes", params, f"ranked{number}", **inputs))
        for number, params in enumerate((own_images, own_images, other))
    }
    assert len(digests) == 1


def test_data_sets_that_are_not_there(own_images: Params, image_folder: Path, cifar, tmp_path: Path) -> None:
    def check(params: Params) -> None:
        prepare_data.check(make_job("prepare_data", tmp_path / "out", params, {}))

    for changes, words in [
        ({"transfer": {"datasets": ["cifar100"]}}, r"params\.yaml: transfer\.root is null, .* cifar-100-python"),
        ({"transfer": {"datasets": ["cifar100"], "root": str(tmp_path)}}, r"cifar-100-python/train: is missing"),
        ({"prepare_data": {"root": "none"}}, r"none: there is no such folder; set prepare_data\.root"),
    ]:
        with pytest.raises(UserError, match=words):
            check(changed(own_images, **changes))
    check(changed(own_images, transfer={"datasets": ["cifar10", "shifted-digits"], "root": str(cifar("cifar10"))}))
    shutil.rmtree(image_folder / "val" / "n01443537")
    with pytest.raises(UserError, match="val: has no folder 'n01443537'"):
        check(own_images)


def test_digits_have_no_root(digits: Params) -> None:
    with pytest.raises(ValueError, match="write root: null, or source: imagefolder"):
        changed(digits, prepare_data={"root": "data"})


def test_an_image_that_is_none_leaves_earlier_results(own_images: Params, image_folder: Path, run) -> None:
    before = digest_file(run("prepare_data", own_images, "prepared"))
    (image_folder / "train" / "n01440764" / "a.jpg").write_text("text")
    with pytest.raises(UserError, match=r"a\.jpg: is no image"):
        run("prepare_data", own_images, "prepared")
    assert digest_file(image_folder.parent / "prepared") == before


def test_rankings_that_cannot_be_made(own_images: Params, tmp_path: Path) -> None:
    manifest = tmp_path / "manifest.csv"

    def check(params: Params) -> None:
        rank_classes.check(make_job("rank_classes", tmp_path / "out", params, {"manifest": manifest}))

    manifest.write_text("split,class,path,bytes\ntrain,a,train/a/1.png,1\ntrain,b,train/b/1.png,1\n")
    check(own_images)
    for changes, words in [
        ({"weights": "imagenet"}, r"rank_classes\.weights: imagenet .* 2 classes; write `fit`"),
        ({"weights": "none.pth"}, r"none\.pth: is missing"),
        ({"fit": {"epochs": 1, "batch_size": 1, "learning_rate": 0.1}}, r"fit\.batch_size: 1 is too small"),
    ]:
        with pytest.raises(UserError, match=words):
            check(changed(own_images, rank_classes=changes))
    manifest.write_text("split,class,path,bytes\ntrain,a,train/a/1.png,1\nval,b,val/b/1.png,1\n")
    with pytest.raises(UserError, match=r"manifest\.csv: has 1 classes to train on; ranking needs 2"):
        check(own_images)


def test_a_ranking_of_other_images_or_too_few_classes(own_images: Params, run, tmp_path: Path) -> None:
    prepared = run("prepare_data", own_images, "prepared")
    ranking = tmp_path / "class_accuracy.csv"
    inputs = {"class_accuracy": ranking, "manifest": prepared / "manifest.csv", "images": prepared / "images"}
    too_many = changed(own_images, build_subset={"groups": 3})
    rows = ["class,images,correct,top1", "n01440764,4,1,25.0", "n01443537,4,2,50.0", ""]
    ranking.write_text("\n".join(rows))
    with pytest.raises(UserError, match=r"build_subset\.groups: 3 groups, but there are 2 classes"):
        build_subset.check(make_job("build_subset", tmp_path / "out", too_many, inputs))
    with pytest.raises(
        UserError, match=r"class_accuracy\.csv: has 0 training images of class 'n01484850'.* has 4; run"
    ):
        run("build_subset", own_images, "subset", **inputs)
