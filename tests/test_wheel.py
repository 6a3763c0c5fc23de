"""A wheel built from the sdist: what is in it, and what it does in an empty folder, far from the tree."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import zipfile
from email import message_from_bytes
from pathlib import Path

import pytest

from tfnas import __version__
from tfnas.cli.init import project
from tfnas.stages.registry import STAGES

ROOT = Path(__file__).parents[1]
FRAMES = ("inputs", "results")
CARRIED = ("Snakefile", "dvc.yaml", ".dvcignore", ".gitignore", ".dvc", "workflow", "profiles", "presets", *FRAMES)
BUILD = "import sys; from setuptools import build_meta; build_meta.build_{kind}(sys.argv[1])"

pytest.importorskip("setuptools", minversion="77")


def tracked(*names: str) -> list[str]:
    """The files below some names that git has or would take."""
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard", "--", *names]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    if done.returncode != 0:
        pytest.skip("the tree is in no git repository")
    return [name for name in done.stdout.split("\0") if name and (ROOT / name).is_file()]


def build(kind: str, tree: Path, out: Path) -> Path:
    """An sdist or a wheel of a tree, without network."""
    done = subprocess.run(
        [sys.executable, "-c", BUILD.format(kind=kind), out], cwd=tree, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return next(out.glob("*.tar.gz" if kind == "sdist" else "*.whl"))


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built from the sdist alone, as pip builds it; the sdist from a copy of the tree with the user's own files."""
    tree, out = tmp_path_factory.mktemp("tree"), tmp_path_factory.mktemp("out")
    for name in tracked():
        (tree / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, tree / name)
    for name in ("inputs/weights/mine.pt", "results/retrain/A/weights.pt", "workflow/__pycache__/x.pyc"):
        (tree / name).parent.mkdir(parents=True, exist_ok=True)
        (tree / name).write_text("not for others")
    shutil.unpack_archive(build("sdist", tree, out), out, filter="data")
    (source,) = out.glob("*/pyproject.toml")
    return build("wheel", source.parent, out)


@pytest.fixture(scope="module")
def site(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel's files, to be put before everything else on Python's path."""
    site = tmp_path_factory.mktemp("site")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(site)
    return site


def python(site: Path, folder: Path, *arguments: str) -> str:
    environment = {**os.environ, "PYTHONPATH": str(site), "COLUMNS": "200"}
    done = subprocess.run([sys.executable, *arguments], cwd=folder, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout + done.stderr


@pytest.mark.slow
def test_a_wheel_holds_the_package_and_the_pipeline_and_nothing_else(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = {name for name in archive.namelist() if not name.startswith(f"tfnas-{__version__}.dist-info/")}
        metadata = message_from_bytes(archive.read(f"tfnas-{__version__}.dist-info/METADATA"))
        carried = {name: archive.read(f"tfnas/project/{name}") for name in tracked(*CARRIED) if is_carried(name)}
    library = set(tracked("tfnas"))
    assert names == library | {f"tfnas/project/{name}" for name in carried}
    assert all(content == (ROOT / name).read_bytes() for name, content in carried.items())
    assert {"pipeline", "onnx", "report"} <= set(metadata.get_all("Provides-Extra"))


def is_carried(name: str) -> bool:
    return name.partition("/")[0] not in FRAMES or Path(name).name in ("README.md", ".gitkeep")


@pytest.mark.slow
def test_far_from_the_tree_init_lays_out_a_pipeline_that_both_engines_read(site: Path, tmp_path: Path) -> None:
    main = "import sys, tfnas; from tfnas.cli import main; print(tfnas.__file__); sys.exit(main(sys.argv[1:]))"
    printed = python(site, tmp_path, "-c", main, "init", "digits")
    assert str(site) in printed and "Laid out the pipeline" in printed
    assert (tmp_path / "params.yaml").read_bytes() == (ROOT / "params.yaml").read_bytes()
    assert "Laid out" not in python(site, tmp_path, "-c", main, "init", "claims")
    shutil.copy(ROOT / "params.yaml", tmp_path)
    assert set(STAGES) <= set(python(site, tmp_path, "-m", "snakemake", "--dry-run", "--cores", "2").split())
    assert "rank_classes" in python(site, tmp_path, "-m", "dvc", "stage", "list")
    assert str(tmp_path / "tfnas") in python(site, tmp_path, str(add_where(tmp_path)))  # jobs run the folder's own code


def add_where(folder: Path) -> Path:
    """A script that says which library a job runs."""
    path = folder / "workflow" / "scripts" / "where.py"
    code = "import tfnas\nfrom tfnas.stages.job import run_script\nrun_script(lambda: print(tfnas.__file__))\n"
    path.write_text(code)
    return path


@pytest.fixture
def carried(tmp_path: Path) -> Path:
    source = tmp_path / "project"
    (source / "workflow").mkdir(parents=True)
    for name in ("Snakefile", "workflow/common.smk", ".gitignore"):
        (source / name).write_text(name)
    return source


def lay_out(folder: Path, source: Path) -> str:
    return project.lay_out(folder, source=source, library=project.LIBRARY)


def test_nothing_of_the_users_is_replaced(carried: Path, tmp_path: Path) -> None:
    folder = tmp_path / "mine"
    (folder / "workflow").mkdir(parents=True)
    assert "your own workflow" in lay_out(folder, carried)
    assert [path.name for path in folder.iterdir()] == ["workflow"]
    (folder / "workflow").rmdir()
    (folder / ".gitignore").write_text("mine")
    assert "Laid out" in lay_out(folder, carried)
    assert (folder / ".gitignore").read_text() == "mine"
    assert (folder / "tfnas" / "cli" / "init" / "presets.py").is_file() and not (folder / "tfnas" / "project").exists()
    assert lay_out(folder, carried) == "" and "--snakefile" not in project.run_command(folder)


def test_a_checkout_lays_out_nothing_and_says_where_its_pipeline_is(tmp_path: Path) -> None:
    assert project.lay_out(tmp_path) == "" and list(tmp_path.iterdir()) == []
    assert project.run_command(tmp_path).endswith(f"--snakefile {ROOT / 'Snakefile'}")
