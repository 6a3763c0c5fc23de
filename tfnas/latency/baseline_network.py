"""A network that a search has to beat, as stage scale_baseline writes it and train_baseline reads it: network.json."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from tfnas.jobs.artifacts import read_json, write_json
from tfnas.jobs.errors import UserError
from tfnas.latency.baselines import count_module_macs
from tfnas.latency.known_networks import build_known, check_known
from tfnas.space import Architecture, build_network

KIND, FORMAT_VERSION = "baseline", 1


@dataclass(frozen=True)
class BaselineNetwork:
    """A member of a space, or a known network at a width; either `architecture` or `width` is None.

    Attributes:
        drawn: random, any or known (`tfnas.latency.params.baseline_kind`).
        name: of the network without its width, e.g. `random_1` or `mobilenet_v2`.
    """

    drawn: str
    name: str
    architecture: Architecture | None = None
    width: float | None = None

    def build(self, num_classes: int, *, dropout: float = 0.0, drop_connect: float = 0.0) -> nn.Module:
        """The network with fresh weights: (N, 3, H, W) images to (N, K) logits."""
        if self.architecture is not None:
            return build_network(self.architecture, num_classes, dropout, drop_connect)
        assert self.width is not None
        return build_known(self.name, self.width, num_classes, dropout=dropout, drop_connect=drop_connect)

    def size(self, resolution: int, num_classes: int) -> dict[str, int]:
        """Parameters, and multiply-adds of an image, counted as `count_params` and `count_macs` do."""
        with torch.device("meta"):
            module = self.build(num_classes).eval()
        return {
            "params": sum(parameter.numel() for parameter in module.parameters()),
            "macs": count_module_macs(module, resolution),
        }

    def save(self, path: str | Path) -> None:
        """Write JSON, atomically."""
        architecture = None if self.architecture is None else self.architecture.to_dict()
        contents = {"drawn": self.drawn, "name": self.name, "architecture": architecture, "width": self.width}
        write_json(path, {"kind": KIND, "format_version": FORMAT_VERSION, **contents})

    @classmethod
    def load(cls, path: str | Path) -> BaselineNetwork:
        """Read what `save` wrote.

        Raises:
            UserError: missing, damaged, or of another kind.
        """
        payload = read_json(path, kind=KIND, version=FORMAT_VERSION)
        try:
            drawn, name, architecture, width = (payload[key] for key in ("drawn", "name", "architecture", "width"))
        except KeyError as error:
            raise _damaged(path, f"has no {error}") from None
        if architecture is not None:
            return cls(drawn, name, architecture=Architecture.from_dict(architecture, source=str(path)))
        check_known(name)
        if isinstance(width, bool) or not isinstance(width, (int, float)) or not width > 0:
            raise _damaged(path, f"width: expected a number above 0, got {width!r}")
        return cls(drawn, name, width=float(width))


def _damaged(path: str | Path, what: Any) -> UserError:
    return UserError(f"{path}: {what}; run scale_baseline again")
