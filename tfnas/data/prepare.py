"""The prepare_data job: the manifest, the classes, and the images that are made here."""

from __future__ import annotations

import logging
from pathlib import Path

from tfnas.data.cifar import check_transfer_set
from tfnas.data.cifar_format import FORMATS
from tfnas.data.digits import write_digits
from tfnas.data.folders import atomic_folder, write_note
from tfnas.data.image_folder import check_image_folder, scan_image_folder
from tfnas.data.manifest import ManifestRecord, manifest_classes, write_classes, write_manifest
from tfnas.data.shifted_digits import DATASET, write_shifted_digits
from tfnas.runtime.errors import UserError
from tfnas.runtime.schema import Params
from tfnas.runtime.stage import Job

logger = logging.getLogger("tfnas.data")


def check_sources(params: Params) -> None:
    """Look for the data sets that the parameters name, without opening an image.

    Raises:
        UserError: a folder or a file is missing; says what belongs where.
    """
    if params.prepare_data.root is not None:
        check_image_folder(params.prepare_data.root)
    for dataset in params.transfer.datasets:
        if FORMATS[dataset].archive is None:
            continue
        if params.transfer.root is None:
            raise UserError(
                f"params.yaml: transfer.root is null, but transfer.datasets has {dataset}; write the folder that holds"
                f" {FORMATS[dataset].folder}"
            )
        check_transfer_set(dataset, params.transfer.root)


def run_prepare_data(job: Job) -> None:
    """Write manifest.csv, classes.csv, images/ and transfer/ into `job.out`."""
    records = _prepare_images(job.params, job.out / "images")
    _prepare_transfer(job.params, job.out / "transfer")
    classes = manifest_classes(records)
    write_manifest(records, job.out / "manifest.csv")
    write_classes(classes, job.out / "classes.csv")
    counts = {split: sum(record.split == split for record in records) for split in ("train", "val")}
    logger.info("%d training and %d validation images of %d classes", counts["train"], counts["val"], len(classes))
    job.run.log_metrics({f"{split}_images": count for split, count in counts.items()} | {"num_classes": len(classes)})


def _prepare_images(params: Params, folder: Path) -> list[ManifestRecord]:
    root = params.prepare_data.root
    if root is not None:
        records = scan_image_folder(root)
        write_note(folder, f"The images stay where they are: prepare_data.root is {root}.")
        return records
    with atomic_folder(folder) as made:
        return write_digits(made, params.resolution)


def _prepare_transfer(params: Params, folder: Path) -> None:
    if DATASET not in params.transfer.datasets:
        write_note(folder, f"No data set is made here: transfer.root is {params.transfer.root}.")
        return
    with atomic_folder(folder) as made:
        write_shifted_digits(made)
