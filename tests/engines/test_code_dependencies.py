"""Each stage names all code that it reaches, and no other: its imports are followed, also those in functions."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

from tfnas.stages.registry import CHANGES_NO_RESULT, LIBRARY, STAGES

ROOT = Path(__file__).parents[2]


@cache
def source_of(module: str) -> Path | None:
    """The file of a module or package of the library."""
    path = ROOT.joinpath(*module.split("."))
    candidates = (path / "__init__.py", path.with_suffix(".py"))
    is_ours = module.partition(".")[0] == LIBRARY
    return next((file for file in candidates if file.is_file()), None) if is_ours else None


@cache
def imports(file: Path) -> frozenset[str]:
    """Modules of the library that a file imports when it runs; those for the type checker left out."""
    tree = ast.parse(file.read_text())
    typing = [node for node in ast.walk(tree) if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test)]
    skipped = {id(inner) for node in typing for child in node.body for inner in ast.walk(child)}
    return frozenset(module for node in ast.walk(tree) if id(node) not in skipped for module in imported_by(node, file))


def imported_by(node: ast.AST, file: Path) -> Iterator[str]:
    """What one import statement names: modules, and the module behind each name."""
    if isinstance(node, ast.Import):
        yield from (name.name for name in node.names)
    elif isinstance(node, ast.ImportFrom):
        module = absolute(node, file)
        yield module
        yield from (stub(module).get(name.name, f"{module}.{name.name}") for name in node.names)


def absolute(node: ast.ImportFrom, file: Path) -> str:
    """The module of `from ... import`, without leading dots."""
    if node.level == 0:
        return node.module or ""
    package = file.relative_to(ROOT).parts[: -node.level]
    return ".".join((*package, *filter(None, [node.module])))


@cache
def stub(package: str) -> dict[str, str]:
    """The modules of a package's names that are imported when they are first used, from its `__init__.pyi`."""
    source = source_of(package)
    file = source.with_suffix(".pyi") if source else None
    if file is None or not file.is_file():
        return {}
    nodes = (node for node in ast.parse(file.read_text()).body if isinstance(node, ast.ImportFrom))
    return {name.asname or name.name: absolute(node, file) for node in nodes for name in node.names}


def is_below(file: Path, paths: tuple[str, ...]) -> bool:
    """Whether a file of the checkout is one of the paths, or in one of them."""
    return any(file.is_relative_to(ROOT / path) for path in paths)


NEUTRAL = tuple(f"{LIBRARY}/{path}" for path in CHANGES_NO_RESULT)


def reached(stage: str) -> dict[Path, str]:
    """Every file of the library that a stage may run, with the one that imports it.

    The script names its stage's file by a text, so both are where the walk begins. What a file imports that changes no
    result counts for nothing.
    """
    starts = [ROOT / STAGES[stage].script, ROOT / LIBRARY / "stages" / f"{stage}.py"]
    found = {starts[1]: STAGES[stage].script}
    todo = list(starts)
    while todo:
        file = todo.pop()
        for module in imports(file):
            parts = module.split(".")
            for parent in (".".join(parts[:length]) for length in range(1, len(parts) + 1)):
                source = source_of(parent)
                if source is not None and source not in found:
                    found[source] = file.relative_to(ROOT).as_posix()
                    if not is_below(source, NEUTRAL):
                        todo.append(source)
    return found


@pytest.mark.parametrize("stage", STAGES)
def test_a_stage_names_all_code_that_it_reaches(stage: str) -> None:
    allowed = (*STAGES[stage].code_paths, *NEUTRAL)
    undeclared = {str(file.relative_to(ROOT)): by for file, by in reached(stage).items() if not is_below(file, allowed)}
    assert undeclared == {}


@pytest.mark.parametrize("stage", STAGES)
def test_a_stage_names_no_code_that_it_does_not_reach(stage: str) -> None:
    files = [ROOT / STAGES[stage].script, *reached(stage)]
    assert [path for path in STAGES[stage].code_paths if not any(is_below(file, (path,)) for file in files)] == []


def test_what_changes_no_result_exists_and_no_stage_names_it() -> None:
    assert [path for path in NEUTRAL if not (ROOT / path).exists()] == []
    named = {path for stage in STAGES.values() for path in stage.code_paths}
    assert [path for path in named if is_below(ROOT / path, NEUTRAL)] == []


def test_every_module_can_change_a_result_or_is_said_not_to() -> None:
    used = {path for stage in STAGES.values() for path in stage.code_paths} | set(NEUTRAL)
    modules = (ROOT / LIBRARY).rglob("*.py")
    assert [str(file.relative_to(ROOT)) for file in sorted(modules) if not is_below(file, tuple(used))] == []


@pytest.mark.parametrize(
    ("stage", "module"),
    [
        ("build_subset", "tfnas.compute.seeding"),
        ("profile_latency", "tfnas.compute.devices"),
        ("retrain", "tfnas.compute.distributed"),
        ("derive", "tfnas.latency.backends.torch"),  # imported within a function
        ("search", "tfnas.data.images.transforms"),
        ("search", "tfnas.search.loop"),
        ("search", "tfnas.space.space"),  # behind a name of the package's stub
    ],
)
def test_the_walk_finds_what_is_known_to_run(stage: str, module: str) -> None:
    assert source_of(module) in reached(stage)


def test_names_of_a_package_lead_to_the_modules_of_its_stub() -> None:
    assert stub("tfnas.search")["scale_widths"] == "tfnas.search.scaling.elasticity_scaling"
    assert stub("tfnas.jobs") == {}
