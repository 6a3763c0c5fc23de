"""Whether two checkouts give the same results to the bit: a fixed small run of each, by both engines.

    python -m benchmarks.pipeline.same_results BEFORE AFTER [--keep FOLDER]

Tiny parameters, a space of 2 x 2 layers, and one given latency table, so that nothing that is measured can differ.
Compared are the bytes of the subset, histories (columns of seconds left out), supernets, architectures and weights.
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import io
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from tests.helpers.projects import copy_project, set_param

SPACE, TABLE = "inputs/spaces/tiny.yaml", "inputs/tables/tiny.json"
TINY = {
    "space": SPACE,
    "resolution": 16,
    "targets.A.constraint.relative": 0.7,
    "targets.B.constraint.relative": 0.4,
    "rank_classes.fit.epochs": 1,
    "profile_latency.table": TABLE,
    "profile_latency.validation_networks": 0,
    "search.epochs": 4,
    "search.warmup_epochs": 1,
    "derive.measure_repeats": 2,
    "retrain.epochs": 2,
    "retrain.warmup_epochs": 1,
    "transfer.epochs": 1,
    "transfer.resolution": 16,
}
ENGINES = {"snakemake": ("snakemake", "--cores", "2"), "dvc": ("dvc", "repro")}
COMPARED = ("*.csv", "supernet.pt", "architecture.json", "weights.pt", "images-*.arrow")
LEFT_OUT = ("validation.csv", "summary.csv")  # of what is measured in this run
BIN = Path(sys.executable).parent


def environment(checkout: Path) -> dict[str, str]:
    path = os.pathsep.join((str(BIN), os.environ["PATH"]))
    return {**os.environ, "PYTHONPATH": str(checkout), "PATH": path, "DVC_NO_ANALYTICS": "1", "OMP_NUM_THREADS": "1"}


def call(checkout: Path, folder: Path, *command: str) -> None:
    finished = subprocess.run(command, cwd=folder, env=environment(checkout), capture_output=True, text=True)
    if finished.returncode:
        sys.exit(f"{checkout}: {' '.join(command)} failed\n{finished.stdout[-3000:]}{finished.stderr[-3000:]}")


def make_project(checkout: Path, folder: Path, space: Path, table: Path) -> None:
    """The checkout's pipeline on the tiny parameters, a DVC project without git."""
    copy_project(folder, checkout=checkout)
    for name, file in ((SPACE, space), (TABLE, table)):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(file, folder / name)
    for key, value in TINY.items():
        set_param(folder, key, value)


def digest(path: Path) -> str:
    content = path.read_bytes()
    if path.name == "history.csv":
        rows = list(csv.DictReader(io.StringIO(content.decode())))
        kept = [{name: cell for name, cell in row.items() if "seconds" not in name} for row in rows]
        content = repr(kept).encode()
    return hashlib.sha256(content).hexdigest()


def results_of(folder: Path) -> dict[str, str]:
    files = sorted({path for pattern in COMPARED for path in (folder / "results").rglob(pattern)})
    return {str(path.relative_to(folder)): digest(path) for path in files if path.name not in LEFT_OUT}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("before", type=Path, help="a checkout")
    parser.add_argument("after", type=Path, help="another checkout")
    parser.add_argument("--keep", type=Path, help="folder to run in, which is kept")
    options = parser.parse_args()
    checkouts = {"before": options.before.resolve(), "after": options.after.resolve()}
    with tempfile.TemporaryDirectory() as temporary:
        root = options.keep or Path(temporary)
        root.mkdir(parents=True, exist_ok=True)
        space, table = Path(__file__).parent / "same_results_space.yaml", (root / "tiny.json").resolve()
        asked = ("--resolution", "16", "--batch-size", "8", "--num-classes", "10", "--minutes", "0.05")
        if not table.exists():
            profile = (str(BIN / "tfnas"), "profile", "--space", str(space), *asked, "--out", str(table))
            call(checkouts["before"], root, *profile)
        found = {}
        for name, checkout in checkouts.items():
            for engine, command in ENGINES.items():
                folder = root / f"{name}-{engine}"
                make_project(checkout, folder, space, table)
                call(checkout, folder, *command)
                found[f"{name}, {engine}"] = results_of(folder)
                print(f"{name}, {engine}: {len(found[f'{name}, {engine}'])} files", flush=True)
    first, *others = found
    paths = sorted({path for files in found.values() for path in files})
    different = [path for path in paths if any(found[name].get(path) != found[first].get(path) for name in others)]
    for path in paths:
        print(f"{'DIFFERENT' if path in different else 'same':9}  {path}")
    print(f"{len(paths) - len(different)} of {len(paths)} files are the same in {len(found)} runs")
    sys.exit(1 if different else 0)


if __name__ == "__main__":
    main()
