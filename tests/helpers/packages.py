"""What pyproject.toml asks for, and what that brings."""

from __future__ import annotations

import tomllib
from collections.abc import Iterable
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

PROJECT = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())["project"]


def named(extra: str | None) -> list[Requirement]:
    """What pyproject.toml lists for an extra, None for the core; an extra that it takes in is resolved."""
    lines = PROJECT["dependencies"] if extra is None else PROJECT["optional-dependencies"][extra]
    found = list[Requirement]()
    for requirement in map(Requirement, lines):
        found += (r for e in requirement.extras for r in named(e)) if requirement.name == "tfnas" else [requirement]
    return found


def closure(requirements: Iterable[Requirement]) -> set[str]:
    """The packages that requirements bring on this machine, by the metadata of what is installed."""
    found, todo = set[tuple[str, str]](), list(requirements)
    while todo:
        requirement = todo.pop()
        name = canonicalize_name(requirement.name)
        for extra in {"", *requirement.extras} - {e for n, e in found if n == name}:
            found.add((name, extra))
            try:
                wanted = map(Requirement, distribution(name).requires or ())
            except PackageNotFoundError:  # an extra that is not installed; it has its pin all the same
                continue
            todo += (r for r in wanted if r.marker is None or r.marker.evaluate({"extra": extra}))
    return {name for name, _ in found}
