"""What a training starts from, where that is not a fresh network: `retrain.initial`.

N batch, H W size, K classes.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import torch
from torch import Tensor, nn

from tfnas.data.images.loader import Batch
from tfnas.data.ranking import estimate_statistics
from tfnas.jobs.errors import UserError
from tfnas.jobs.state_dicts import find_mismatch
from tfnas.space import Architecture, build_network
from tfnas.train.weights import CLASSIFIER, filled_network, read_own_weights, replace_classifier

CALIBRATION_BATCHES = 50  # that BatchNorm's statistics are the mean of, at most


@dataclass(frozen=True)
class Start:
    """Weights to start from.

    Attributes:
        state: of `build_network`, for any number of classes.
        source: the file that they are from, for messages.
        has_statistics: whether BatchNorm's running statistics are known; a supernet has none.
    """

    state: dict[str, Tensor]
    source: str | Path
    has_statistics: bool

    @property
    def num_classes(self) -> int:
        return len(self.state[CLASSIFIER])

    def build(self, architecture: Architecture, num_classes: int, dropout: float, drop_connect: float) -> nn.Module:
        """The network with these weights; with a fresh classifier where they know another number of classes.

        Raises:
            UserError: the weights belong to another architecture; names the first difference.
        """
        network = filled_network(architecture, self.state, self.source, dropout, drop_connect)
        if self.num_classes != num_classes:
            replace_classifier(network, num_classes)
        return network


def read_start(path: Path, architecture: Architecture, *, inherited: bool) -> Start | None:
    """The weights in a file; None where the file is empty, as derive writes it without a supernet.

    Args:
        inherited: from the supernet, so without statistics.

    Raises:
        UserError: missing or damaged, or of another architecture; names the first difference.
    """
    if not path.is_file():
        raise UserError(f"{path}: is missing (retrain.initial); put the weights.pt there, or write scratch")
    state = read_own_weights(path)
    if inherited and not state:
        return None
    if CLASSIFIER not in state:
        raise UserError(f"{path} (retrain.initial): has no {CLASSIFIER}; pass the weights.pt of a training")
    with torch.device("meta"):
        expected = build_network(architecture, len(state[CLASSIFIER]))
    mismatch = find_mismatch(expected.state_dict(), state)
    if mismatch is not None:
        raise UserError(
            f"{path} (retrain.initial): {mismatch}; pass weights of the target's architecture ({architecture.name})"
        )
    return Start(state, path, has_statistics=not inherited)


def calibrate(network: nn.Module, batches: Iterable[Batch], *, device: torch.device, precision: str) -> None:
    """Estimate BatchNorm's statistics, in place: their mean over the first `CALIBRATION_BATCHES` batches.

    Args:
        batches: of training images, (N, 3, H, W) and (N,); the same in all processes.
    """
    estimate_statistics(network.to(device), islice(batches, CALIBRATION_BATCHES), device=device, precision=precision)
