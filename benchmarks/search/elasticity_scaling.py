"""How near elasticity-scaling comes to its target, and how long a call takes, on random networks of Table 1.

python benchmarks/search/elasticity_scaling.py --table latency_gpu.pkl
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from tfnas.authors import read_latency_table
from tfnas.latency import LatencyTable
from tfnas.search import Latency, ScalingResult, latency_constraint, scale_widths, scale_widths_by_integer_ratio
from tfnas.search.scaling.widths import WidthProblem, WidthRanges
from tfnas.space import Architecture, Space, load_space
from tfnas.space.membership import Choice, assemble

AUTHORS_TABLE = Path(__file__).parents[3] / "shared/authors/latency_gpu.pkl"
VARIANTS = {"exact": scale_widths, "integer_ratio": scale_widths_by_integer_ratio}

Case = tuple[Architecture, WidthRanges, float]


def draw_case(space: Space, table: LatencyTable, random: np.random.Generator) -> Case:
    """A random network, its width ranges, and a random target that its widths can reach."""
    choices: dict[int, list[Choice]] = {}
    ranges = [(s.fixed.width(s.in_channels),) * 2 for s in space.stages if s.fixed is not None]
    for stage in space.searchable_stages:
        choices[stage.stage] = []
        for position in range(random.integers(1, stage.max_depth + 1)):
            candidate = space.candidates[random.integers(len(space.candidates))]
            low, high = candidate.width_range(stage.out_channels if position else stage.in_channels)
            choices[stage.stage].append((candidate, int(random.integers(low, high + 1))))
            ranges.append((low, high))
    architecture = assemble(space, "random", choices)
    problem = WidthProblem(architecture, Latency(table), ranges)
    target_ms = random.uniform(problem.cost(problem.low), problem.cost(problem.high))
    return architecture, ranges, target_ms


def measure(
    scale: Callable[..., ScalingResult], cases: Sequence[Case], table: LatencyTable, space: Space
) -> tuple[np.ndarray, np.ndarray]:
    """Gap to the target in percent (negative: above it), and duration in ms: the best of three calls."""
    gaps, durations = [], []
    for architecture, ranges, target_ms in cases:
        tries = []
        for _ in range(3):
            begin = time.perf_counter()
            result = scale(architecture, latency_constraint(space, table, target_ms), ranges=ranges)
            tries.append(1e3 * (time.perf_counter() - begin))
        durations.append(min(tries))
        gaps.append(100.0 * (1.0 - table.latency_ms(result.architecture) / target_ms))
    return np.array(gaps), np.array(durations)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--table", type=Path, default=AUTHORS_TABLE, help="latency pickle of the authors, or ours")
    parser.add_argument("--networks", type=int, default=1000, metavar="N")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    is_ours = options.table.suffix == ".json"
    table = LatencyTable.load(options.table) if is_ours else read_latency_table(options.table)
    space, random = load_space(table.space), np.random.default_rng(options.seed)
    cases = [draw_case(space, table, random) for _ in range(options.networks)]
    print(f"{len(cases)} networks of {space.name}, {table.device}, seed {options.seed}")
    for name, scale in VARIANTS.items():
        gaps, durations = measure(scale, cases, table, space)
        print(
            f"{name:13}  above the target: {(gaps < 0).sum()}"
            f"  gap: median {np.median(gaps):.5f} %, 99th {np.percentile(gaps, 99):.4f} %, worst {gaps.max():.4f} %"
            f"  call: median {np.median(durations):.2f} ms, 99th {np.percentile(durations, 99):.2f} ms,"
            f" worst {durations.max():.2f} ms"
        )


if __name__ == "__main__":
    main()
