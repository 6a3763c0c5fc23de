"""What a search leaves: supernet.pt, from which networks are derived."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor

from tfnas.runtime.checkpoints import read_tensors, write_tensors
from tfnas.runtime.errors import UserError
from tfnas.search.derivation import Derived, derive, searchable_layers
from tfnas.search.history import EpochRecord
from tfnas.search.supernet import Supernet
from tfnas.space import Space
from tfnas.space.space import first_difference

KIND = "supernet"
FORMAT_VERSION = 3


@dataclass(frozen=True)
class SearchResult:
    """A searched supernet: L layers, K candidates."""

    space: Space
    num_classes: int
    target_ms: float
    alphas: Tensor  # (L, K); (L, K + 1) with skip among the candidates
    betas: tuple[Tensor, ...]  # of each searchable stage; (D,), the first for depth 1, with sink-connecting
    widths: list[list[int]]  # (L, K) active expansion channels; an operation's active channels are its first ones
    weights: dict[str, Tensor]  # full-width
    depth_space: str = "sink"
    history: list[EpochRecord] = field(default_factory=list)

    def derive(self, name: str) -> Derived:
        """The strongest network (Eq. 10, 11) at the searched widths."""
        return derive(self.space, self.alphas, self.betas, self.widths, name, self.depth_space)

    def save(self, path: str | Path) -> None:
        """Write supernet.pt (all but the history), atomically, tensors and plain values only."""
        payload = {
            "kind": KIND,
            "format_version": FORMAT_VERSION,
            **describe_space(self.space),
            "num_classes": self.num_classes,
            "target_ms": self.target_ms,
            "alphas": self.alphas,
            "betas": list(self.betas),
            "widths": self.widths,
            "weights": self.weights,
            "depth_space": self.depth_space,
        }
        write_tensors(payload, path)

    def build_supernet(self) -> Supernet:
        """The supernet with these weights, on the CPU."""
        supernet = Supernet(self.space, self.num_classes, self.depth_space)
        architecture = {"alphas": self.alphas, **{f"betas.{i}": beta for i, beta in enumerate(self.betas)}}
        supernet.load_state_dict({**self.weights, **architecture})
        supernet.restore_widths(self.widths)
        return supernet


def search_result(supernet: Supernet, target_ms: float, history: list[EpochRecord]) -> SearchResult:
    """A supernet's state at the end of a search, as copies on the CPU."""
    state = {name: tensor.detach().cpu().clone() for name, tensor in supernet.state_dict().items()}
    alphas = state.pop("alphas")
    betas = tuple(state.pop(f"betas.{i}") for i in range(len(supernet.betas)))
    return SearchResult(
        supernet.space,
        supernet.num_classes,
        target_ms,
        alphas,
        betas,
        supernet.widths(),
        state,
        supernet.depth_space,
        history,
    )


def load_search_result(path: str | Path, space: Space) -> SearchResult:
    """Read the supernet.pt that `SearchResult.save` wrote (without the history).

    Raises:
        UserError: missing, damaged, or searched in another space.
    """
    payload = read_tensors(path)
    if payload.get("kind") != KIND or payload.get("format_version") != FORMAT_VERSION:
        raise UserError(f"{path}: is no supernet.pt of this version of tfnas; run search again")
    check_space(payload, space, path)
    return SearchResult(
        space,
        payload["num_classes"],
        payload["target_ms"],
        payload["alphas"],
        tuple(payload["betas"]),
        payload["widths"],
        payload["weights"],
        payload["depth_space"],
    )


def describe_space(space: Space) -> dict[str, Any]:
    """What a supernet's file says of its space: names of the space, its searchable layers, its candidates, and all."""
    return {
        "space": space.name,
        "layers": [f"stage{layer.stage}_layer{layer.position}" for layer in searchable_layers(space)],
        "candidates": [candidate.name for candidate in space.candidates],
        "space_content": space.content(),
    }


def check_space(payload: dict[str, Any], space: Space, path: str | Path) -> None:
    """Refuse a file that was written in another space.

    Raises:
        UserError: its layers or candidates, or anything else that defines the space, are not the space's.
    """
    expected = describe_space(space)
    if any(payload[key] != expected[key] for key in ("space", "layers", "candidates")):
        raise UserError(
            f"{path}: was searched in space {payload['space']!r} with {len(payload['layers'])} layers and candidates"
            f" {', '.join(payload['candidates'])}; params.yaml has space: {space.name} with {len(expected['layers'])}"
            f" layers and candidates {', '.join(expected['candidates'])}; run search again"
        )
    difference = first_difference(payload["space_content"], expected["space_content"])
    if difference is not None:
        raise UserError(f"{path}: was searched before space {space.name} was edited: {difference}; run search again")
