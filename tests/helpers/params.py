"""The shipped parameters, and others made from them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tfnas.stages.params import Params, load_params

SHIPPED = Path(__file__).parents[2] / "params.yaml"


def shipped_params() -> Params:
    """Those of params.yaml."""
    return load_params(SHIPPED)


def changed(params: Params, **changes: Any) -> Params:
    """Other values, by section."""
    values = params.model_dump(by_alias=True, exclude_unset=True)
    for section, value in changes.items():
        values[section] = values[section] | value if isinstance(value, dict) else value
    return Params.model_validate(values)
