"""Stage prepare_data: the manifest, the classes, and the images that are made here (Appendices B, F)."""

from __future__ import annotations

import logging
from functools import partial
from pathlib import Path

from tfnas.data.images.stores import FOLDER, SKIP, describe, open_store, write_source
from tfnas.data.manifest import (
    FOLDERS,
    BrokenImage,
    Listing,
    ManifestRecord,
    atomic_folder,
    limit_training,
    manifest_classes,
    write_broken,
    write_classes,
    write_folders,
    write_manifest,
    write_note,
)
from tfnas.data.params import PrepareDataParams
from tfnas.data.sources.cifar_files import FORMATS, check_transfer_set
from tfnas.data.sources.digits import DATASET, write_digits, write_shifted_digits
from tfnas.data.sources.image_folder import announce_left_out
from tfnas.data.sources.registry import SOURCES, download_cifar, is_there
from tfnas.data.verify import announce_duplicates, announce_kinds, verify_images
from tfnas.jobs.artifacts import digest_file
from tfnas.jobs.errors import UserError
from tfnas.stages.job import Job
from tfnas.stages.params import Params

logger = logging.getLogger("tfnas.data")


def check(job: Job) -> None:
    """Look for the data sets that the parameters name, without opening an image.

    Raises:
        UserError: a folder or a file is missing, and may or can not be downloaded; says what belongs where.
    """
    params, settings = job.params, job.params.prepare_data
    if settings.folder is not None:
        source = SOURCES[settings.source]
        if not _may_download(settings):
            source.check(Path(settings.folder))
    for dataset in params.transfer.datasets:
        if FORMATS[dataset].archive is None:
            continue
        if params.transfer.root is None:
            raise UserError(
                f"params.yaml: transfer.root is null, but transfer.datasets has {dataset}; write the folder that holds"
                f" {FORMATS[dataset].folder}"
            )
        if not settings.download:
            check_transfer_set(dataset, params.transfer.root)


def run(job: Job, _: None) -> None:
    """Write manifest.csv, classes.csv, broken.csv, folders.csv, images/ and transfer/ into `job.out`.

    Raises:
        UserError: broken images where `on_bad_image` is error; names the first, and the log names all of them.
    """
    records, broken, left_out = _prepare_images(job.params, job.out / "images")
    folder = job.params.prepare_data.folder
    root = None if folder is None else Path(folder)
    write_folders(root, [*(record.path for record in records), *(image.path for image in broken)], job.out / FOLDERS)
    write_broken([*broken, *left_out], job.out / "broken.csv")
    _prepare_transfer(job.params, job.out / "transfer")
    classes = manifest_classes(records)
    write_manifest(records, job.out / "manifest.csv")
    write_classes(classes, job.out / "classes.csv")
    counts = {split: sum(record.split == split for record in records) for split in ("train", "val")}
    logger.info("%d training and %d validation images of %d classes", counts["train"], counts["val"], len(classes))
    logger.info("data set %s", digest_file(job.out / "manifest.csv"))
    metrics = {f"{split}_images": count for split, count in counts.items()}
    job.run.log_metrics(metrics | {"num_classes": len(classes), "broken_images": len(broken)})


def _prepare_images(params: Params, folder: Path) -> Listing:
    settings = params.prepare_data
    if settings.folder is None:
        with atomic_folder(folder) as made:
            return Listing(limit_training(write_digits(made, params.resolution), settings.images_per_class), [])
    root, source = Path(settings.folder), SOURCES[settings.source]
    if _may_download(settings) and source.download is not None and not is_there(source.check, root):
        source.download(root)
    listing = source.scan(root, settings)
    listing = listing._replace(records=limit_training(listing.records, settings.images_per_class))
    announce_left_out(root, listing.left_out, listed="; broken.csv lists them")
    write_source(folder, describe(source.store, settings.folder, settings.on_bad_image, settings.exif))
    if settings.verify:
        listing = verify_images(listing, open_store(folder)[0], threads=max(1, params.device.workers))
    _judge_broken(listing.broken, root, skip=settings.on_bad_image == SKIP)
    _check_both_splits(listing.records, root)
    if source.store == FOLDER:
        announce_duplicates(root, listing.records)
        announce_kinds(root, listing.records, settings.exif)
    return listing


def _may_download(settings: PrepareDataParams) -> bool:
    """Whether missing files are downloaded: into the user's own folder only, not into an installed package's."""
    return settings.download and settings.root is not None and SOURCES[settings.source].download is not None


def _judge_broken(broken: list[BrokenImage], root: Path, *, skip: bool) -> None:
    for image in broken:
        logger.warning("%s: is no image (%s)", root / image.path, image.reason)
    if not broken:
        return
    if not skip:
        others = f" (and {len(broken) - 1} more, named in the log)" if len(broken) > 1 else ""
        raise UserError(
            f"{root / broken[0].path}: is no image ({broken[0].reason}){others}; replace or remove, or write"
            f" prepare_data.on_bad_image: skip"
        )
    logger.warning("%d broken images are left out; broken.csv names them", len(broken))


def _check_both_splits(records: list[ManifestRecord], root: Path) -> None:
    """A class whose images of one split are all broken, or that has too few to be split."""
    classes = {split: {record.class_name for record in records if record.split == split} for split in ("train", "val")}
    for split, others in (("train", classes["val"]), ("val", classes["train"])):
        missing = sorted(others - classes[split])
        if missing:
            raise UserError(f"{root}: class {missing[0]!r} has no {split} image; add images or remove the class")


def _prepare_transfer(params: Params, folder: Path) -> None:
    if params.prepare_data.download and params.transfer.root is not None:
        for dataset in set(params.transfer.datasets) - {DATASET}:
            if not is_there(partial(check_transfer_set, dataset), Path(params.transfer.root)):
                download_cifar(dataset, Path(params.transfer.root))
    if DATASET not in params.transfer.datasets:
        write_note(folder, f"No data set is made here: transfer.root is {params.transfer.root}.")
        return
    with atomic_folder(folder) as made:
        write_shifted_digits(made)
