"""Stage build_subset: from the ranking and the manifest to the images of a search (Appendix B)."""

from __future__ import annotations

import logging
from pathlib import Path

from tfnas.data.class_accuracy import ClassAccuracy, read_class_accuracy
from tfnas.data.images.stores import SKIP, materialize
from tfnas.data.manifest import ManifestRecord, read_manifest, warn_of_changed_images, write_samples, write_table
from tfnas.data.params import BuildSubsetParams
from tfnas.data.subset import build_subset, choose_classes, read_class_list, without
from tfnas.jobs.errors import UserError
from tfnas.stages.job import Job

SUBSET_CLASS_COLUMNS = ("label", "class", "group", "top1")  # top1 in percent

logger = logging.getLogger("tfnas.data")


def check(job: Job) -> None:
    """Raise UserError for a ranking that cannot be read, or classes that cannot be chosen from it."""
    params, settings = job.params, job.params.build_subset
    rows = read_class_accuracy(job.inputs["class_accuracy"])
    choose_classes(rows, settings.groups, strategy=settings.strategy, class_list=listed(settings), seed=params.seed)
    warn_of_changed_images(params, job.inputs["manifest"])


def listed(params: BuildSubsetParams) -> list[str]:
    """The classes of `class_list`; none where there is no list."""
    return [] if params.class_list is None else read_class_list(params.class_list)


def run(job: Job, _: None) -> None:
    """Write train.csv, val.csv, classes.csv and images/ into `job.out`.

    Raises:
        UserError: the ranking is not of the manifest's images; or what `build_subset` and `materialize` raise.
    """
    params, class_accuracy, manifest = job.params.build_subset, job.inputs["class_accuracy"], job.inputs["manifest"]
    accuracies, records = read_class_accuracy(class_accuracy), read_manifest(manifest)
    skips = job.params.prepare_data.on_bad_image == SKIP
    _check_same_images(accuracies, records, class_accuracy, manifest, skips=skips)
    subset = build_subset(
        accuracies,
        records,
        groups=params.groups,
        train_fraction=params.train_fraction,
        seed=job.params.seed,
        strategy=params.strategy,
        class_list=listed(params),
        images_per_class=params.images_per_class,
    )
    packed, broken = materialize(
        job.inputs["images"],
        [image.path for image in subset.train + subset.val],
        params.materialize,
        job.out / "images",
        threads=max(1, job.params.device.workers),
        exif=job.params.prepare_data.exif,
    )
    subset = without(subset, broken)
    write_samples(subset.train, job.out / "train.csv")
    write_samples(subset.val, job.out / "val.csv")
    write_table(job.out / "classes.csv", SUBSET_CLASS_COLUMNS, subset.classes)
    counts = {"num_classes": len(subset.classes), "train_images": len(subset.train), "val_images": len(subset.val)}
    job.run.log_metrics(counts | packed)
    logger.info("%(num_classes)d classes, %(train_images)d + %(val_images)d images", counts)


def _check_same_images(
    accuracies: list[ClassAccuracy],
    records: list[ManifestRecord],
    class_accuracy: Path,
    manifest: Path,
    *,
    skips: bool,
) -> None:
    """Where broken images are left out, the ranking may have met one and so counted fewer."""
    counts: dict[str, int] = {}
    for record in records:
        if record.split == "train":
            counts[record.class_name] = counts.get(record.class_name, 0) + 1
    ranked = {row.class_name: row.images for row in accuracies}
    odd = [
        name
        for name in sorted({*counts, *ranked})
        if counts.get(name) != ranked.get(name) and not (skips and 0 < ranked.get(name, 0) < counts.get(name, 0))
    ]
    if odd:
        name = odd[0]
        raise UserError(
            f"{class_accuracy}: has {ranked.get(name, 0)} training images of class {name!r}, {manifest} has"
            f" {counts.get(name, 0)}; run rank_classes again"
        )
