"""How near the network derived within the budget comes to its target after scaling, and how long a call takes.

python benchmarks/search/derivation.py --table latency_gpu.pkl --uneven 0.2
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from tfnas.authors import read_latency_table
from tfnas.latency import Curve, LatencyTable, reachable_range_ms
from tfnas.search import Constraint, latency_constraint, scale_widths
from tfnas.search.derivation.strongest import derive, searchable_layers
from tfnas.search.derivation.within_budget import can_be_filled, derive_within_budget
from tfnas.search.supernet.depth_spaces import DEPTH_SPACES
from tfnas.space import Space, load_space

AUTHORS_TABLE = Path(__file__).parents[3] / "shared/authors/latency_gpu.pkl"
ALIGNMENT = 8  # of --uneven


class Case(NamedTuple):
    """A random alpha, beta, current widths and target."""

    constraint: Constraint
    alphas: Tensor
    betas: list[Tensor]
    widths: list[list[int]]


def draw_case(space: Space, table: LatencyTable, depth_space: str, random: np.random.Generator) -> Case:
    """Alpha and beta between undecided and sharp, widths anywhere, a target in 5 to 95 % of the reachable range."""
    layers, kind = searchable_layers(space), DEPTH_SPACES[depth_space]
    sharpness, columns = random.choice([0.1, 1.0, 3.0]), len(space.candidates) + kind.skip_is_candidate
    alphas = torch.tensor(sharpness * random.standard_normal((len(layers), columns)))
    shapes = [kind.initial_beta(stage.max_depth).shape for stage in space.searchable_stages]
    betas = [torch.tensor(sharpness * random.standard_normal(shape)) for shape in shapes]
    ranges = [[candidate.width_range(layer.in_channels) for candidate in space.candidates] for layer in layers]
    widths = [[int(random.integers(low, high + 1)) for low, high in row] for row in ranges]
    low, high = reachable_range_ms(space, table)
    target_ms = low + random.uniform(0.05, 0.95) * (high - low)
    return Case(latency_constraint(space, table, target_ms), alphas, betas, widths)


def measure(cases: Sequence[Case], depth_space: str, *, within: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Gap to the target in percent after scaling (negative: above it), duration in ms, whether it can be filled."""
    gaps, durations, filled = [], [], []
    for constraint, alphas, betas, widths in cases:
        begin = time.perf_counter()
        if within == "budget":
            derived = derive_within_budget(constraint, alphas, betas, widths, "x", depth_space)
        else:
            derived = derive(constraint.space, alphas, betas, widths, "x", depth_space)
        durations.append(1e3 * (time.perf_counter() - begin))
        filled.append(can_be_filled(derived, constraint))
        ranges = derived.width_ranges(constraint.space)
        gaps.append(
            100.0 * (1.0 - scale_widths(derived.architecture, constraint, ranges=ranges).cost_after / constraint.limit)
        )
    return np.array(gaps), np.array(durations), np.array(filled)


def make_uneven(table: LatencyTable, share: float) -> LatencyTable:
    """The table of a device that is slower by a share where the width is not a multiple of 8."""
    curves = {}
    for key, curve in table.curves.items():
        widths = np.arange(curve.widths[0], curve.widths[-1] + 1)
        latencies_ms = curve.dense_ms * np.where(widths % ALIGNMENT == 0, 1.0, 1.0 + share)
        curves[key] = Curve(tuple(widths.tolist()), tuple(latencies_ms.tolist()))
    return replace(table, curves=curves)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--table", type=Path, default=AUTHORS_TABLE, help="latency pickle of the authors, or ours")
    parser.add_argument("--uneven", type=float, default=0.0, metavar="SHARE", help="slow down odd widths")
    parser.add_argument("--cases", type=int, default=200, metavar="N")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    table = LatencyTable.load(options.table) if options.table.suffix == ".json" else read_latency_table(options.table)
    space = load_space(table.space)
    table = make_uneven(table, options.uneven) if options.uneven else table
    print(f"{options.cases} cases, {space.name}, {table.device}, uneven {options.uneven}, seed {options.seed}")
    for depth_space in DEPTH_SPACES:
        random = np.random.default_rng(options.seed)
        cases = [draw_case(space, table, depth_space, random) for _ in range(options.cases)]
        for within in ("strongest", "budget"):
            gaps, durations, filled = measure(cases, depth_space, within=within)
            print(
                f"{depth_space:8} {within:9}  can be filled: {filled.sum()}  above: {(gaps < 0).sum()}"
                f"  within 1 % under: {100 * ((gaps >= 0) & (gaps <= 1)).mean():5.1f} %"
                f"  gap: median {np.median(gaps):.4f} %, worst {gaps.max():.2f} %,"
                f" of those that can be filled {gaps[filled].max():.2f} %"
                f"  call: median {np.median(durations):.1f} ms, worst {durations.max():.1f} ms"
            )


if __name__ == "__main__":
    main()
