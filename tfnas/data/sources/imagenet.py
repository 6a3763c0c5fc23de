"""ImageNet-1k in its usual layouts: train/<wnid>/*, and val/ in folders of classes or flat with its ground truth.

The flat one is what the validation archive unpacks to. Its labels are in the devkit (a text of one number a line, and
`meta.mat`, which maps numbers to WordNet ids: not the index in sorted order, the classic trap), or in Kaggle's
LOC_val_solution.csv.
"""

from __future__ import annotations

import csv
import re
from pathlib import Path

from tfnas.data.manifest import Listing
from tfnas.data.sources.image_folder import (
    check_image_folder,
    check_root,
    folder_names,
    is_junk,
    list_folder,
    scan_class_folders,
    scan_image_folder,
)
from tfnas.jobs.errors import UserError

WNID = re.compile(r"n\d{8}")
GROUND_TRUTH = "ILSVRC2012_validation_ground_truth.txt"
DEVKIT = ("ILSVRC2012_devkit_t12/data", "data", ".")  # where the two files may be, below the root
KAGGLE = "LOC_val_solution.csv"
KAGGLE_PLACES = (".", "../../..")  # the root is ILSVRC/Data/CLS-LOC in Kaggle's layout


def check_imagenet(root: str | Path) -> None:
    """Look at the folders and at the ground truth, not at the images.

    Raises:
        UserError: what `check_image_folder` raises; a class that is no WordNet id; a flat val/ without its labels.
    """
    root = Path(root)
    check_root(root)
    wrong = [name for name in folder_names(root / "train", root) if not WNID.fullmatch(name)]
    if wrong:
        raise UserError(
            f"{root / 'train' / wrong[0]}: is no WordNet id like n01440764; write prepare_data.source: imagefolder"
        )
    if _is_flat(root / "val"):
        read_val_labels(root)
    else:
        check_image_folder(root)


def scan_imagenet(root: str | Path) -> Listing:
    """As `scan_image_folder`, also of a flat val/.

    Raises:
        UserError: what `check_imagenet` raises, or a validation image that the ground truth does not know.
    """
    root = Path(root)
    check_imagenet(root)
    if not _is_flat(root / "val"):
        return scan_image_folder(root)
    names = folder_names(root / "train", root)
    train = scan_class_folders(root, [("train", name, f"train/{name}") for name in names])
    labels = read_val_labels(root)

    def label(name: str) -> tuple[str, str]:
        key = Path(name).stem
        if key not in labels:
            raise UserError(f"{root / 'val' / name}: is not in the ground truth; remove it")
        return "val", labels[key]

    val = list_folder(root, "val", label)
    unknown = sorted({record.class_name for record in val.records} - set(names))
    if unknown:
        raise UserError(f"{root / 'train'}: has no folder {unknown[0]!r}, of which val/ has images")
    left_out = [*train.left_out, *val.left_out]
    return Listing(train.records + sorted(val.records), train.broken + val.broken, left_out)


def read_val_labels(root: Path) -> dict[str, str]:
    """The WordNet id of each validation image, by its name without suffix.

    Raises:
        UserError: no ground truth, or a damaged one.
    """
    for place in KAGGLE_PLACES:
        if (root / place / KAGGLE).is_file():
            return _read_kaggle(root / place / KAGGLE)
    for place in DEVKIT:
        if (root / place / GROUND_TRUTH).is_file():
            return _read_devkit(root / place)
    raise UserError(
        f"{root / 'val'}: holds images without folders of classes; put the devkit ({DEVKIT[0]}) or Kaggle's {KAGGLE}"
        f" into {root}"
    )


def _is_flat(val: Path) -> bool:
    if not val.is_dir():
        raise UserError(f"{val}: there is no such folder; put ImageNet's validation images there")
    return not any(path.is_dir() for path in val.iterdir() if not is_junk(path.name))


def _read_kaggle(path: Path) -> dict[str, str]:
    with path.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    try:
        return {row["ImageId"]: row["PredictionString"].split()[0] for row in rows}
    except (KeyError, IndexError, AttributeError):
        raise UserError(f"{path}: has no columns ImageId and PredictionString; put Kaggle's file there") from None


def _read_devkit(folder: Path) -> dict[str, str]:
    wnids = _read_synsets(folder / "meta.mat")
    lines = (folder / GROUND_TRUTH).read_text(encoding="ascii").split()
    odd = next((line for line in lines if not line.isdigit() or int(line) not in wnids), None)
    if odd is not None:
        raise UserError(f"{folder / GROUND_TRUTH}: {odd!r} is no class of meta.mat; unpack the devkit anew")
    return {f"ILSVRC2012_val_{number:08d}": wnids[int(line)] for number, line in enumerate(lines, start=1)}


def _read_synsets(path: Path) -> dict[int, str]:
    """WordNet ids of the classes by ILSVRC2012_ID; synsets with children are no classes."""
    from scipy.io import loadmat
    from scipy.io.matlab import MatReadError

    try:
        synsets = loadmat(str(path), squeeze_me=True, struct_as_record=False)["synsets"]
        return {int(row.ILSVRC2012_ID): str(row.WNID) for row in synsets if int(row.num_children) == 0}
    except (MatReadError, OSError, ValueError, KeyError, TypeError, AttributeError, NotImplementedError):
        raise UserError(f"{path}: is missing or damaged; unpack the devkit anew") from None
