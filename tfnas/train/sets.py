"""The image sets that networks are retrained on and transferred to."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch.utils.data import Dataset

from tfnas.data import (
    ImageDataset,
    eval_transform,
    image_root,
    load_transfer_set,
    manifest_samples,
    read_manifest,
    train_transform,
    transfer_root,
)
from tfnas.jobs.errors import UserError
from tfnas.space import Architecture
from tfnas.train.params import RecipeParams

if TYPE_CHECKING:
    from tfnas.stages.params import Params


@dataclass(frozen=True)
class ImageSets:
    """What a network is trained and validated on; items are ((3, H, W) image, label)."""

    train: Dataset[Any]
    val: Dataset[Any]
    num_classes: int
    resolution: int  # height and width of the images


def retrain_sets(params: Params, manifest: Path, images: Path) -> ImageSets:
    """All training and all validation images of the manifest.

    Raises:
        UserError: a split is empty, or the splits have different classes.
    """
    records = read_manifest(manifest)
    samples, classes = manifest_samples(records, "train")
    val_samples, val_classes = manifest_samples(records, "val")
    check_classes(classes, val_classes, source=str(manifest))
    root = image_root(params.prepare_data.root, images)
    return ImageSets(
        ImageDataset(root, samples, augmented(params.resolution, params.retrain), exif=params.prepare_data.exif),
        ImageDataset(root, val_samples, eval_transform(params.resolution), exif=params.prepare_data.exif),
        len(classes),
        params.resolution,
    )


def transfer_sets(params: Params, dataset: str, data: Path) -> ImageSets:
    """The two halves of a CIFAR-format set: CIFAR's from `transfer.root`, one made by prepare_data from `data`."""
    recipe = params.transfer
    root = transfer_root(recipe.root, dataset, data)
    train = load_transfer_set(dataset, root, True, augmented(recipe.resolution, recipe))
    val = load_transfer_set(dataset, root, False, eval_transform(recipe.resolution))
    check_classes(train.classes, val.classes, source=f"{root}: {dataset}")
    return ImageSets(train, val, len(train.classes), recipe.resolution)


def augmented(resolution: int, recipe: RecipeParams) -> Callable[[Any], Any]:
    """The recipe's augmentation, and before it, on the whole picture, two changes of RandAugment where asked for.

    Randomness comes from torch's global generator, which the loader sets for each image.
    """
    transform = train_transform(resolution, recipe.augmentation)
    if recipe.extras.rand_augment == 0:
        return transform
    from torchvision.transforms import v2

    return v2.Compose([v2.RandAugment(num_ops=2, magnitude=recipe.extras.rand_augment), transform])


def check_classes(train: list[str], val: list[str], *, source: str) -> None:
    """Raise UserError unless there are two classes or more, the same in both splits."""
    if len(train) < 2:
        raise UserError(f"{source}: has {len(train)} classes to train on; a classifier needs 2 or more")
    if train != val:
        odd = sorted(set(train) ^ set(val))
        raise UserError(f"{source}: class {odd[0]!r} is in one of train and val only; give both the same classes")


def load_architecture(path: Path) -> Architecture:
    """The network in a file.

    Raises:
        UserError: it holds no network of RGB images.
    """
    architecture = Architecture.load(path)
    channels = architecture.stem.in_channels
    if channels != 3:
        raise UserError(f"{path}: stem.in_channels is {channels}, images have 3; pass a network of RGB images")
    return architecture
