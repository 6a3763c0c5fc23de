"""weights.pt: the plain state of a network, and the way back.

Transfer of a retrained network to another image set (Appendix F).
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from torch import Tensor, nn

from tfnas.jobs.checkpoints import read_tensors, write_tensors
from tfnas.jobs.errors import UserError
from tfnas.space import Architecture, build_network


def save_weights(network: nn.Module, path: str | Path) -> None:
    """Write the state dict, on the CPU and in the usual memory order, atomically."""
    write_tensors({key: value.detach().cpu().contiguous() for key, value in network.state_dict().items()}, path)


def read_weights(path: str | Path) -> dict[str, Tensor]:
    """The state dict in a file; runs no code of the file's.

    Raises:
        UserError: missing, cut short, or no state dict.
    """
    state = read_tensors(path)
    if not all(isinstance(value, Tensor) for value in state.values()):
        raise UserError(f"{path}: holds something other than weights by name; pass a weights.pt of tfnas")
    return state


def load_weights(network: nn.Module, path: str | Path) -> None:
    """Put the weights of a file into a network.

    Raises:
        UserError: the file cannot be read, or belongs to another network; names the first difference.
    """
    state = read_weights(path)
    fault = find_mismatch(network, state)
    if fault is not None:
        raise UserError(f"{path}: {fault}; pass the weights and the architecture of one training")
    network.load_state_dict(state)


def find_mismatch(network: nn.Module, state: dict[str, Tensor]) -> str | None:
    """The first way in which the state is not one of the network; None when it is."""
    expected = network.state_dict()
    for key, value in expected.items():
        if key not in state:
            return f"has no {key}, which the network has"
        if state[key].shape != value.shape:
            return f"{key} has shape {list(state[key].shape)}, the network's has {list(value.shape)}"
    extra = next((key for key in state if key not in expected), None)
    return None if extra is None else f"has {extra}, which the network has not"


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
    """Put a new linear layer, initialized as in `build_network`, in the place of the classifier's."""
    old = network.get_submodule("classifier.linear")
    assert isinstance(old, nn.Linear)
    new = nn.Linear(old.in_features, num_classes)
    nn.init.zeros_(new.bias)
    network.set_submodule("classifier.linear", new)
