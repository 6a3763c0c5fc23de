"""The sections `prepare_data`, `rank_classes` and `build_subset` of params.yaml, and augmentation."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from tfnas.jobs.sections import AS_LIST, Count, Fraction, NonNegative, Positive, Rate, Section


class AugmentationParams(Section):
    """Training augmentation: RandomResizedCrop, horizontal flip, color jitter."""

    crop_scale: Annotated[tuple[Fraction, Fraction], AS_LIST]
    flip: bool
    color_jitter: Annotated[tuple[NonNegative, NonNegative, NonNegative, NonNegative], AS_LIST]
    # brightness, contrast, saturation, hue

    @model_validator(mode="after")
    def _ordered(self) -> AugmentationParams:
        if self.crop_scale[0] > self.crop_scale[1]:
            raise ValueError("crop_scale must be [smallest, largest]")
        return self


DEFAULT_ROOTS = {"fashion-mnist": "/usr/share/datasets/fashion-mnist"}  # of Debian's package dataset-fashion-mnist


class PrepareDataParams(Section):
    source: Literal["digits", "imagefolder", "imagenet", "cifar10", "cifar100", "fashion-mnist"]
    root: str | None  # `folder` says what null means
    images_per_class: Count | None  # training images, at most; None: all
    val_fraction: Rate  # of each class of an image folder without train/ and val/
    verify: bool  # decode every image
    on_bad_image: Literal["error", "skip"]
    exif: Literal["apply", "ignore"]  # orientation of image files
    download: bool  # CIFAR, also for transfer, and Fashion-MNIST

    @property
    def folder(self) -> str | None:
        """The folder that holds the data set: `root`, or where its package installs it; None: made here."""
        return self.root or DEFAULT_ROOTS.get(self.source)

    @model_validator(mode="after")
    def _root_given(self) -> PrepareDataParams:
        if self.source != "digits" and not self.folder:
            raise ValueError(f"root is missing: write the folder that holds {self.source}")
        if self.source == "digits" and self.root is not None:
            raise ValueError("digits are made here and have no root: write root: null, or source: imagefolder")
        return self


class FitParams(Section):
    epochs: Count
    batch_size: Count
    learning_rate: Positive


class RankClassesParams(Section):
    weights: str  # imagenet | fit | a file
    batch_size: Count
    fit: FitParams


class MaterializeParams(Section):
    """A copy of the subset's images in a few large files, smaller where they are larger."""

    format: Literal["none", "jpeg", "raw"]  # raw: RGB bytes, nothing to decode
    shorter_side: Annotated[int, Field(ge=8)]  # pixels, at most
    quality: Annotated[int, Field(ge=1, le=100)]  # of jpeg


class BuildSubsetParams(Section):
    strategy: Literal["ranked_groups", "random", "class_list"]
    groups: Count  # classes of ranked_groups and random
    class_list: str | None  # a file that names the classes
    images_per_class: Annotated[int, Field(ge=2)] | None  # at most; None: all
    train_fraction: Annotated[float, Field(gt=0, lt=1)]
    materialize: MaterializeParams

    @model_validator(mode="after")
    def _list_given(self) -> BuildSubsetParams:
        if (self.strategy == "class_list") != (self.class_list is not None):
            raise ValueError("write a file as class_list with strategy: class_list, and class_list: null without")
        return self
