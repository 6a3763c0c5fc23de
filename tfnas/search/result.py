"""What a search and a warm-up leave: supernet.pt, from which networks are derived, and history.csv.

A warm-up leaves a supernet with alpha and beta as they began, from which every target's search starts.
"""

from __future__ import annotations

import csv
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from torch import Tensor

from tfnas.jobs.artifacts import atomic_path
from tfnas.jobs.checkpoints import read_tensors, write_tensors
from tfnas.jobs.errors import UserError
from tfnas.search.constraint import Constraint
from tfnas.search.derivation.strongest import Derived, searchable_layers
from tfnas.search.derivation.within_budget import derive_by
from tfnas.search.supernet.depth_spaces import SKIP
from tfnas.search.supernet.supernet import Supernet
from tfnas.space import Space
from tfnas.space.space import first_difference


@dataclass(frozen=True)
class EpochRecord:
    """One row of `history.csv`; None where an epoch of warm-up has no such value.

    The `val_`, `derived_` and `random_` accuracies use batch statistics in BatchNorm, since the supernet has no others.
    """

    epoch: int  # counted from 1
    seconds: float | None  # None for epochs of a warm-up that was run once for all targets
    seconds_per_weight_step: float | None  # mean
    seconds_per_architecture_step: float | None  # mean
    learning_rate: float  # of weight steps
    temperature: float
    train_loss: float  # mean cross-entropy of the Gumbel path
    train_top1: float  # percent, of the Gumbel path
    train_top5: float
    architecture_loss: float | None  # mean cross-entropy of architecture steps
    latency_loss: float | None  # mean of C(LAT) in architecture steps, without lambda
    expected_latency_ms: float | None  # LAT(alpha, beta), Eq. 6 with u = softmax(alpha), before scaling
    derived_latency_before_ms: float | None  # of the derived network, before elasticity-scaling
    derived_latency_after_ms: float | None
    target_ms: float | None
    alpha_entropy: float  # mean over layers, in nats
    val_top1: float  # percent, of the Gumbel path on the 20 %, before scaling; one path per batch
    val_top5: float
    derived_top1: float  # percent, of the derived network on the 20 %, after scaling, with the supernet's weights
    random_top1_mean: float | None  # of uniformly random networks on the same images; None where none are drawn
    random_top1_std: float | None
    derived: dict[str, int | float | str]  # see `derived_columns`

    def accuracies(self) -> dict[str, float]:
        """The accuracies of paths and networks on the 20 %, as metrics: `val_top1_percent` and so on."""
        names = ("val_top1", "derived_top1", "random_top1_mean", "random_top1_std")
        values = {name: getattr(self, name) for name in names}
        return {f"{name}_percent": value for name, value in values.items() if value is not None}

    def row(self) -> dict[str, int | float | str | None]:
        """One cell per column."""
        values = dict(vars(self))
        return {**{name: value for name, value in values.items() if name != "derived"}, **self.derived}

    def metrics(self, operations: Sequence[str] = ()) -> dict[str, float]:
        """The numbers without the epoch they belong to; a layer's operation by its place in `operations`."""
        numbers = {name: self._number(value, operations) for name, value in self.row().items() if name != "epoch"}
        return {name: value for name, value in numbers.items() if value is not None}

    @staticmethod
    def _number(value: int | float | str | None, operations: Sequence[str]) -> int | float | None:
        if isinstance(value, str):
            return operations.index(value) if value in operations else None
        return value


def operation_names(space: Space) -> list[str]:
    """The names in the history's operation columns: the candidates, and skip."""
    return [*(candidate.name for candidate in space.candidates), SKIP]


def derived_columns(
    space: Space, derived: Derived, widths: Sequence[Sequence[int]], entropies: Sequence[float]
) -> dict[str, int | float | str]:
    """What is derived after an epoch, and how sure alpha is.

    Columns: `stage3_depth` (layers kept) of each stage; of each layer `stage3_layer1_op`, `stage3_layer1_width` and
    `stage3_layer1_entropy` (of alpha, nats), with sink-connecting also of the layers beyond the depth; in its
    alternatives the operation of a layer that is not kept is `skip`, its width 0.
    """
    columns: dict[str, int | float | str] = {f"stage{stage}_depth": depth for stage, depth in derived.depths.items()}
    for i, layer in enumerate(searchable_layers(space)):
        name, operation = f"stage{layer.stage}_layer{layer.position}", derived.operations[i]
        columns[f"{name}_op"] = operation_names(space)[operation]
        columns[f"{name}_width"] = widths[i][operation] if operation < len(space.candidates) else 0
        columns[f"{name}_entropy"] = entropies[i]
    return columns


def write_history(history: Iterable[EpochRecord], path: str | Path) -> None:
    """One row per epoch, as CSV; without epochs the names of the columns that every search has."""
    rows = [record.row() for record in history]
    columns = list(rows[0]) if rows else [field.name for field in fields(EpochRecord) if field.name != "derived"]
    with atomic_path(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, columns, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


NO_SUPERNET_KIND = "no supernet"


def write_no_supernet(out: Path, reason: str) -> dict[str, float]:
    """What a job leaves that has no supernet to train: a supernet.pt that says so, and a history.csv without epochs.

    Args:
        out: the job's folder.
        reason: why there is none, for those who try to read it.

    Returns:
        The job's metrics.
    """
    write_tensors({"kind": NO_SUPERNET_KIND, "reason": reason}, out / "supernet.pt")
    write_history([], out / "history.csv")
    return {"epochs": 0}


def _read_supernet(path: str | Path) -> dict[str, Any]:
    """The content of a supernet.pt.

    Raises:
        UserError: missing, damaged, or left by a job that had none to train.
    """
    payload = read_tensors(path)
    if payload.get("kind") == NO_SUPERNET_KIND:
        raise UserError(f"{path}: holds no supernet, since {payload['reason']}; run the stage that writes it again")
    return payload


SUPERNET_KIND = "supernet"
SUPERNET_VERSION = 4


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
    weight_sharing: str = "none"
    history: list[EpochRecord] = field(default_factory=list)

    def derive(self, name: str, constraint: Constraint | None = None, within: str = "strongest") -> Derived:
        """The network at the searched widths (Eq. 10, 11), as `derive_by` derives it."""
        found = self.alphas, self.betas, self.widths, name, self.depth_space
        return derive_by(within, constraint, self.space, *found)

    def save(self, path: str | Path) -> None:
        """Write supernet.pt (all but the history), atomically, tensors and plain values only."""
        payload = {
            "kind": SUPERNET_KIND,
            "format_version": SUPERNET_VERSION,
            **describe_space(self.space),
            "num_classes": self.num_classes,
            "target_ms": self.target_ms,
            "alphas": self.alphas,
            "betas": list(self.betas),
            "widths": self.widths,
            "weights": self.weights,
            "depth_space": self.depth_space,
            "weight_sharing": self.weight_sharing,
        }
        write_tensors(payload, path)

    def build_supernet(self) -> Supernet:
        """The supernet with these weights, on the CPU."""
        supernet = Supernet(self.space, self.num_classes, self.depth_space, self.weight_sharing)
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
        supernet.weight_sharing,
        history,
    )


def load_search_result(path: str | Path, space: Space) -> SearchResult:
    """Read the supernet.pt that `SearchResult.save` wrote (without the history).

    Raises:
        UserError: missing, damaged, searched in another space, or not searched at all.
    """
    payload = _read_supernet(path)
    if payload.get("kind") != SUPERNET_KIND or payload.get("format_version") != SUPERNET_VERSION:
        raise UserError(f"{path}: is not a supernet.pt of this version of tfnas; run search again")
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
        payload["weight_sharing"],
    )


def read_searched(path: str | Path, constraint: Constraint, target: str) -> SearchResult:
    """The searched supernet of a target.

    Raises:
        UserError: as `load_search_result`, or it was searched for another latency.
    """
    result = load_search_result(path, constraint.space)
    if result.target_ms != constraint.limit:
        raise UserError(
            f"{path}: was searched for {result.target_ms:.6g} ms, target {target} now asks for"
            f" {constraint.limit:.6g} ms; run search again"
        )
    return result


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


WARM_UP_KIND = "warm-up"
WARM_UP_VERSION = 3


@dataclass(frozen=True)
class WarmUp:
    """The state after the warm-up epochs; it depends on no target and no latency table."""

    space: Space
    num_classes: int
    depth_space: str
    weight_sharing: str
    state: dict[str, Any]  # what `SearchState.after_warm_up` gave

    def save(self, path: str | Path, values: Mapping[str, Any]) -> None:
        """Write the state, atomically, the same bytes for the same warm-up.

        Args:
            values: the parameters that it depends on, plain data; `load_warm_up` compares them.
        """
        payload = {
            "kind": WARM_UP_KIND,
            "format_version": WARM_UP_VERSION,
            **describe_space(self.space),
            "num_classes": self.num_classes,
            "depth_space": self.depth_space,
            "weight_sharing": self.weight_sharing,
            "params": dict(values),
            "state": self.state,
        }
        write_tensors(payload, path)


def load_warm_up(path: str | Path, space: Space, values: Mapping[str, Any]) -> WarmUp:
    """Read what `WarmUp.save` wrote.

    Raises:
        UserError: missing, damaged, of another space, or of other parameters (names one).
    """
    payload = _read_supernet(path)
    if payload.get("kind") != WARM_UP_KIND or payload.get("format_version") != WARM_UP_VERSION:
        raise UserError(f"{path}: is not a supernet.pt that warm_up of this version of tfnas wrote; run warm_up")
    check_space(payload, space, path)
    for key, value in values.items():
        if payload["params"].get(key) != value:
            was = payload["params"].get(key)
            raise UserError(f"{path}: was warmed up with {key}: {was}, params.yaml has {value}; run warm_up again")
    return WarmUp(space, payload["num_classes"], payload["depth_space"], payload["weight_sharing"], payload["state"])
