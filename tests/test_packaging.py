"""The ranges of pyproject.toml, the pins of constraints.txt, the rules' environment and the imports: they agree."""

from __future__ import annotations

import ast
import os
import re
import sys
from collections.abc import Iterator
from importlib.metadata import distribution, packages_distributions
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.helpers.packages import PROJECT, closure, named
from tfnas.jobs.extras import EXTRAS

ROOT = Path(__file__).parents[1]
OPTIONAL = {"timm", "pillow_heif", "litert_torch", "ai_edge_litert"}  # used where installed, by choice
BROUGHT = {"ruamel": "dvc", "networkx": "dvc", "markupsafe": "jinja2"}  # by a package that we name
constrained = pytest.mark.skipif("TFNAS_UNCONSTRAINED" in os.environ, reason="make test-newest installs other versions")


def pins() -> dict[str, str]:
    """The version of each package in constraints.txt."""
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    return {
        canonicalize_name(name): version for name, _, version in (line.partition("==") for line in lines) if version
    }


def needed() -> set[str]:
    return closure([*named(None), *named("dev")])


def imported(folder: Path) -> Iterator[tuple[str, Path]]:
    """The packages from elsewhere that a folder's files import, and where."""
    for path in folder.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) and not node.level else []
            yield from ((name.partition(".")[0], path) for name in names)


def test_the_ranges_admit_the_pins() -> None:
    refused = [
        str(requirement)
        for extra in (None, *PROJECT["optional-dependencies"])
        for requirement in named(extra)
        if (pin := pins().get(canonicalize_name(requirement.name))) is not None and pin not in requirement.specifier
    ]
    assert refused == []


@constrained
def test_every_package_that_make_installs_is_pinned_and_every_pin_is_needed() -> None:
    assert needed() - pins().keys() == set(), "without a pin"
    assert pins().keys() - needed() == set(), "needed by nothing"


@constrained
def test_the_installed_versions_are_the_pinned_ones() -> None:
    installed = {name: distribution(name).version for name in needed() & pins().keys()}
    other = {name: version for name, version in installed.items() if version.partition("+")[0] != pins()[name]}
    assert other == {}, "install with --constraint constraints.txt"


def test_the_rules_environment_has_what_make_installs() -> None:
    environment = yaml.safe_load((ROOT / "workflow" / "envs" / "tfnas.yaml").read_text())
    (pip,) = (part["pip"] for part in environment["dependencies"] if isinstance(part, dict))
    wanted = [canonicalize_name(r.name) for extra in (None, "report", "pipeline", "onnx") for r in named(extra)]
    assert pip == [f"{name}=={pins()[name]}" for name in dict.fromkeys(wanted)]
    assert re.search(r"^EXTRAS := pipeline,onnx$", (ROOT / "Makefile").read_text(), re.MULTILINE)


@pytest.mark.parametrize("extra", EXTRAS)
def test_an_extra_lists_the_modules_of_its_packages(extra: str) -> None:
    packages = packages_distributions()
    if not any(module in packages for module in EXTRAS[extra]):
        pytest.skip(f"the extra {extra} is not installed")
    own = {canonicalize_name(Requirement(line).name) for line in PROJECT["optional-dependencies"][extra]} - {"tfnas"}
    brought = [own & set(map(canonicalize_name, packages[module])) for module in EXTRAS[extra]]  # several bring mlflow
    assert all(brought) and set().union(*brought) == own


def test_every_import_is_of_the_core_an_extra_or_an_optional_package() -> None:
    packages = packages_distributions()
    core = {canonicalize_name(requirement.name) for requirement in named(None)}
    known = {module for modules in EXTRAS.values() for module in modules} | OPTIONAL | BROUGHT.keys() | {"tfnas"}
    strange = {
        f"{path.relative_to(ROOT)}: {module}"
        for module, path in imported(ROOT / "tfnas")
        if module and module not in sys.stdlib_module_names | known
        if not core & {canonicalize_name(name) for name in packages.get(module, ())}
    }
    assert strange == set()


def test_make_and_pyproject_name_the_same_pythons() -> None:
    (admitted,) = re.findall(r">=3\.(\d+),<3\.(\d+)", PROJECT["requires-python"])
    tried = re.findall(r"3\.(\d+)", re.search(r"^PYTHONS := (.*)$", (ROOT / "Makefile").read_text(), re.MULTILINE)[1])
    assert sorted(map(int, tried)) == list(range(*map(int, admitted)))
    assert f"(3, {admitted[0]}) <= sys.version_info < (3, {admitted[1]})" in (ROOT / "Makefile").read_text()
