"""Each stage names all code that it reaches, and no other: its imports are followed, also those in functions."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

from tfnas.stages.dependencies import SCRIPTS, STAGE_ROOMS

ROOT = Path(__file__).parents[2]
# Rooms that change no result, with why. What they import counts for nothing either.
NEUTRAL = {"runtime": "reads parameters, writes files, tracks, locks; what computes is in `compute`"}


def source_of(module: str) -> Path | None:
    path = ROOT.joinpath(*module.split("."))
    candidates = (path / "__init__.py", path.with_suffix(".py"))
    return next((file for file in candidates if file.is_file()), None)


def imports(file: Path) -> Iterator[str]:
    """Modules of the library that a file imports when it runs; those for the type checker left out."""
    tree = ast.parse(file.read_text())
    typing = [node for node in ast.walk(tree) if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test)]
    skipped = {id(inner) for node in typing for child in node.body for inner in ast.walk(child)}
    for node in ast.walk(tree):
        if id(node) in skipped:
            continue
        if isinstance(node, ast.Import):
            yield from (name.name for name in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
            later = imported_later(node.module)
            yield from (later.get(name.name, f"{node.module}.{name.name}") for name in node.names)


def imported_later(package: str) -> dict[str, str]:
    """Where `import_later` finds a package's names."""
    file = source_of(package)
    calls = (node for node in ast.walk(ast.parse(file.read_text())) if isinstance(node, ast.Call)) if file else ()
    found = (node for node in calls if getattr(node.func, "id", "") == "import_later")
    return next((ast.literal_eval(node.args[1]) for node in found), {})


def reached(script: Path) -> dict[str, str]:
    """Every module of the library that a script may run, with the one that imports it."""
    found: dict[str, str] = {}
    todo = [(script, script.name)]
    while todo:
        file, name = todo.pop()
        for module in imports(file):
            parts = module.split(".")
            for parent in (".".join(parts[:length]) for length in range(2, len(parts) + 1)):
                source = source_of(parent) if parts[0] == "tfnas" else None
                if source is None or parent in found:
                    continue
                found[parent] = name
                if parts[1] not in NEUTRAL:
                    todo.append((source, parent))
    return found


@pytest.mark.parametrize("stage", STAGE_ROOMS)
def test_a_stage_names_the_rooms_that_its_script_reaches(stage: str) -> None:
    modules = reached(ROOT / SCRIPTS / f"{stage}.py")
    declared = {*STAGE_ROOMS[stage], *NEUTRAL}
    undeclared = {module: by for module, by in modules.items() if module.split(".")[1] not in declared}
    assert undeclared == {}
    assert set(STAGE_ROOMS[stage]) <= {module.split(".")[1] for module in modules}


@pytest.mark.parametrize(
    ("stage", "module"),
    [
        ("build_subset", "tfnas.compute.seeding"),
        ("profile_latency", "tfnas.compute.devices"),
        ("retrain", "tfnas.compute.distributed"),
        ("derive", "tfnas.latency.backends.torch"),  # imported within a function
        ("search", "tfnas.data.images.transforms"),  # by `import_later`
    ],
)
def test_the_walk_finds_what_is_known_to_run(stage: str, module: str) -> None:
    assert module in reached(ROOT / SCRIPTS / f"{stage}.py")
