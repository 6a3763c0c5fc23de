"""Pack a finished profile as a table that ships with tfnas (`tfnas table list`), or measure and pack those of `PLAN`.

    python benchmarks/latency/ship_table.py pack results/profile_latency --name tf-nas-tiny-epyc-torch --commit abc
    python benchmarks/latency/ship_table.py measure     # on an idle machine, 10 minutes a table; resumes when killed

`measure` refuses a busy machine. Commit what it writes into tfnas/tables/data.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from tfnas.jobs.artifacts import git_commit
from tfnas.latency import LatencyTable
from tfnas.latency.measuring import Measuring
from tfnas.latency.params import ProfileLatencyParams
from tfnas.latency.validation import write_validation
from tfnas.space import load_space
from tfnas.stages.profile_latency import profile
from tfnas.tables.shipped import FOLDER, pack, write_packed

PLAN = {  # name: space, backend, threads; at the space's own resolution
    "tf-nas-epyc-torch": ("tf-nas", "torch-eager", 1),
    "tf-nas-epyc-torch-2-threads": ("tf-nas", "torch-eager", 2),
    "tf-nas-epyc-onnx": ("tf-nas", "onnx-runtime", 1),
    "tf-nas-wose-epyc-torch": ("tf-nas-wose", "torch-eager", 1),
    "tf-nas-wose-epyc-onnx": ("tf-nas-wose", "onnx-runtime", 1),
}
MINUTES = 10.0


def measure(name: str, work: Path) -> None:
    """Profile one table of the plan, unless that was done; killed, it resumes."""
    folder = work / name
    space_name, backend, threads = PLAN[name]
    space = load_space(space_name)
    if not (folder / "validation.csv").exists():
        params = full_profile(backend, threads)
        folder.mkdir(parents=True, exist_ok=True)
        measuring = Measuring(params, space=space.digest, resolution=space.resolution, journal=folder / "visits.jsonl")
        table, rows = profile(space, measuring, seed=0)
        table.save(folder / "latency_table.json")
        write_validation(rows, folder / "validation.csv")
        measuring.discard()
    write_packed(pack(folder, space, commit=git_commit() or "unknown"), FOLDER / f"{name}.json")


def full_profile(
    backend: str, threads: int, *, minutes: float = MINUTES, networks: int = 32, on_busy: str = "refuse"
) -> ProfileLatencyParams:
    """One CPU, float32, batch 1, ImageNet's classes."""
    return ProfileLatencyParams(
        table=None,
        device="cpu",
        backend=backend,
        precision="float32",
        channels_last=False,
        threads=threads,
        batch_size=1,
        num_classes=1000,
        minutes=minutes,
        tolerance=0.01,
        warmup_runs=2,
        repeats=8,
        validation_networks=networks,
        calibrated=True,
        on_busy=on_busy,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    packing = commands.add_parser("pack")
    packing.add_argument("profile", type=Path)
    packing.add_argument("--name", required=True)
    packing.add_argument("--commit", required=True)
    measuring = commands.add_parser("measure")
    measuring.add_argument("--work", type=Path, default=Path("out/shipped_tables"))
    measuring.add_argument("--only", choices=list(PLAN), nargs="+", default=list(PLAN))
    options = parser.parse_args()
    if options.command == "measure":
        for name in options.only:
            measure(name, options.work)
        return
    space = load_space(LatencyTable.load(options.profile / "latency_table.json").space)
    write_packed(pack(options.profile, space, commit=options.commit), FOLDER / f"{options.name}.json")


if __name__ == "__main__":
    main()
