"""The packages in examples/, loaded as their entry points say, without installing them."""

from __future__ import annotations

import importlib.util
import tomllib
from pathlib import Path

EXAMPLES = Path(__file__).parents[2] / "examples"


def load_backend(name: str) -> type:
    """The class that `examples/<name>_backend` adds as the backend `name`."""
    folder = EXAMPLES / f"{name}_backend"
    points = tomllib.loads((folder / "pyproject.toml").read_text())["project"]["entry-points"]
    module, _, attribute = points["tfnas.latency_backends"][name].partition(":")
    spec = importlib.util.spec_from_file_location(module, folder / f"{module}.py")
    assert spec is not None and spec.loader is not None
    loaded = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(loaded)
    return getattr(loaded, attribute)
