"""The paper's Table 2 on your own device: the published networks and torchvision's, measured side by side."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from torch import Tensor, nn

from tfnas.jobs.artifacts import write_text
from tfnas.jobs.errors import UserError
from tfnas.latency.backends import Backend
from tfnas.latency.table import LatencyTable
from tfnas.latency.timing import Probe, Timer, Timing, measuring, time_probes
from tfnas.space import Architecture, build_network, count_macs, count_params, zoo

NUM_CLASSES = 1000
TORCHVISION = (  # mobile networks; weights IMAGENET1K_V1, whose training is nearest to the paper's
    "mobilenet_v2",
    "mobilenet_v3_small",
    "mobilenet_v3_large",
    "mnasnet0_5",
    "mnasnet1_0",
    "efficientnet_b0",
    "shufflenet_v2_x0_5",
    "shufflenet_v2_x1_0",
    "regnet_x_400mf",
    "regnet_y_400mf",
)
COLUMNS = ("network", "latency_ms", "spread_ms", "table_ms", "macs", "params", "published_top1", "source")


@dataclass(frozen=True)
class Baseline:
    """A network to compare with, and what is published about it."""

    name: str
    build: Callable[[], nn.Module]
    macs: int  # of one image: convolutions and linear layers
    params: int
    top1: float  # percent on ImageNet at 224 x 224, as `source` gives it
    source: str
    architecture: Architecture | None = None  # of the networks of the paper


@dataclass(frozen=True)
class Conditions:
    """How every network is measured."""

    threads: int
    batch_size: int
    resolution: int
    repeats: int
    seed: int  # of the order


@dataclass(frozen=True)
class Compared:
    """A network as measured on this device; `table_ms` where a table has its operations."""

    baseline: Baseline
    timing: Timing
    table_ms: float | None


def paper_baselines(resolution: int) -> list[Baseline]:
    """The twelve networks of the paper, with its top-1 (Tables 9 and 11)."""
    return [_paper_baseline(name, resolution) for name in zoo.names()]


def _paper_baseline(name: str, resolution: int) -> Baseline:
    architecture, published = zoo.load(name), zoo.published(name)
    return Baseline(
        name=name,
        build=partial(build_network, architecture, NUM_CLASSES),
        macs=count_macs(architecture, resolution, NUM_CLASSES),
        params=count_params(architecture, NUM_CLASSES),
        top1=published.top1,
        source=f"TF-NAS paper Table {11 if 'MBV2' in name else 9}",
        architecture=architecture,
    )


def torchvision_baselines(resolution: int) -> list[Baseline]:
    """Comparable networks of torchvision with fresh weights (nothing is downloaded), and its published top-1."""
    return [_torchvision_baseline(name, resolution) for name in TORCHVISION]


def _torchvision_baseline(name: str, resolution: int) -> Baseline:
    from torchvision.models import get_model, get_model_weights

    build = partial(get_model, name, weights=None)
    weights = get_model_weights(name)["IMAGENET1K_V1"]
    module = build().eval()
    return Baseline(
        name=name,
        build=build,
        macs=count_module_macs(module, resolution),
        params=sum(parameter.numel() for parameter in module.parameters()),
        top1=float(weights.meta["_metrics"]["ImageNet-1K"]["acc@1"]),
        source="torchvision IMAGENET1K_V1",
    )


def count_module_macs(module: nn.Module, resolution: int) -> int:
    """Multiply-adds of one image through the module's convolutions and linear layers; no biases, as in `count_macs`.

    Args:
        module: on the meta device or the CPU, in eval mode.
    """
    total = 0

    def count(layer: nn.Module, inputs: object, output: Tensor) -> None:
        nonlocal total
        per_output = layer.weight[0].numel()  # type: ignore[index]  # kernel x kernel x channels of a group
        total += output[0].numel() * int(per_output)

    hooks = [m.register_forward_hook(count) for m in module.modules() if isinstance(m, (nn.Conv2d, nn.Linear))]
    device = next(module.parameters()).device
    with torch.no_grad():
        module(torch.zeros(1, 3, resolution, resolution, device=device))
    for hook in hooks:
        hook.remove()
    return total


def compare(
    baselines: Sequence[Baseline],
    backend: Backend,
    timer: Timer,
    conditions: Conditions,
    table: LatencyTable | None = None,
) -> list[Compared]:
    """Measure every network, interleaved in rounds of random order; fastest first."""
    shape = (conditions.batch_size, 3, conditions.resolution, conditions.resolution)
    with measuring(conditions.threads):
        timings = time_probes(
            {baseline.name: Probe(baseline.build, shape) for baseline in baselines},
            timer=timer,
            backend=backend,
            repeats=conditions.repeats,
            seed=conditions.seed,
            label="networks",
        )
    rows = [Compared(baseline, timings[baseline.name], table_ms(baseline, table)) for baseline in baselines]
    return sorted(rows, key=lambda row: row.timing.median_ms)


def table_ms(baseline: Baseline, table: LatencyTable | None) -> float | None:
    """The latency of a network by the table; None where it is outside the table's space."""
    if table is None or baseline.architecture is None or baseline.architecture.space != table.space:
        return None
    try:
        return table.latency_ms(baseline.architecture)
    except UserError:  # a width that the table does not reach
        return None


def write_comparison(rows: Sequence[Compared], path: str | Path) -> None:
    """Write CSV: `COLUMNS`, one row per network; `table_ms` is empty where there is none."""
    lines = [",".join(COLUMNS)]
    for row in rows:
        baseline, timing = row.baseline, row.timing
        by_table = "" if row.table_ms is None else f"{row.table_ms:.6f}"
        cells = (baseline.name, f"{timing.median_ms:.6f}", f"{timing.spread_ms:.6f}", by_table)
        lines.append(
            ",".join([*cells, str(baseline.macs), str(baseline.params), f"{baseline.top1:.3f}", baseline.source])
        )
    write_text(path, "\n".join(lines) + "\n")
