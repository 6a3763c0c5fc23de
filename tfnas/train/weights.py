"""weights.pt, the state of a network: writing it, reading it, and transfer to other classes (Appendix F)."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from torch import Tensor, nn

from tfnas.jobs.checkpoints import plain_state, read_tensors, write_tensors
from tfnas.jobs.errors import UserError
from tfnas.jobs.state_dicts import find_mismatch
from tfnas.space import Architecture, build_network


def save_weights(network: nn.Module, path: str | Path) -> None:
    """Write the state dict, on the CPU and in the usual memory order, atomically."""
    write_tensors(plain_state(network), path)


def read_own_weights(path: str | Path) -> dict[str, Tensor]:
    """The state dict in a weights.pt; runs no code from the file.

    Raises:
        UserError: missing, cut short, or no state dict.
    """
    state = read_tensors(path)
    if not all(isinstance(value, Tensor) for value in state.values()):
        raise UserError(f"{path}: holds something other than weights by name; pass a weights.pt of tfnas")
    return state


def load_own_weights(network: nn.Module, path: str | Path) -> None:
    """Put the weights of a weights.pt into a network.

    Raises:
        UserError: the file cannot be read, or belongs to another network; names the first difference.
    """
    fill_network(network, read_own_weights(path), source=path)


def fill_network(network: nn.Module, state: dict[str, Tensor], *, source: str | Path) -> None:
    """Put weights into a network.

    Raises:
        UserError: they belong to another network; names the first difference.
    """
    mismatch = find_mismatch(network.state_dict(), state)
    if mismatch is not None:
        raise UserError(f"{source}: {mismatch}; pass the weights and the architecture of one training")
    network.load_state_dict(state)


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
        layers: what is trained afterward: all, as in the paper, or `head`, the classifier alone, with the features
            frozen.

    Raises:
        UserError: the file cannot be read or belongs to another architecture.
    """
    network = filled_network(architecture, read_own_weights(weights), weights, dropout, drop_connect)
    replace_classifier(network, num_classes)
    if layers == "head":
        network.requires_grad_(False)
        network.get_submodule("classifier").requires_grad_(True)
    return network


def filled_network(
    architecture: Architecture, state: dict[str, Tensor], source: str | Path, dropout: float, drop_connect: float
) -> nn.Module:
    """The network with these weights, and so for as many classes as they know.

    Raises:
        UserError: they belong to another architecture.
    """
    if CLASSIFIER not in state:
        raise UserError(f"{source}: has no {CLASSIFIER}; pass the weights.pt that retrain writes")
    network = build_network(architecture, len(state[CLASSIFIER]), dropout, drop_connect)
    fill_network(network, state, source=source)
    return network


def replace_classifier(network: nn.Module, num_classes: int) -> None:
    """Replace the classifier's linear layer by a new one, initialized as in `build_network`."""
    old = network.get_submodule("classifier.linear")
    assert isinstance(old, nn.Linear)
    new = nn.Linear(old.in_features, num_classes)
    nn.init.zeros_(new.bias)
    network.set_submodule("classifier.linear", new)
