"""The classes of a picture."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from PIL import Image
from torch import nn

from tfnas.data import eval_transform
from tfnas.data.decoding import APPLY, read_image, turned_tensor


def classify(
    network: nn.Module,
    picture: Image.Image | str | Path,
    classes: Sequence[str],
    *,
    resolution: int = 224,
    best: int = 5,
    exif: str = APPLY,
) -> list[tuple[str, float]]:
    """The most probable classes of a picture and their probabilities, best first.

    Args:
        picture: a picture or its file.
        classes: names in the order of the network's outputs.
        resolution: that the network was trained at.
        exif: apply or ignore the picture's EXIF turn, as `prepare_data.exif` said in the training.

    Raises:
        UserError: the file is missing or broken.
    """
    read = turned_tensor if isinstance(picture, Image.Image) else read_image
    pixels = read(picture, exif=exif)  # type: ignore[operator]
    with torch.inference_mode():
        logits = network.eval()(eval_transform(resolution)(pixels)[None])  # (1, K)
    assert logits.shape[1] == len(classes), f"{logits.shape[1]} outputs, {len(classes)} names"
    probabilities, indices = logits[0].softmax(0).topk(min(best, len(classes)))
    return [(classes[i], p) for i, p in zip(indices.tolist(), probabilities.tolist(), strict=True)]
