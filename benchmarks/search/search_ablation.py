"""Elasticity-scaling on and off, bi-sampling against one path, over several seeds (Fig. 2 and 4b in small).

python benchmarks/search/search_ablation.py --results results --seeds 5 --out ablation

RESULTS must hold the stages before `search`, as after `make run`; each search is the pipeline's own, of the first
target. Searches that OUT holds are not repeated. Writes OUT/ablation.csv and OUT/search_ablation.png, and prints what
the paper's figures say here.

Widths vary by a factor of two, so a derived network that is much too small or too large cannot be brought to the
target; how often that was so is printed too.
"""

from __future__ import annotations

import argparse
import csv
import math
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch

from tfnas.compute.seeding import derive_seed
from tfnas.data import ImageDataset, eval_transform, image_root, make_loader, read_samples, train_transform
from tfnas.search import Loaders, Setting, WarmUp, run_warm_up, search
from tfnas.search.constraint import Constraint, read_constraint
from tfnas.search.derivation.strongest import searchable_layers
from tfnas.search.result import EpochRecord
from tfnas.search.scaling.widths import WidthProblem
from tfnas.space.membership import assemble
from tfnas.stages.params import Params, load_params

VARIANTS = {
    "bi-sampling, scaled": {},
    "bi-sampling, not scaled": {"elasticity_scaling": False},
    "one path, scaled": {"second_path": "none"},
}
WITHIN_PERCENT = 0.5


def loaders(params: Params, results: Path, seed: int) -> Loaders:
    """As the search job's: the 80 % augmented, the 20 % plain."""
    root = image_root(params.prepare_data.root, results / "build_subset" / "images")
    transforms = train_transform(params.resolution, params.search.augmentation), eval_transform(params.resolution)
    seed = derive_seed(seed, "search", "loader")
    parts = [
        make_loader(
            ImageDataset(
                root,
                read_samples(results / "build_subset" / name),
                transform,
                exif=params.prepare_data.exif,
            ),
            params.search.batch_size,
            shuffle=True,
            seed=seed,
            drop_last=True,
        )
        for name, transform in zip(("train.csv", "val.csv"), transforms, strict=True)
    ]
    num_classes = 1 + max(label for _, label in read_samples(results / "build_subset" / "train.csv"))
    return Loaders(*parts, num_classes)


def searched(
    params: Params, results: Path, seeds: int, constraint: Constraint, done: set[tuple[str, int]]
) -> Iterator[dict[str, Any]]:
    """A row per searching epoch of every variant and seed; the variants of a seed start from one warm-up."""
    for seed in range(seeds):
        left = [name for name in VARIANTS if (name, seed) not in done]
        if not left:
            continue
        warm_up: WarmUp | None = None
        for name in left:
            setting = Setting(params.search.model_copy(update=VARIANTS[name]), seed, name=name)
            batches = loaders(params, results, seed)
            if warm_up is None:
                warm_up = run_warm_up(constraint.space, batches, setting)
            found = search(constraint, batches, setting, warm_up=warm_up)
            for record in found.history[setting.params.warmup_epochs :]:
                low, high = reachable_ms(constraint, record)
                row = {"variant": name, "seed": seed, "low_ms": low, "high_ms": high, **record.row()}
                yield row
            print(f"{name}, seed {seed}: done", flush=True)


def reachable_ms(constraint: Constraint, record: EpochRecord) -> tuple[float, float]:
    """Latency of an epoch's derived network with all widths at their smallest, at their largest."""
    space = constraint.space
    candidates = {candidate.name: candidate for candidate in space.candidates}
    choices: dict[int, list[Any]] = {stage.stage: [] for stage in space.searchable_stages}
    ranges = [(s.fixed.width(s.in_channels),) * 2 for s in space.stages if s.fixed is not None]
    for layer in searchable_layers(space):
        if layer.position <= int(record.derived[f"stage{layer.stage}_depth"]):
            candidate = candidates[str(record.derived[f"stage{layer.stage}_layer{layer.position}_op"])]
            ranges.append(candidate.width_range(layer.in_channels))
            choices[layer.stage].append((candidate, ranges[-1][0]))
    problem = WidthProblem(assemble(space, "x", choices), constraint.cost, ranges)
    return problem.cost(problem.low), problem.cost(problem.high)


def operation_entropy(rows: Sequence[dict[str, Any]]) -> float:
    """Entropy in nats of the derived operations of a search, counted over its epochs, mean over the layers."""
    entropies = []
    for column in (name for name in rows[0] if name.endswith("_op")):
        counts = Counter(row[column] for row in rows)
        entropies.append(-sum(n / len(rows) * math.log(n / len(rows)) for n in counts.values()))
    return sum(entropies) / len(entropies)


def summarize(rows: Sequence[dict[str, Any]], seeds: int) -> None:
    for name in VARIANTS:
        own = [row for row in rows if row["variant"] == name]
        gaps = [100 * (float(r["derived_latency_after_ms"]) / float(r["target_ms"]) - 1) for r in own]
        reaches = [float(r["low_ms"]) <= float(r["target_ms"]) <= float(r["high_ms"]) for r in own]
        close = [abs(gap) <= WITHIN_PERCENT for gap in gaps]
        reached = [c for c, reach in zip(close, reaches, strict=True) if reach]
        entropies = [operation_entropy([r for r in own if int(r["seed"]) == seed]) for seed in range(seeds)]
        alpha = [[float(r["alpha_entropy"]) for r in own if int(r["seed"]) == seed][-1] for seed in range(seeds)]
        print(
            f"{name:24} epochs {len(own)}, within {WITHIN_PERCENT} %: {sum(close)}"
            f" ({sum(reached)} of {len(reached)} where its widths can reach the target);"
            f" gap {min(gaps):+.1f} to {max(gaps):+.1f} %;"
            f" entropy of derived operations {sum(entropies) / seeds:.3f}"
            f" ({', '.join(f'{e:.2f}' for e in entropies)}), of alpha at the end {sum(alpha) / seeds:.3f}"
        )


def plot(rows: Sequence[dict[str, Any]], path: Path) -> None:
    import matplotlib.pyplot as plt

    figure, (left, right) = plt.subplots(1, 2, figsize=(8, 3), layout="constrained")
    colors = {"bi-sampling, scaled": "#2c69b0", "bi-sampling, not scaled": "#c0602a"}
    for name, color in colors.items():
        for seed in sorted({row["seed"] for row in rows}):
            own = [row for row in rows if row["variant"] == name and row["seed"] == seed]
            values = [float(row["derived_latency_after_ms"]) for row in own]
            left.plot(
                [int(row["epoch"]) for row in own], values, color=color, lw=1, label=name if seed == "0" else None
            )
    left.axhline(float(rows[0]["target_ms"]), color="#b4374b", ls="--", lw=1)
    left.set(title="Derived latency after each epoch, ms", xlabel="epoch")
    left.legend(frameon=False, fontsize=8)
    for name, color in (("bi-sampling, scaled", "#2c69b0"), ("one path, scaled", "#7e53a6")):
        epochs = sorted({int(row["epoch"]) for row in rows})
        own = [row for row in rows if row["variant"] == name]
        each = [[float(row["alpha_entropy"]) for row in own if int(row["epoch"]) == epoch] for epoch in epochs]
        right.plot(epochs, [sum(values) / len(values) for values in each], color=color, label=name)
        right.fill_between(epochs, [min(v) for v in each], [max(v) for v in each], color=color, alpha=0.2, lw=0)
    right.set(title="Entropy of α, nats (mean and range)", xlabel="epoch")
    right.legend(frameon=False, fontsize=8)
    figure.savefig(path, dpi=90)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--params", type=Path, default=Path("params.yaml"))
    parser.add_argument("--results", type=Path, default=Path("results"))
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--out", type=Path, default=Path("ablation"))
    options = parser.parse_args()
    torch.set_num_threads(1)
    params = load_params(options.params)
    constraint = read_constraint(
        params, next(iter(params.targets)), options.results / "profile_latency" / "latency_table.json"
    )
    options.out.mkdir(exist_ok=True)
    path, done = options.out / "ablation.csv", set[tuple[str, int]]()
    if path.exists():
        with path.open(newline="") as file:
            done = {(row["variant"], int(row["seed"])) for row in csv.DictReader(file)}
    with path.open("a", newline="") as file:
        writer = None
        for row in searched(params, options.results, options.seeds, constraint, done):
            writer = writer or csv.DictWriter(file, list(row))
            if file.tell() == 0:
                writer.writeheader()
            writer.writerow(row)
            file.flush()
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    summarize(rows, options.seeds)
    plot(rows, options.out / "search_ablation.png")


if __name__ == "__main__":
    main()
