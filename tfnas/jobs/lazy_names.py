"""A package's public names, typed once in its stub `__init__.pyi` and imported when they are first used."""

from __future__ import annotations

import ast
import importlib
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any


def attach_stub(package: str, file: str) -> tuple[Callable[[str], Any], Callable[[], list[str]], list[str]]:
    """`__getattr__`, `__dir__` and `__all__` of a package whose stub has lines `from .module import name as name`.

    As lazy_loader's function of this name, which needs a package more.

    Args:
        package: its `__name__`.
        file: its `__file__`; the stub lies beside it.
    """
    modules = _modules_by_name(Path(file).with_suffix(".pyi"))

    def get(name: str) -> Any:
        if name not in modules:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        value = getattr(importlib.import_module(f"{package}.{modules[name]}"), name)
        setattr(sys.modules[package], name, value)  # which Python finds without asking here again
        return value

    return get, lambda: sorted(modules), sorted(modules)


def _modules_by_name(stub: Path) -> dict[str, str]:
    """The module, below the package, that each name comes from."""
    lines = ast.parse(stub.read_text(encoding="utf-8")).body
    assert all(isinstance(line, ast.ImportFrom) and line.level == 1 and line.module for line in lines), stub
    return {
        alias.asname or alias.name: line.module
        for line in lines
        if isinstance(line, ast.ImportFrom) and line.module
        for alias in line.names
    }
