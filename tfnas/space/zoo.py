"""The twelve networks that the paper publishes (Tables 14-25)."""

from __future__ import annotations

import difflib
from pathlib import Path
from typing import NamedTuple

from tfnas.jobs.errors import UserError
from tfnas.space.architecture import Architecture

_FOLDER = Path(__file__).parent / "zoo_data"


class Published(NamedTuple):
    """What the paper says of a network."""

    table: int  # that describes it
    top1: float  # percent on ImageNet, Tables 9 and 11
    dropout: float  # in its training, Appendices B, G, H


_PUBLISHED = {  # in the order of the paper's tables
    "TF-NAS-A": Published(14, 76.9, 0.2),
    "TF-NAS-B": Published(15, 76.3, 0.2),
    "TF-NAS-C": Published(16, 75.2, 0.2),
    "TF-NAS-D": Published(17, 74.2, 0.1),
    "TF-NAS-A-wose": Published(18, 76.5, 0.2),
    "TF-NAS-B-wose": Published(19, 76.0, 0.2),
    "TF-NAS-C-wose": Published(20, 75.0, 0.2),
    "TF-NAS-D-wose": Published(21, 74.0, 0.1),
    "TF-NAS-CPU-A": Published(22, 75.8, 0.2),
    "TF-NAS-CPU-B": Published(23, 74.4, 0.2),
    "TF-NAS-MBV2-A": Published(24, 75.3, 0.2),
    "TF-NAS-MBV2-B": Published(25, 73.7, 0.1),
}


def names() -> list[str]:
    """Names of the published networks, in the order of the paper's tables."""
    return list(_PUBLISHED)


def published(name: str) -> Published:
    """What the paper says of a network.

    Raises:
        UserError: unknown name; the nearest known one is named.
    """
    _check_name(name)
    return _PUBLISHED[name]


def load(name: str) -> Architecture:
    """A published network by its name, e.g. `TF-NAS-A`.

    Raises:
        UserError: unknown name; the nearest known one is named.
    """
    _check_name(name)
    return Architecture.load(_FOLDER / f"{name}.json")


def nearest(name: str) -> str:
    """The published network whose name is most like a given one."""
    known = {known.lower(): known for known in names()}
    return known[difflib.get_close_matches(name.lower().replace("_", "-"), known, n=1, cutoff=0.0)[0]]


def _check_name(name: str) -> None:
    if name not in _PUBLISHED:
        raise UserError(f"zoo: unknown network {name!r}; did you mean {nearest(name)!r}? Known: {', '.join(names())}")
