"""What a script or an engine imports before it works: no torch and no MLflow where they are not needed."""

from __future__ import annotations

import importlib
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
HEAVY = ("torch", "torchvision", "mlflow", "pandas", "matplotlib", "sklearn", "scipy")


def imported_by(code: str, *arguments: str) -> set[str]:
    """The heavy packages in a fresh Python after some code."""
    told = f"import sys\ntry:\n    {code}\nfinally:\n    print(*(set({HEAVY!r}) & sys.modules.keys()))"
    command = [sys.executable, "-c", told, *arguments]
    finished = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    return set(finished.stdout.splitlines()[-1].split())


@pytest.mark.parametrize(
    "modules",
    [
        "tfnas.engines.sync, tfnas.engines.trust",  # what every call of Snakemake imports
        "tfnas.engines.lineage, tfnas.cli.provenance",
        "tfnas.space, tfnas.latency, tfnas.data",
        "tfnas.stages.prepare_data, tfnas.stages.build_subset",  # the jobs that list images and draw classes
        "tfnas.report.inputs, tfnas.report.page",
        "tfnas.stages.job, tfnas.stages.params",
    ],
)
def test_nothing_heavy_is_imported(modules: str) -> None:
    assert imported_by(f"import {modules}") == set()


@pytest.mark.parametrize("script", sorted(path.stem for path in (ROOT / "workflow/scripts").glob("*.py")))
def test_help_and_a_mistake_in_params_come_before_anything_heavy(script: str, tmp_path: Path) -> None:
    path = f"workflow/scripts/{script}.py"
    run = f"import runpy; runpy.run_path({path!r}, run_name='__main__')"
    assert imported_by(run, "--help") == set()
    (tmp_path / "params.yaml").write_text("seed: x\n")
    options = subprocess.run(  # the names of all options that must be given
        [sys.executable, path], cwd=ROOT, capture_output=True, text=True
    ).stderr.partition("required: ")[2]
    given = [part for name in options.strip().split(", ") for part in (name, "x")]
    given[given.index("--params") + 1] = str(tmp_path / "params.yaml")
    assert imported_by(run, *given) == set()


def test_training_and_searching_small_pictures_needs_no_torchvision() -> None:
    assert imported_by(
        "import tfnas.stages.search, tfnas.stages.retrain, tfnas.train.session, tfnas.stages.rank_classes"
    ) == {"torch"}


def test_what_is_asked_for_later_is_there() -> None:
    stubs = sorted((ROOT / "tfnas").glob("*/__init__.pyi"))
    assert len(stubs) >= 5
    for stub in stubs:
        package = importlib.import_module(f"tfnas.{stub.parent.name}")
        assert all(getattr(package, name) is not None for name in package.__all__)
        with pytest.raises(AttributeError, match=r"attribute '?nothing"):
            _ = package.nothing
