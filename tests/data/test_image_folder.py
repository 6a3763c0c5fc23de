"""A folder in ImageNet's layout: what is listed, and each mistake as one line."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest
from torchvision.datasets import ImageFolder

from tfnas.data import manifest_samples
from tfnas.data.image_folder import check_image_folder, scan_image_folder
from tfnas.runtime.errors import UserError

WNID = "n01440764"


@pytest.mark.parametrize("split", ["train", "val"])
def test_the_same_images_and_labels_as_torchvisions_image_folder(image_folder: Path, split: str) -> None:
    theirs = ImageFolder(str(image_folder / split))
    samples, classes = manifest_samples(scan_image_folder(image_folder).records, split)
    assert [(str(image_folder / path), label) for path, label in samples] == theirs.samples
    assert classes == theirs.classes


def test_records_give_size_and_place(image_folder: Path) -> None:
    records = scan_image_folder(image_folder).records
    assert records == sorted(records)
    for record in records:
        path = image_folder / record.path
        assert path.stat().st_size == record.bytes
        assert path.parts[-3:-1] == (record.split, record.class_name)


def test_other_files_are_no_images(image_folder: Path) -> None:
    before = scan_image_folder(image_folder)
    folder = image_folder / "train" / WNID
    for name in ("notes.txt", ".hidden.jpg", "Thumbs.db"):
        (folder / name).write_text("text")
    (image_folder / "train" / ".cache").mkdir()
    (image_folder / "train" / "README").write_text("text")
    (folder / ".thumbnails").mkdir()
    assert scan_image_folder(image_folder) == before


def refused(root: Path, words: str, *, scan: bool = False) -> None:
    with pytest.raises(UserError, match=words) as caught:
        (scan_image_folder if scan else check_image_folder)(root)
    assert "\n" not in str(caught.value)


def test_a_folder_that_may_not_be_entered(image_folder: Path, monkeypatch) -> None:
    """Permissions do not stop the root user, so the answer is made here."""
    allowed = os.access
    for closed in (image_folder, image_folder / "val", image_folder / "train" / WNID):
        monkeypatch.setattr(os, "access", lambda path, mode, closed=closed: path != closed and allowed(path, mode))
        refused(image_folder, rf"{closed.name}: cannot be opened \(Permission denied\); let this user", scan=True)


def test_missing_folders_and_classes(image_folder: Path, tmp_path: Path) -> None:
    refused(tmp_path / "none", r"none: there is no such folder; set prepare_data\.root")
    refused(image_folder / "train" / WNID / f"{WNID}_0.JPEG", r"is a file; prepare_data\.root must be the folder")
    (tmp_path / "no_class" / "train").mkdir(parents=True)
    refused(tmp_path / "no_class", r"no_class/train: holds no class")
    (image_folder / "train" / "extra").mkdir()
    refused(image_folder, r"val: has no folder 'extra', which train/ has; both need the same classes")
    (image_folder / "train" / "extra").rmdir()
    shutil.rmtree(image_folder / "train" / WNID)
    refused(image_folder, rf"train: has no folder '{WNID}', which val/ has")
    shutil.rmtree(image_folder / "val")
    refused(image_folder, r"val: there is no such folder")


def test_classes_without_images(image_folder: Path) -> None:
    for name in ("empty", "text_only"):
        for split in ("train", "val"):
            (image_folder / split / name).mkdir()
    (image_folder / "val" / "text_only" / "a.txt").write_text("x")
    refused(image_folder, r"train/empty: holds no image \(and 3 more\)", scan=True)


def test_what_a_folder_tells_to_be_no_image_is_listed(image_folder: Path) -> None:
    records, folder = scan_image_folder(image_folder).records, image_folder / "train" / WNID
    (folder / "a.jpg").write_bytes(b"")
    (folder / "d.jpg").mkdir()
    (folder / "e.jpg").symlink_to("nowhere")
    (folder / "whole.jpg").symlink_to(folder / f"{WNID}_0.JPEG")
    listing = scan_image_folder(image_folder)
    reasons = {"a.jpg": "is empty", "d.jpg": "is a folder", "e.jpg": "No such file or directory"}
    assert {broken.path: broken.reason for broken in listing.broken} == {
        f"train/{WNID}/{name}": reason for name, reason in reasons.items()
    }
    assert {record.path for record in listing.records} - {record.path for record in records} == {
        f"train/{WNID}/whole.jpg"
    }


def test_a_folder_that_is_not_split_is_split_by_class(tmp_path: Path) -> None:
    counts = {"a": 2, "b": 10, "c": 37}
    for name, count in counts.items():
        for number in range(count):
            path = tmp_path / "own" / name / f"{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(b"x")
    records = scan_image_folder(tmp_path / "own", val_fraction=0.2).records
    assert records == sorted(records)
    assert {(tmp_path / "own" / record.path).is_file() for record in records} == {True}
    val = [record for record in records if record.split == "val"]
    assert [sum(record.class_name == name for record in val) for name in counts] == [1, 2, 7]
    assert len({record.path for record in records}) == len(records) == sum(counts.values())
    (tmp_path / "own" / "b" / "new.png").write_bytes(b"x")
    again = scan_image_folder(tmp_path / "own", val_fraction=0.2).records
    assert len({record for record in again if record.split == "val"} - set(val)) <= 1  # an image moves no other


def test_names_and_folders_that_a_manifest_cannot_hold(image_folder: Path) -> None:
    folder = image_folder / "train" / WNID
    (folder / "sub").mkdir()
    refused(image_folder, r"sub: is a folder; the images of a class lie directly in", scan=True)
    (folder / "sub").rmdir()
    (folder / "two\nlines.jpg").write_bytes(b"")
    refused(image_folder, r"name 'two\\nlines\.jpg' cannot stand in the manifest", scan=True)
