"""Real searches on Fashion-MNIST: does each use its budget, and does alpha choose better than chance?

apt-get install dataset-fashion-mnist
python benchmarks/search/searches.py --table latency_table.json --out searches.jsonl      # resumes after the last line
python benchmarks/search/searches.py --table latency_table.json --out searches.jsonl --show

One search for every target and seed, in the library's own loop, on images in memory without augmentation: an epoch is
so many weight steps on random batches of 64 of 48,000 training images, the architecture steps take batches of the other
12,000. The targets of a seed share its warm-up. A finished search is a line of JSON in --out, and is not run again.

Accuracies are of 2,000 test images, BatchNorm by the statistics of batches of 100: of the derived network; of networks
drawn uniformly from the space, at the widths that the search ends with; and of random networks of the derived one's
latency, i.e. what is derived within the budget, and scaled, from random alpha and beta. The last comparison is made
with the weights at the end of the search, which has trained the operations that alpha prefers more often, and with the
weights of the warm-up, which has favored none. --table is the latency_table.json of stage profile_latency for the space
at 32 x 32; without the file, the library measures one, within --minutes. One thread.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from supernet_learning import BATCH, PART, SIZE, Images, fashion_mnist
from torch import Tensor

from tfnas.compute.devices import open_device
from tfnas.compute.seeding import derive_seed
from tfnas.latency import LatencyTable, resolve_target_ms
from tfnas.latency.measuring import Measuring
from tfnas.search import Constraint, latency_constraint, scale_widths
from tfnas.search.derivation.strongest import Derived
from tfnas.search.derivation.within_budget import derive_within_budget
from tfnas.search.epoch import Loaders
from tfnas.search.evaluation import random_networks
from tfnas.search.loop import run_warm_up, search
from tfnas.search.params import SearchParams
from tfnas.search.result import SearchResult, WarmUp
from tfnas.search.state import SearchState, Setting
from tfnas.search.steps import Stepper
from tfnas.search.supernet.supernet import Supernet
from tfnas.space import Space, load_space
from tfnas.stages.params import load_params
from tfnas.stages.profile_latency import profile

NUM_CLASSES, VAL = 10, 12000
VAL_BATCHES = 10  # that an epoch's accuracies are taken of
RECORDED = (
    *("epoch", "temperature", "train_loss", "architecture_loss", "latency_loss", "alpha_entropy"),
    *("expected_latency_ms", "derived_latency_before_ms", "derived_latency_after_ms"),
    *("val_top1", "derived_top1", "random_top1_mean", "random_top1_std"),
    *("seconds_per_weight_step", "seconds_per_architecture_step"),
)


@dataclass
class RandomBatches:
    """So many batches per epoch, drawn from images in memory; the same for the same epoch."""

    images: Images
    count: int
    seed: int
    epoch: int = 0

    def __len__(self) -> int:
        return self.count

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def __iter__(self) -> Iterator[Images]:
        random = torch.Generator().manual_seed(derive_seed(self.seed, "batches", self.epoch))
        for _ in range(self.count):
            chosen = torch.randint(len(self.images[1]), (BATCH,), generator=random)
            yield self.images[0][chosen], self.images[1][chosen]


def make_loaders(images: Images, steps: int, seed: int) -> Loaders:
    order = torch.randperm(len(images[1]), generator=torch.Generator().manual_seed(seed))
    val, train = ((images[0][part], images[1][part]) for part in (order[:VAL], order[VAL:]))
    return Loaders(RandomBatches(train, steps, seed), RandomBatches(val, VAL_BATCHES, seed + 1), NUM_CLASSES)


def make_params(options: argparse.Namespace) -> SearchParams:
    """The paper's parameters and what the options say; tau reaches its last value in the last epoch."""
    params = load_params(Path(__file__).parents[2] / "params.yaml").search
    first, last = options.temperature
    searching = options.epochs - 1
    decay = (last / first) ** (1 / searching) if searching > 0 else 1.0
    changed: dict[str, Any] = {
        "epochs": options.warmup_epochs + options.epochs,
        "warmup_epochs": options.warmup_epochs,
        "batch_size": BATCH,
        "weights": {"learning_rate": options.rate, "momentum": 0.9, "weight_decay": 1e-5},
        "architecture": {
            **params.architecture.model_dump(),
            "learning_rate": options.alpha_rate,
            "weight_decay": options.alpha_decay,
            "every": options.every,
            "paths": options.paths,
        },
        "temperature": {"initial": first, "decay": decay},
        "lambda": options.lambda_,
        "weight_sharing": options.sharing,
        "channel_importance": options.importance,
        "evaluation": {"random_paths": 10, "batches": VAL_BATCHES},
    }
    return SearchParams.model_validate({**params.model_dump(by_alias=True), **changed})


def open_table(path: Path, space: Space, minutes: float) -> LatencyTable:
    """The table in a file, or one measured here, which the file keeps."""
    if not path.exists():
        params = load_params(Path(__file__).parents[2] / "params.yaml").profile_latency
        changed = {"minutes": minutes, "batch_size": 1, "num_classes": NUM_CLASSES, "on_busy": "warn"}
        measuring = Measuring(params.model_copy(update=changed), space=space.digest, resolution=SIZE)
        profile(space, measuring, seed=0)[0].save(path)
    table = LatencyTable.load(path)
    table.check_fits(space, SIZE, source=str(path))
    return table


class Judge:
    """Top-1 in percent of networks on the held-out images, with a supernet's weights."""

    def __init__(self, supernet: Supernet, setting: Setting, held_out: Images, importance: str) -> None:
        self._stepper = Stepper(SearchState(supernet, setting), setting, None)
        self._held_out, self._supernet, self._importance = held_out, supernet, importance

    def top1(self, networks: Sequence[Derived]) -> list[float]:
        """At the supernet's current widths."""
        parts = zip(self._held_out[0].split(PART), self._held_out[1].split(PART), strict=True)
        correct = sum(self._stepper.count_correct_derived(part, networks) for part in parts)
        assert isinstance(correct, Tensor)
        return [float(value) for value in 100.0 * correct.double() / len(self._held_out[1])]

    def scaled_top1(self, constraint: Constraint, derived: Derived) -> float:
        """Scaled to the limit, from the supernet's current weights, which stay as they are."""
        state, widths = self._supernet.state_dict(), self._supernet.widths()
        kept = {name: tensor.clone() for name, tensor in state.items()}
        self._scale(constraint, derived)
        found = self.top1([derived])[0]
        self._supernet.load_state_dict(kept)
        self._supernet.restore_widths(widths)
        return found

    def _scale(self, constraint: Constraint, derived: Derived) -> None:
        ranges = derived.width_ranges(constraint.space)
        scaled = scale_widths(derived.architecture, constraint, ranges=ranges).architecture
        operations, size = list(self._supernet.operations()), len(constraint.space.candidates)
        for layer, candidate, block in derived.chosen(constraint.space):
            operation = operations[layer * size + candidate]
            operation.set_width(scaled.blocks[block].expand_channels, self._importance)


def random_within_budget(constraint: Constraint, supernet: Supernet, count: int) -> list[Derived]:
    """What is derived within the budget from random alpha and beta: networks of the target's latency."""
    random, found = torch.Generator().manual_seed(1), []
    for _ in range(count):
        alphas, *betas = (torch.randn(p.shape, generator=random) for p in supernet.architecture_parameters())
        found.append(derive_within_budget(constraint, alphas, betas, supernet.widths(), "random"))
    return found


def warmed_supernet(space: Space, warm_up: WarmUp, setting: Setting) -> Supernet:
    state = SearchState.initial(space, NUM_CLASSES, setting)
    state.begin_after(warm_up.state)
    return state.supernet


def judge(
    result: SearchResult, warm_up: WarmUp, constraint: Constraint, setting: Setting, held_out: Images, count: int
) -> dict[str, Any]:
    """Accuracies of the derived network and of random ones; see above."""
    supernet, importance = result.build_supernet(), setting.params.channel_importance
    own = Judge(supernet, setting, held_out, importance)
    derived = result.derive("derived", constraint, "budget")
    uniform = own.top1(random_networks(supernet, count, torch.Generator().manual_seed(1)))
    alike = random_within_budget(constraint, supernet, count)
    before = Judge(warmed_supernet(constraint.space, warm_up, setting), setting, held_out, importance)
    return {
        "derived_top1": own.top1([derived])[0],
        "random_top1": uniform,
        "alike_top1": [own.scaled_top1(constraint, network) for network in alike],
        "derived_top1_warm": before.scaled_top1(constraint, derived),
        "alike_top1_warm": [before.scaled_top1(constraint, network) for network in alike],
        "depths": list(derived.depths.values()),
        "operations": [constraint.space.candidates[i].name for i in derived.operations],
        "kept": list(derived.kept),
        "derived_ms": constraint.cost.value(derived.architecture),
        "architecture": [block.expand_channels for block in derived.architecture.blocks],
    }


def run_one(
    constraint: Constraint, loaders: Loaders, setting: Setting, warm_up: WarmUp, held_out: Images, count: int
) -> dict[str, Any]:
    start = time.perf_counter()
    result = search(constraint, loaders, setting, warm_up=warm_up)
    seconds = time.perf_counter() - start
    return {
        "target_ms": constraint.limit,
        **judge(result, warm_up, constraint, setting, held_out, count),
        "alpha_entropy": result.history[-1].alpha_entropy,
        "beta": [beta.softmax(-1).tolist() for beta in result.betas],
        "history": [{name: getattr(record, name) for name in RECORDED} for record in result.history],
        "search_seconds": round(seconds, 1),
        "seconds": round(time.perf_counter() - start, 1),
    }


def run_all(options: argparse.Namespace) -> None:
    space, params = load_space(options.space), make_params(options)
    table, done = open_table(options.table, space, options.minutes), read_lines(options.out)
    train, held_out = fashion_mnist()
    described = {"space": space.name, "params": params.model_dump(by_alias=True), "steps": options.steps}
    described = json.loads(json.dumps(described))
    for seed in options.seeds:
        setting = Setting(params, seed, name=f"seed {seed}", within="budget")
        loaders, warm_up = make_loaders(train, options.steps, seed), None
        for relative in options.targets:
            key = {**described, "seed": seed, "relative": relative}
            if any(key == {name: line[name] for name in key} for line in done):
                continue
            warm_up = warm_up or warm(space, loaders, setting, options.warmup_steps)
            target_ms = resolve_target_ms("A", None, relative, space, table)
            constraint = latency_constraint(space, table, target_ms)
            line = key | run_one(constraint, loaders, setting, warm_up, held_out, options.paths_drawn)
            with options.out.open("a") as file:
                file.write(json.dumps(line) + "\n")
            print(row(line), flush=True)


def warm(space: Space, loaders: Loaders, setting: Setting, steps: int) -> WarmUp:
    train = loaders.train
    assert isinstance(train, RandomBatches)
    longer = Loaders(RandomBatches(train.images, steps, train.seed), loaders.val, NUM_CLASSES)
    start = time.perf_counter()
    warm_up = run_warm_up(space, longer, setting)
    print(f"warm-up of seed {setting.seed}: {time.perf_counter() - start:.0f} s", flush=True)
    return warm_up


def read_lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


HEADER = (
    "space                seed  target ms  derived ms   gap %  depths       derived  random (std)  alike (std)"
    "  warm: derived  alike (std)  entropy  seconds"
)


def row(line: dict[str, Any]) -> str:
    gap = 100 * (line["derived_ms"] / line["target_ms"] - 1)
    depths = "-".join(map(str, line["depths"]))
    spread = [f"{statistics.mean(line[n]):6.1f} ({statistics.pstdev(line[n]):.1f})"
              for n in ("random_top1", "alike_top1", "alike_top1_warm")]  # fmt: skip
    return (
        f"{line['space']:20} {line['seed']:4} {line['target_ms']:10.3f} {line['derived_ms']:11.3f} {gap:7.3f}"
        f"  {depths:12} {line['derived_top1']:7.1f}  {spread[0]:12} {spread[1]:12}  {line['derived_top1_warm']:8.1f}"
        f"  {spread[2]:12} {line['alpha_entropy']:8.2f} {line['seconds']:8.0f}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--table", type=Path, required=True)
    parser.add_argument("--minutes", type=float, default=1.0, help="for measuring the table")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--show", action="store_true", help="print the table of the finished searches, and run none")
    parser.add_argument("--space", default="tf-nas-small-images")
    parser.add_argument("--targets", nargs="+", type=float, default=[0.05, 0.1, 0.2, 0.35, 0.6], metavar="RELATIVE")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1])
    parser.add_argument("--warmup-epochs", type=int, default=4)
    parser.add_argument("--warmup-steps", type=int, default=100, help="per epoch")
    parser.add_argument("--epochs", type=int, default=5, help="after the warm-up")
    parser.add_argument("--steps", type=int, default=45, help="weight steps per epoch after the warm-up")
    parser.add_argument("--rate", type=float, default=0.025, help="learning rate of the weights")
    parser.add_argument("--alpha-rate", type=float, default=0.2)
    parser.add_argument("--alpha-decay", type=float, default=0.0)
    parser.add_argument("--every", type=int, default=2, help="weight steps per architecture step")
    parser.add_argument("--paths", default="all", choices=["all", "one"])
    parser.add_argument("--temperature", nargs=2, type=float, default=[5.0, 1.0], metavar=("FIRST", "LAST"))
    parser.add_argument("--lambda", dest="lambda_", type=float, default=0.1)
    parser.add_argument("--sharing", default="entangled")
    parser.add_argument("--importance", default="projection")
    parser.add_argument("--paths-drawn", type=int, default=10, help="random networks")
    options = parser.parse_args()
    print(HEADER)
    if options.show:
        print("\n".join(row(line) for line in read_lines(options.out)))
        return
    open_device("cpu", 1)
    run_all(options)


if __name__ == "__main__":
    main()
