"""Which cheap measure ranks networks as training them does: the supernet, a short tuning from it, a short training.

cd PROJECT; python .../benchmarks/search/proxies.py run --out proxies.csv      # resumes
cd PROJECT; python .../benchmarks/search/proxies.py summary --lines proxies.csv

Reads a finished run with `baselines`. Each of its random networks is trained for a few epochs on the images that
train the supernet's weights, by SGD with one cosine to 0, without augmentation: once from the weights and widths that
it has in the target's searched supernet (`retrain.initial: inherited` starts so), once from scratch; `warm_up` is the
supernet that the search began with. Top-1 on all
images that train alpha, with running statistics; for 0 epochs, BatchNorm's are estimated from one epoch of images, and
no weight changes. The summary correlates each with the mean top-1 over `retrain.seeds` on the validation images. Give
PYTHONPATH the library that wrote the run.
"""

from __future__ import annotations

import argparse
import csv
import itertools
import json
import math
import statistics
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn import functional

from tfnas.compute.devices import open_device
from tfnas.data import image_root, read_samples
from tfnas.latency.params import KNOWN, baseline_kind
from tfnas.report.ranking import agreement_of_seeds, rank_agreement
from tfnas.search.constraint import read_constraint
from tfnas.search.derivation.inheritance import inherited_state
from tfnas.search.random_networks import random_baseline
from tfnas.search.result import load_warm_up, read_searched
from tfnas.search.session import held_out_loader
from tfnas.search.state import SearchState, Setting
from tfnas.space import build_network
from tfnas.stages.params import Params, load_params

RESULTS = Path("results")
COLUMNS = ("target", "network", "start", "epochs", "top1_percent")
STARTS = {
    "warm_up": {0: 0.0},
    "supernet": {0: 0.0, 1: 0.02, 2: 0.02, 4: 0.05},
    "scratch": {1: 0.05, 2: 0.05, 4: 0.05},
}  # learning rates


def random_names(params: Params) -> list[str]:
    return [name for name in params.baselines.networks if baseline_kind(name) != KNOWN]


def held_batches(params: Params, file: str) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """All images of a file in whole batches, as evaluation sees them."""
    device = open_device("cpu", 1)
    root = image_root(params.prepare_data.root, RESULTS / "build_subset" / "images")
    return [
        (batch[0].contiguous(memory_format=torch.channels_last), batch[1])
        for batch in held_out_loader(params, read_samples(RESULTS / "build_subset" / file), root, device)
    ]


def tune(network: nn.Module, batches: list[Any], epochs: int, rate: float) -> None:
    """SGD with momentum 0.9 and weight decay 1e-5; 0 epochs estimate BatchNorm's statistics only."""
    network.train()
    if epochs == 0:
        with torch.no_grad():
            for images, _ in batches:
                network(images)
        return
    optimizer = torch.optim.SGD(network.parameters(), lr=rate, momentum=0.9, weight_decay=1e-5)
    order, step, steps = torch.Generator().manual_seed(0), 0, epochs * len(batches)
    for _ in range(epochs):
        for index in torch.randperm(len(batches), generator=order).tolist():
            optimizer.param_groups[0]["lr"] = rate * 0.5 * (1 + math.cos(math.pi * step / steps))
            images, labels = batches[index]
            optimizer.zero_grad(set_to_none=True)
            functional.cross_entropy(network(images), labels).backward()
            nn.utils.clip_grad_norm_(network.parameters(), 5.0)
            optimizer.step()
            step += 1


def top1(network: nn.Module, batches: list[Any]) -> float:
    network.eval()
    with torch.no_grad():
        correct = sum(int((network(images).argmax(-1) == labels).sum()) for images, labels in batches)
    return 100.0 * correct / sum(len(labels) for _, labels in batches)


def measured(params: Params, target: str, done: set[tuple[str, ...]]) -> Iterator[tuple[Any, ...]]:
    """A line per network, start and number of epochs that is not done."""
    constraint = read_constraint(params, target, RESULTS / "profile_latency" / "latency_table.json")
    searched = read_searched(RESULTS / "search" / target / "supernet.pt", constraint, target)
    setting = Setting(params.search, params.seed, open_device("cpu", 1), "float32")
    training, held = held_batches(params, "train.csv"), held_batches(params, "val.csv")
    for name in random_names(params):
        derived = random_baseline(constraint, target, name, params.seed)
        for start, rates in STARTS.items():
            for epochs, rate in rates.items():
                if (target, name, start, str(epochs)) in done:
                    continue
                torch.manual_seed(0)
                network = build_network(derived.architecture, searched.num_classes)
                if start != "scratch":
                    state = SearchState(searched.build_supernet(), setting)  # anew: it takes the network's widths
                    if start == "warm_up":
                        state = SearchState.initial(constraint.space, searched.num_classes, setting)
                        state.begin_after(load_warm_up(RESULTS / "warm_up" / "supernet.pt", constraint.space, {}).state)
                    state.apply_widths(derived, derived.architecture)
                    network.load_state_dict(inherited_state(state.supernet, derived))
                network = network.to(memory_format=torch.channels_last)
                tune(network, training, epochs, rate)
                yield target, name, start, epochs, f"{top1(network, held):.3f}"


def run(options: argparse.Namespace) -> None:
    params = load_params("params.yaml")
    done = set()
    if options.out.exists():
        done = {tuple(line[name] for name in COLUMNS[:4]) for line in read(options.out)}
    else:
        options.out.write_text(",".join(COLUMNS) + "\n")
    for target in params.targets:
        for line in measured(params, target, done):
            with options.out.open("a") as file:
                file.write(",".join(map(str, line)) + "\n")


def read(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def trained(target: str, name: str) -> list[float]:
    """Top-1 of each seed; empty if it was not trained."""
    path = RESULTS / "train_baseline" / target / name / "seeds.csv"
    return [float(row["top1_percent"]) for row in read(path)] if path.exists() else []


def summary(options: argparse.Namespace) -> None:
    """Spearman and Kendall of every proxy with the trained accuracy, per target and kind of network.

    And what there is to predict: the Spearman correlation of one seed's trainings with the others'.
    """
    lines = [(line["target"], line["network"], f"{line['start']} {line['epochs']}", float(line["top1_percent"]))
             for line in read(options.lines)]  # fmt: skip
    for target in dict.fromkeys(line[0] for line in lines):
        searched = read(RESULTS / "rank_baselines" / target / "supernet_top1.csv")
        lines += [(target, row["network"], "in the supernet", float(row["top1_percent"])) for row in searched]
        scaled = {
            row["network"]: RESULTS / "scale_baseline" / target / row["network"] / "metrics.json" for row in searched
        }
        macs = {name: json.loads(path.read_text())["macs"] for name, path in scaled.items() if path.exists()}
        lines += [(target, name, "multiply-adds", float(value)) for name, value in macs.items()]
    proxies = list(dict.fromkeys(line[2] for line in lines))
    seeds_of = {(target, name): trained(target, name) for target, name, _, _ in lines}
    kinds_of_interest = (["random"], ["any"], ["random", "any"])
    for target, kinds in itertools.product(dict.fromkeys(line[0] for line in lines), kinds_of_interest):
        names = {name for own, name, _, _ in lines if own == target and baseline_kind(name) in kinds}
        seeds = [seeds_of[target, name] for name in sorted(names) if seeds_of[target, name]]
        if (again := agreement_of_seeds(seeds)) is not None:
            print(f"{target} {'+'.join(kinds):10} n {len(seeds):2}  {'one seed':16} Spearman {again:5.2f}")
        for proxy in proxies:
            pairs = [
                (value, statistics.fmean(seeds_of[target, name]))
                for own, name, by, value in lines
                if own == target and by == proxy and baseline_kind(name) in kinds and seeds_of[target, name]
            ]
            if len(pairs) < 4:
                continue
            found, final = zip(*pairs, strict=True)
            agreement = rank_agreement(found, final)
            assert agreement is not None  # no proxy is alike for all
            print(f"{target} {'+'.join(kinds):10} n {len(pairs):2}  {proxy:16}"
                  f" Spearman {agreement.spearman:5.2f}  Kendall {agreement.kendall:5.2f}"
                  f"  spread {statistics.stdev(found):.2f}")  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    steps = parser.add_subparsers(dest="step", required=True)
    step = steps.add_parser("run")
    step.add_argument("--out", type=Path, required=True)
    step = steps.add_parser("summary")
    step.add_argument("--lines", type=Path, required=True)
    options = parser.parse_args()
    {"run": run, "summary": summary}[options.step](options)


if __name__ == "__main__":
    main()
