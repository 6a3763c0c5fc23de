"""Pack a finished profile as a table that ships with tfnas (`tfnas table list`), or measure and pack those of `PLAN`.

    python benchmarks/latency/ship_table.py pack results/profile_latency --name tf-nas-tiny-epyc-torch --commit abc
    python benchmarks/latency/ship_table.py measure     # on an idle machine, 10 minutes a table; resumes when killed

`measure` refuses a busy machine. Commit what it writes into tfnas/tables/data.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from measured import full_table, profile_params

from tfnas.jobs.artifacts import git_commit
from tfnas.latency import LatencyTable
from tfnas.space import load_space
from tfnas.tables.shipped import FOLDER, pack, write_packed

PLAN = {  # name: space, backend, threads; at the space's own resolution
    "tf-nas-epyc-torch": ("tf-nas", "torch-eager", 1),
    "tf-nas-epyc-torch-2-threads": ("tf-nas", "torch-eager", 2),
    "tf-nas-epyc-onnx": ("tf-nas", "onnx-runtime", 1),
    "tf-nas-wose-epyc-torch": ("tf-nas-wose", "torch-eager", 1),
    "tf-nas-wose-epyc-onnx": ("tf-nas-wose", "onnx-runtime", 1),
}


def measure(name: str, work: Path) -> None:
    """Profile one table of the plan, unless that was done; killed, it resumes."""
    space_name, backend, threads = PLAN[name]
    space = load_space(space_name)
    full_table(space, profile_params(backend, threads=threads), work / name)
    write_packed(pack(work / name, space, commit=git_commit() or "unknown"), FOLDER / f"{name}.json")


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
