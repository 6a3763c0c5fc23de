"""Pack a finished profile as a table that ships with tfnas (`tfnas table list`), or measure and pack those of `PLAN`.

    python benchmarks/latency/ship_table.py pack results/profile_latency --name tf-nas-tiny-epyc-torch --commit abc
    python benchmarks/latency/ship_table.py measure     # on an idle machine, 10 minutes a table; resumes when killed

`measure` refuses a busy machine. Commit what it writes into tfnas/tables/data.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from measured import DEVICES, full_table, profile_params

from tfnas.jobs.artifacts import git_commit
from tfnas.latency import LatencyTable
from tfnas.space import load_space
from tfnas.tables.shipped import FOLDER, pack, write_packed

PLAN = (  # space, at its own resolution, and device
    ("tf-nas", "torch"),
    ("tf-nas", "torch-2-threads"),
    ("tf-nas", "onnx"),
    ("tf-nas-wose", "torch"),
    ("tf-nas-wose", "onnx"),
)


def measure(space_name: str, device: str, work: Path, minutes: float) -> None:
    """Profile one table of the plan, unless that was done; killed, it resumes."""
    space, folder = load_space(space_name), work / f"{space_name}-{device}"
    full_table(space, profile_params(**DEVICES[device], minutes=minutes), folder)
    packed = pack(folder, space, commit=git_commit() or "unknown")
    write_packed(packed, FOLDER / f"{space_name}-epyc-{device}.json")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    packing = commands.add_parser("pack")
    packing.add_argument("profile", type=Path)
    packing.add_argument("--name", required=True)
    packing.add_argument("--commit", required=True)
    measuring = commands.add_parser("measure")
    measuring.add_argument("--work", type=Path, default=Path("out/shipped_tables"))
    measuring.add_argument("--minutes", type=float, default=10.0, help="a table (default: 10)")
    options = parser.parse_args()
    if options.command == "measure":
        for space_name, device in PLAN:
            measure(space_name, device, options.work, options.minutes)
        return
    space = load_space(LatencyTable.load(options.profile / "latency_table.json").space)
    write_packed(pack(options.profile, space, commit=options.commit), FOLDER / f"{options.name}.json")


if __name__ == "__main__":
    main()
