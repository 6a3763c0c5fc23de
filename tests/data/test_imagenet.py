"""ImageNet's flat val/ with the devkit's or Kaggle's labels."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from scipy.io import savemat

from tests.helpers.images import WNIDS
from tfnas.data.sources.image_folder import scan_image_folder
from tfnas.data.sources.imagenet import GROUND_TRUTH, KAGGLE, check_imagenet, scan_imagenet
from tfnas.jobs.errors import UserError

IDS = {3: WNIDS[0], 1: WNIDS[1], 2: WNIDS[2]}  # no sorted order
NUMBERS = (1, 3, 2, 2, 3, 1)


@pytest.fixture
def flat(image_folder: Path) -> Path:
    """val/ holds the six pictures without folders."""
    pictures = sorted((image_folder / "val").rglob("*.JPEG"))
    for number, path in enumerate(pictures, start=1):
        path.rename(image_folder / "val" / f"ILSVRC2012_val_{number:08d}.JPEG")
    for wnid in WNIDS:
        (image_folder / "val" / wnid).rmdir()
    return image_folder


def write_devkit(root: Path) -> None:
    data = root / "ILSVRC2012_devkit_t12" / "data"
    data.mkdir(parents=True)
    rows = [(number, wnid, 0) for number, wnid in IDS.items()] + [(4, "n00000004", 2)]  # the last one has children
    kinds = [("ILSVRC2012_ID", "O"), ("WNID", "O"), ("num_children", "O")]
    savemat(data / "meta.mat", {"synsets": np.array(rows, dtype=kinds).reshape(-1, 1)})
    (data / GROUND_TRUTH).write_text("".join(f"{number}\n" for number in NUMBERS))


def write_kaggle(root: Path) -> None:
    rows = [f"ILSVRC2012_val_{i:08d},{IDS[number]} 1 2 3 4 " for i, number in enumerate(NUMBERS, start=1)]
    (root / KAGGLE).write_text("\n".join(["ImageId,PredictionString", *rows, ""]))


@pytest.mark.parametrize("write", [write_devkit, write_kaggle])
def test_a_flat_val_has_the_labels_of_its_ground_truth(flat: Path, write) -> None:
    write(flat)
    check_imagenet(flat)
    records = scan_imagenet(flat).records
    val = {record.path: record.class_name for record in records if record.split == "val"}
    assert val == {f"val/ILSVRC2012_val_{i:08d}.JPEG": IDS[number] for i, number in enumerate(NUMBERS, start=1)}
    assert records == sorted(records) and len(records) == 18


def test_folders_of_classes_are_an_image_folder(image_folder: Path) -> None:
    assert scan_imagenet(image_folder) == scan_image_folder(image_folder)


def test_mistakes_are_one_line(flat: Path) -> None:
    with pytest.raises(UserError, match=r"val: holds images without folders of classes; put the devkit"):
        check_imagenet(flat)
    write_devkit(flat)
    truth = flat / "ILSVRC2012_devkit_t12" / "data" / GROUND_TRUTH
    truth.write_text("1\n4\n")
    with pytest.raises(UserError, match=r"ground_truth\.txt: '4' is no class of meta\.mat"):
        check_imagenet(flat)
    truth.write_text("1\n2\n")
    with pytest.raises(UserError, match=r"val_00000003\.JPEG: is not in the ground truth"):
        scan_imagenet(flat)
    truth.with_name("meta.mat").write_text("text")
    with pytest.raises(UserError, match=r"meta\.mat: is missing or damaged"):
        check_imagenet(flat)
    write_kaggle(flat)
    shutil.rmtree(flat / "train" / WNIDS[2])
    with pytest.raises(UserError, match=rf"train: has no folder '{WNIDS[2]}', of which val/ has images"):
        scan_imagenet(flat)
    (flat / "train" / "cats").mkdir()
    with pytest.raises(UserError, match=r"train/cats: is no WordNet id"):
        check_imagenet(flat)
