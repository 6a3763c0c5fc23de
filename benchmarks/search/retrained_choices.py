"""Whether alpha's choice is better once networks are trained from scratch: derived against random of the same latency.

python benchmarks/search/searches.py --table latency_table.json --out searches.jsonl
python benchmarks/search/retrained_choices.py --table latency_table.json --searches searches.jsonl

Trains the derived network of each chosen search, and networks derived within the same budget from random alpha and
beta, each on the same batches of 64 of Fashion-MNIST (SGD, momentum 0.9, weight decay 1e-5, one cosine from the
learning rate to 0, no augmentation). Top-1 on 2,000 test images, running statistics. Every network's accuracy is a line
of its own. One thread.
"""

from __future__ import annotations

import argparse
import math
import statistics
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from searches import NUM_CLASSES, open_table, random_within_budget, read_lines
from supernet_learning import BATCH, PART, Images, fashion_mnist
from torch.nn import functional

from tfnas.compute.devices import open_device
from tfnas.search import latency_constraint, scale_widths
from tfnas.search.constraint import Constraint
from tfnas.search.supernet.supernet import Supernet
from tfnas.space import Architecture, build_network, load_space
from tfnas.space.membership import assemble


def derived_of(line: dict[str, Any], constraint: Constraint) -> Architecture:
    """The derived network of a search, from its line."""
    space = constraint.space
    candidates = {candidate.name: candidate for candidate in space.candidates}
    names = [name for name, kept in zip(line["operations"], line["kept"], strict=True) if kept]
    fixed = sum(stage.fixed is not None for stage in space.stages)
    chosen = zip(names, line["architecture"][fixed:], strict=True)
    stages = zip(space.searchable_stages, line["depths"], strict=True)
    choices = {
        stage.stage: [(candidates[name], width) for name, width in (next(chosen) for _ in range(depth))]
        for stage, depth in stages
    }
    return assemble(space, "derived", choices)


def random_of(constraint: Constraint, count: int) -> Iterator[Architecture]:
    for derived in random_within_budget(constraint, Supernet(constraint.space, NUM_CLASSES), count):
        ranges = derived.width_ranges(constraint.space)
        yield scale_widths(derived.architecture, constraint, ranges=ranges).architecture


def train(architecture: Architecture, train_images: Images, held_out: Images, options: argparse.Namespace) -> float:
    """Top-1 in percent."""
    torch.manual_seed(0)
    random = torch.Generator().manual_seed(0)
    network = build_network(architecture, NUM_CLASSES).to(memory_format=torch.channels_last).train()
    optimizer = torch.optim.SGD(network.parameters(), lr=options.rate, momentum=0.9, weight_decay=1e-5)
    for step in range(options.steps):
        optimizer.param_groups[0]["lr"] = options.rate * 0.5 * (1 + math.cos(math.pi * step / options.steps))
        chosen = torch.randint(len(train_images[1]), (BATCH,), generator=random)
        images = train_images[0][chosen].contiguous(memory_format=torch.channels_last)
        loss = functional.cross_entropy(network(images), train_images[1][chosen])
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
    network.eval()
    with torch.no_grad():
        parts = zip(held_out[0].split(PART), held_out[1].split(PART), strict=True)
        correct = sum(int((network(images).argmax(-1) == labels).sum()) for images, labels in parts)
    return 100 * correct / len(held_out[1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--table", type=Path, required=True)
    parser.add_argument("--searches", type=Path, required=True)
    parser.add_argument("--targets", nargs="+", type=float, default=[0.05, 0.2], metavar="RELATIVE")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1])
    parser.add_argument("--random", type=int, default=4, help="random networks per target")
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--rate", type=float, default=0.05)
    options = parser.parse_args()
    open_device("cpu", 1)
    images, held_out = fashion_mnist()
    lines = [x for x in read_lines(options.searches) if x["seed"] in options.seeds and x["relative"] in options.targets]
    for relative in options.targets:
        own = [line for line in lines if line["relative"] == relative]
        space = load_space(own[0]["space"])
        constraint = latency_constraint(space, open_table(options.table, space, 1.0), own[0]["target_ms"])
        random = []
        for line in own:
            architecture = derived_of(line, constraint)
            top1 = train(architecture, images, held_out, options)
            print(f"{relative} derived seed {line['seed']}  {constraint.cost.value(architecture):.3f} ms  {top1:.1f} %",
                  flush=True)  # fmt: skip
        for architecture in random_of(constraint, options.random):
            random.append(train(architecture, images, held_out, options))
            print(f"{relative} random  {constraint.cost.value(architecture):.3f} ms  {random[-1]:.1f} %", flush=True)
        print(f"{relative} random: mean {statistics.mean(random):.2f}, std {statistics.pstdev(random):.2f}", flush=True)


if __name__ == "__main__":
    main()
