"""Transfer of a retrained network to another image set (Appendix F)."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from torch import nn

from tfnas.runtime.errors import UserError
from tfnas.space import Architecture, build_network
from tfnas.train.weights import load_weights, read_weights

CLASSIFIER = "classifier.linear.weight"  # (classes, features)


def transfer_network(
    architecture: Architecture,
    weights: str | Path,
    num_classes: int,
    *,
    dropout: float,
    drop_connect: float,
    layers: Literal["all", "head"] = "all",
) -> nn.Module:
    """The retrained network with a fresh classifier for `num_classes`; all other weights as in the file.

    Args:
        layers: that are trained afterwards: all, as the paper fine-tunes, or `head`, the classifier alone, on features
            that stay as they are.

    Raises:
        UserError: the file cannot be read or belongs to another architecture.
    """
    state = read_weights(weights)
    if CLASSIFIER not in state:
        raise UserError(f"{weights}: has no {CLASSIFIER}; pass the weights.pt that retrain writes")
    network = build_network(architecture, len(state[CLASSIFIER]), dropout, drop_connect)
    load_weights(network, weights)
    replace_classifier(network, num_classes)
    if layers == "head":
        network.requires_grad_(False)
        network.get_submodule("classifier").requires_grad_(True)
    return network


def replace_classifier(network: nn.Module, num_classes: int) -> None:
    """Put a new linear layer, initialised as in `build_network`, in the place of the classifier's."""
    old = network.get_submodule("classifier.linear")
    assert isinstance(old, nn.Linear)
    new = nn.Linear(old.in_features, num_classes)
    nn.init.zeros_(new.bias)
    network.set_submodule("classifier.linear", new)
