"""A trained network in 8 bits: calibrated on images of its training, judged by its accuracy before and after."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import nn
from torch.utils.data import Dataset

from tfnas.data import eval_transform, load_transfer_set, make_loader, transfer_root
from tfnas.deploy.evaluation import read_image_set
from tfnas.deploy.export import EXPORTS, Runner, files_of
from tfnas.deploy.load import Origin
from tfnas.jobs.artifacts import atomic_path
from tfnas.jobs.errors import UserError
from tfnas.latency.backends.openvino import OpenVino
from tfnas.latency.quantization import quantize_onnx

CALIBRATION_IMAGES = 256
MAX_DROP = 1.0  # points of top-1
SUFFIX = "_int8"  # of the file's name
BATCH_SIZE = 64  # images of the validation at a time


class ImageSets(NamedTuple):
    """What a network is calibrated and judged on; both as in validation, without augmentation."""

    train: Dataset[Any]
    val: Dataset[Any]


@dataclass(frozen=True)
class Quantized:
    """A checked file in 8 bits.

    Attributes:
        float_top1_percent: of the network in float32, by PyTorch eager.
        top1_percent: of the file.
        val_images: that both were measured on.
    """

    path: Path
    float_top1_percent: float
    top1_percent: float
    val_images: int
    calibration_images: int

    @property
    def drop(self) -> float:
        """Points of top-1 that 8 bits cost."""
        return self.float_top1_percent - self.top1_percent


def read_image_sets(origin: Origin, network: nn.Module, resolution: int, *, data: Path | None) -> ImageSets:
    """Training and validation images of a network.

    Args:
        data: a folder as for `tfnas evaluate`; None: the data set that the weights were trained on, by their
            provenance.

    Raises:
        UserError: the images are not there, or are of another number of classes.
    """
    (train, classes), (val, _) = (_read(origin, resolution, data, split) for split in ("train", "val"))
    outputs = network.get_submodule("classifier.linear").out_features
    if outputs != len(classes):
        raise UserError(
            f"export: --data {data}: has {len(classes)} classes, the network {outputs}; pass the images that it was"
            " trained for"
        )
    return ImageSets(train, val)


def _read(origin: Origin, resolution: int, data: Path | None, split: str) -> tuple[Dataset[Any], list[str]]:
    if data is not None:
        return read_image_set(data, resolution, exif=origin.exif, split=split)
    made, manifest = origin.input_named("transfer"), origin.input_named("manifest.csv")
    if origin.stage == "transfer" and origin.dataset is not None and made is not None:
        root = transfer_root(origin.recipe.get("root"), origin.dataset, made)
        found = load_transfer_set(origin.dataset, root, split == "train", eval_transform(resolution))
        return found, found.classes
    if manifest is None or not (manifest.parent / "images").is_dir():
        raise UserError(
            "export: --precision int8: calibrates on training images, and those of the weights are not here; pass"
            " --data DIR, results/prepare_data or a folder with train/<class>/* and val/<class>/*"
        )
    return read_image_set(manifest.parent, resolution, exif=origin.exif, split=split)


def calibration_inputs(images: Dataset[Any], count: int) -> list[np.ndarray]:
    """`count` images, (1, 3, R, R) each, spread evenly over the set, whose order is by class in a manifest."""
    total = len(images)  # type: ignore[arg-type]  # a map-style set
    chosen = np.unique(np.linspace(0, total - 1, min(count, total)).round().astype(int))
    return [images[int(index)][0][None].numpy() for index in chosen]


def top1_percent(run: Callable[[torch.Tensor], torch.Tensor], images: Dataset[Any]) -> float:
    """Top-1 accuracy of anything that gives logits, (N, 3, R, R) to (N, K)."""
    correct = total = 0
    with torch.inference_mode():
        for batch, labels in make_loader(images, BATCH_SIZE, shuffle=False, seed=0, drop_last=False, workers=0):
            correct += int((run(batch).argmax(1) == labels).sum())
            total += len(labels)
    return 100.0 * correct / total


def write_int8(network: nn.Module, exported: Path, inputs: list[np.ndarray]) -> Path:
    """The 8-bit form of an exported ONNX or OpenVINO file, next to it.

    Raises:
        UserError: a convolution or matrix product would stay in float32.
    """
    path = exported.with_stem(f"{exported.stem}{SUFFIX}")
    if path.suffix == ".onnx":
        model = quantize_onnx(exported.read_bytes(), inputs, what=str(exported))
        with atomic_path(path) as temporary:
            temporary.write_bytes(model)
    else:
        with torch.inference_mode():
            OpenVino.write_int8(network.eval(), inputs, path)
    return path


def quantize_checked(
    network: nn.Module, exported: Path, sets: ImageSets, *, images: int, max_drop: float, threads: int, before: float
) -> tuple[Quantized, Runner]:
    """Write an exported file's 8-bit form and compare its accuracy with the network's.

    Args:
        images: to calibrate on.
        max_drop: allowed points of top-1.
        before: top-1 of the network on `sets.val`, percent.

    Raises:
        UserError: top-1 falls by more than that; the file is removed.
    """
    inputs = calibration_inputs(sets.train, images)
    path = write_int8(network, exported, inputs)
    runner = EXPORTS[path.suffix.removeprefix(".")][1](path, threads=threads)
    total = len(sets.val)  # type: ignore[arg-type]
    made = Quantized(path, before, top1_percent(runner, sets.val), total, len(inputs))
    if made.drop > max_drop:
        for file in files_of(path):
            file.unlink()
        raise UserError(
            f"{path}: top-1 falls from {before:.2f} to {made.top1_percent:.2f} % on {total} validation images, more"
            f" than --max-drop {max_drop:g}; the file was removed; calibrate on more images (--calibration-images),"
            " search in a space without squeeze-and-excitation and Swish (preset imagenet-cpu-int8), or raise"
            " --max-drop"
        )
    return made, runner
