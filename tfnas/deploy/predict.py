"""The classes of a picture."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from PIL import Image
from torch import nn

from tfnas.data import eval_transform
from tfnas.runtime.errors import UserError


def classify(
    network: nn.Module,
    picture: Image.Image | str | Path,
    classes: Sequence[str],
    *,
    resolution: int = 224,
    best: int = 5,
) -> list[tuple[str, float]]:
    """The most probable classes of a picture and their probabilities, best first.

    Args:
        picture: a picture or its file.
        classes: names in the order of the network's outputs.
        resolution: that the network was trained at.

    Raises:
        UserError: the file is missing or broken.
    """
    image = picture if isinstance(picture, Image.Image) else _open(Path(picture))
    with torch.inference_mode():
        logits = network.eval()(eval_transform(resolution)(image.convert("RGB"))[None])  # (1, K)
    assert logits.shape[1] == len(classes), f"{logits.shape[1]} outputs, {len(classes)} names"
    probabilities, indices = logits[0].softmax(0).topk(min(best, len(classes)))
    return [(classes[i], p) for i, p in zip(indices.tolist(), probabilities.tolist(), strict=True)]


def _open(path: Path) -> Image.Image:
    try:
        with Image.open(path) as image:
            return image.convert("RGB")
    except Exception as error:  # Pillow's decoders raise many kinds for a broken file
        raise UserError(f"{path}: cannot be read as an image ({' '.join(str(error).split())}); pass another") from None
