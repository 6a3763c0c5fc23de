"""What the warm-up leaves: a supernet with alpha and beta as they began, where every target's search goes on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tfnas.runtime.checkpoints import read_tensors, write_tensors
from tfnas.runtime.errors import UserError
from tfnas.search.result import check_space, describe_space
from tfnas.space import Space

KIND = "warm-up"
FORMAT_VERSION = 2


@dataclass(frozen=True)
class WarmUp:
    """The state after the warm-up epochs; it depends on no target and no latency table."""

    space: Space
    num_classes: int
    depth_space: str
    state: dict[str, Any]  # what `SearchState.after_warm_up` gave

    def save(self, path: str | Path, values: Mapping[str, Any]) -> None:
        """Write the state, atomically, the same bytes for the same warm-up.

        Args:
            values: the parameters that it depends on, plain data; `load_warm_up` compares them.
        """
        payload = {
            "kind": KIND,
            "format_version": FORMAT_VERSION,
            **describe_space(self.space),
            "num_classes": self.num_classes,
            "depth_space": self.depth_space,
            "params": dict(values),
            "state": self.state,
        }
        write_tensors(payload, path)


def load_warm_up(path: str | Path, space: Space, values: Mapping[str, Any]) -> WarmUp:
    """Read what `WarmUp.save` wrote.

    Raises:
        UserError: missing, damaged, of another space, or of other parameters (names one).
    """
    payload = read_tensors(path)
    if payload.get("kind") != KIND or payload.get("format_version") != FORMAT_VERSION:
        raise UserError(f"{path}: is no supernet.pt that warm_up of this version of tfnas wrote; run warm_up")
    check_space(payload, space, path)
    for key, value in values.items():
        if payload["params"].get(key) != value:
            was = payload["params"].get(key)
            raise UserError(f"{path}: was warmed up with {key}: {was}, params.yaml has {value}; run warm_up again")
    return WarmUp(space, payload["num_classes"], payload["depth_space"], payload["state"])
