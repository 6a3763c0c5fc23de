"""The build_subset job: from the ranking and the manifest to the images of a search."""

from __future__ import annotations

import logging
from pathlib import Path

from tfnas.data.class_accuracy import ClassAccuracy, read_class_accuracy
from tfnas.data.manifest import ManifestRecord, read_manifest, write_samples
from tfnas.data.subset import build_subset, check_groups
from tfnas.data.tables import write_table
from tfnas.runtime.errors import UserError
from tfnas.runtime.schema import Params
from tfnas.runtime.stage import Job

CLASS_COLUMNS = ("label", "class", "group", "top1")  # top1 in percent

logger = logging.getLogger("tfnas.data")


def check_subset(params: Params, class_accuracy: Path) -> None:
    """Raise UserError for a ranking that cannot be read or has fewer classes than groups."""
    check_groups(params.build_subset.groups, len(read_class_accuracy(class_accuracy)))


def run_build_subset(job: Job, class_accuracy: Path, manifest: Path) -> None:
    """Write train.csv, val.csv and classes.csv into `job.out`.

    Raises:
        UserError: the ranking is not of the manifest's images; or what `build_subset` raises.
    """
    params = job.params.build_subset
    accuracies, records = read_class_accuracy(class_accuracy), read_manifest(manifest)
    _check_same_images(accuracies, records, class_accuracy, manifest)
    subset = build_subset(
        accuracies, records, groups=params.groups, train_fraction=params.train_fraction, seed=job.params.seed
    )
    write_samples(subset.train, job.out / "train.csv")
    write_samples(subset.val, job.out / "val.csv")
    write_table(job.out / "classes.csv", CLASS_COLUMNS, subset.classes)
    counts = {"num_classes": len(subset.classes), "train_images": len(subset.train), "val_images": len(subset.val)}
    job.run.log_metrics(counts)
    logger.info("%(num_classes)d classes, %(train_images)d + %(val_images)d images", counts)


def _check_same_images(
    accuracies: list[ClassAccuracy], records: list[ManifestRecord], class_accuracy: Path, manifest: Path
) -> None:
    counts: dict[str, int] = {}
    for record in records:
        if record.split == "train":
            counts[record.class_name] = counts.get(record.class_name, 0) + 1
    ranked = {row.class_name: row.images for row in accuracies}
    odd = sorted(set(counts.items()) ^ set(ranked.items()))
    if odd:
        name = odd[0][0]
        raise UserError(
            f"{class_accuracy}: has {ranked.get(name, 0)} training images of class {name!r}, {manifest} has"
            f" {counts.get(name, 0)}; run rank_classes again"
        )
