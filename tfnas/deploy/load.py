"""A trained network, loaded from its two files, and the classes that it sees in a picture."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor, nn

from tfnas.data import eval_transform
from tfnas.data.images.decoding import APPLY, read_image, turned_tensor
from tfnas.jobs.errors import UserError
from tfnas.space import Architecture, build_network, zoo
from tfnas.train.weights import CLASSIFIER, fill_network, read_own_weights


def load_network(architecture: Architecture | str | Path, weights: str | Path) -> nn.Module:
    """The network in evaluation mode, on the CPU, with as many classes as its weights have.

    Args:
        architecture: an architecture.json, or the name of a published network (`TF-NAS-A`).
        weights: a weights.pt of ours, or a .pth.tar of the authors.

    Raises:
        UserError: a file cannot be read, or the two do not belong together.
    """
    if not isinstance(architecture, Architecture):
        known = str(architecture) in zoo.names()
        architecture = zoo.load(str(architecture)) if known else Architecture.load(architecture)
    state = read_state(weights)
    if CLASSIFIER not in state:
        raise UserError(f"{weights}: has no {CLASSIFIER}; pass the weights of a trained network")
    network = build_network(architecture, len(state[CLASSIFIER]))
    fill_network(network, state, source=str(weights))
    return network.eval()


def read_state(path: str | Path) -> dict[str, Tensor]:
    """The weights in a file of ours or (.tar) of the authors, under our names.

    Raises:
        UserError: missing or damaged.
    """
    if str(path).endswith(".tar"):
        from tfnas.authors import read_authors_weights

        return read_authors_weights(path)
    return read_own_weights(path)


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
