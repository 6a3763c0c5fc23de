"""The network that ranks classes: EfficientNet-B0 with ImageNet's weights, a file's, or fitted here (Appendix B)."""

from __future__ import annotations

import hashlib
import re
import socket
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from urllib.error import URLError

import torch
from torch import Tensor, nn

from tfnas.runtime.errors import UserError

FIT, IMAGENET = "fit", "imagenet"
CLASSIFIER = "classifier.1.weight"  # (K, 1280)
IMAGENET_CLASSES = 1000
IMAGENET_SHA256 = "385e0240499426c022b773be1ae4da780f057b89c9694c7f47199f62746b6edd"  # of its sorted WordNet ids
WNID = re.compile(r"n\d{8}")
DOWNLOAD_SECONDS = 30  # of silence from the server
ALTERNATIVES = "write `fit`, which trains it here, or a file of weights"


def build_ranking_network(num_classes: int) -> nn.Module:
    """torchvision's EfficientNet-B0 with random weights; without dropout and drop-connect, as it is trained briefly."""
    from torchvision.models import efficientnet_b0

    return efficientnet_b0(num_classes=num_classes, dropout=0.0, stochastic_depth_prob=0.0)


def load_ranking_network(weights: str, classes: Sequence[str]) -> nn.Module:
    """EfficientNet-B0 with ImageNet's weights, which torchvision downloads, or with those of a file.

    Args:
        weights: `imagenet` or a file that `torch.save` wrote of a state dict; runs no code of the file's.
        classes: of the data set, in the order of labels.

    Raises:
        UserError: no download, no such file, other weights, or a network of other classes.
    """
    check_ranking_weights(weights, classes)
    state = _download() if weights == IMAGENET else _read_state(Path(weights))
    network = build_ranking_network(len(classes))
    network.load_state_dict(state)
    return network


def check_ranking_weights(weights: str, classes: Sequence[str]) -> None:
    """Raise UserError when the weights cannot be those of these classes; downloads nothing."""
    if weights == FIT:
        return
    if weights == IMAGENET:
        fault = imagenet_fault(classes)
        if fault is not None:
            raise UserError(
                f"params.yaml: rank_classes.weights: imagenet knows the 1,000 classes of ImageNet by the order of"
                f" their WordNet ids, but {fault}; {ALTERNATIVES}"
            )
        return
    path = Path(weights)
    state = _read_state(path)
    known = len(state[CLASSIFIER])
    if known != len(classes):
        raise UserError(
            f"{path}: knows {known} classes, the data set has {len(classes)}; pass weights that were trained on its"
            f" classes in sorted order, or write rank_classes.weights: fit"
        )
    fault = imagenet_fault(classes) if _looks_like_imagenet(classes) else None
    if fault is not None:
        raise UserError(f"{path}: knows {known} classes by their order, but {fault}; write rank_classes.weights: fit")


def imagenet_fault(classes: Sequence[str]) -> str | None:
    """Why these are not ImageNet's classes in the order of its labels; None when they are."""
    if len(classes) != IMAGENET_CLASSES:
        return f"the data set has {len(classes)} classes"
    other = next((name for name in classes if not WNID.fullmatch(name)), None)
    if other is not None:
        return f"class {other!r} is no WordNet id"
    if list(classes) != sorted(classes):
        return "the classes are not in sorted order"
    digest = hashlib.sha256("\n".join(classes).encode()).hexdigest()
    return None if digest == IMAGENET_SHA256 else "some of the data set's WordNet ids are not among ImageNet's 1,000"


def _looks_like_imagenet(classes: Sequence[str]) -> bool:
    return len(classes) == IMAGENET_CLASSES and all(WNID.fullmatch(name) for name in classes)


def _download() -> dict[str, Tensor]:
    from torchvision.models import EfficientNet_B0_Weights

    weights = EfficientNet_B0_Weights.IMAGENET1K_V1
    try:
        with _impatient():
            return dict(weights.get_state_dict(progress=False, check_hash=True, weights_only=True, map_location="cpu"))
    except (URLError, OSError, RuntimeError) as error:  # RuntimeError: another hash
        reason = getattr(error, "reason", error)
        place = Path(torch.hub.get_dir()) / "checkpoints"
        raise UserError(
            f"params.yaml: rank_classes.weights: imagenet: {weights.url} cannot be downloaded ({reason}); put that"
            f" file into {place}, or {ALTERNATIVES}"
        ) from None


@contextmanager
def _impatient() -> Iterator[None]:
    """A server that does not answer is an error within half a minute; torch sets no limit."""
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(DOWNLOAD_SECONDS)
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)


def _read_state(path: Path) -> dict[str, Tensor]:
    fix = "pass a state dict of torchvision's EfficientNet-B0, or write rank_classes.weights: fit or imagenet"
    if not path.is_file():
        raise UserError(f"{path}: is missing (rank_classes.weights); {fix}")
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception:  # a damaged pickle can raise nearly anything
        raise UserError(f"{path}: is no file of weights; {fix}") from None
    if not (isinstance(state, dict) and isinstance(state.get(CLASSIFIER), Tensor) and state[CLASSIFIER].ndim == 2):
        raise UserError(f"{path}: has no {CLASSIFIER}; {fix}")
    with torch.device("meta"):
        expected = build_ranking_network(len(state[CLASSIFIER])).state_dict()
    odd = next((key for key in (*expected, *state) if _shape(expected, key) != _shape(state, key)), None)
    if odd is not None:
        raise UserError(f"{path}: {odd} is {_shape(state, odd)}, expected {_shape(expected, odd)}; {fix}")
    return state


def _shape(state: dict[str, Tensor], key: str) -> list[int] | None:
    value = state.get(key)
    return list(value.shape) if isinstance(value, Tensor) else None
