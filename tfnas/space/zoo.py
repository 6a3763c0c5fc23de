"""The twelve networks that the paper publishes (Tables 14-25)."""

from __future__ import annotations

import difflib
from pathlib import Path

from tfnas.runtime.errors import UserError
from tfnas.space.architecture import Architecture

_FOLDER = Path(__file__).parent / "zoo_data"
_ORDER = ("A", "B", "C", "D", "A-wose", "B-wose", "C-wose", "D-wose", "CPU-A", "CPU-B", "MBV2-A", "MBV2-B")


def names() -> list[str]:
    """Names of the published networks, in the order of the paper's tables."""
    return [f"TF-NAS-{suffix}" for suffix in _ORDER]


def load(name: str) -> Architecture:
    """A published network by its name, e.g. `TF-NAS-A`.

    Raises:
        UserError: unknown name; the nearest known one is named.
    """
    if name not in names():
        known = {known.lower(): known for known in names()}
        nearest = known[difflib.get_close_matches(name.lower().replace("_", "-"), known, n=1, cutoff=0.0)[0]]
        raise UserError(f"zoo: unknown network {name!r}; did you mean {nearest!r}? Known: {', '.join(names())}")
    return Architecture.load(_FOLDER / f"{name}.json")
