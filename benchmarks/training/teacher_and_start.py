"""What a teacher and the supernet's weights bring on few images, each against training from scratch.

apt-get install dataset-fashion-mnist
python benchmarks/training/teacher_and_start.py --table latency_table.json --out few.jsonl # resumes
python benchmarks/training/teacher_and_start.py --table latency_table.json --out few.jsonl --show

Of each seed: a supernet is warmed up and searched (entangled weights, 80 % and 20 % of the training images) for one
target, and a ranking network (EfficientNet-B0) is trained on the training images as stage rank_classes trains it. Then
the found network is trained by the recipe of preset fashion-mnist, on the same images, in four ways: from scratch; from
the supernet's weights (`retrain.initial: supernet`); from scratch with the ranking network as teacher
(`retrain.teacher.network: ranking`); with both. Top-1 of the last epoch on the 10,000 test images, running statistics.
A finished training is a line of JSON in --out, and is not run again; what a seed's trainings share is next to --out.

Not run by default: `again` and `strong` start as `supernet` does, and learn from a file's teacher
(`retrain.teacher.network`: what `tfnas export` wrote): `again` from the network that `supernet` gave; `strong` from the
same network, trained from scratch on --teacher-images other images, in place of one that was pretrained elsewhere.
`scratch-long` trains from scratch for as many more epochs as make up for the time of the seed's warm-up and search.
--table is the latency_table.json of stage profile_latency for the space at 32 x 32. One thread.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from tfnas.cli.init.presets import render_preset
from tfnas.compute.devices import open_device
from tfnas.compute.seeding import derive_seed, seed_everything
from tfnas.data import ImageDataset, eval_transform, make_loader, train_transform
from tfnas.data.images.stores import describe, write_source
from tfnas.data.manifest import Sample, manifest_samples
from tfnas.data.params import FitParams
from tfnas.data.ranking import build_ranking_network, fit
from tfnas.data.sources.fashion_mnist import list_fashion_mnist
from tfnas.jobs.checkpoints import plain_state, read_tensors, write_tensors
from tfnas.latency import LatencyTable, resolve_target_ms
from tfnas.search import Loaders, Setting, latency_constraint, search
from tfnas.search.derivation.inheritance import inherited_state
from tfnas.search.params import SearchParams
from tfnas.space import Architecture, build_network, load_space
from tfnas.stages.params import Params, load_params
from tfnas.train import loop
from tfnas.train.distillation import Distillation
from tfnas.train.loop import evaluate
from tfnas.train.params import RecipeParams
from tfnas.train.start import Start, calibrate

ROOT = "/usr/share/datasets/fashion-mnist"
SIZE, NUM_CLASSES, BATCH, PART, EVERY_EPOCH = 32, 10, 64, 250, 500  # EVERY_EPOCH: images that an epoch is validated on
TRAIN_SHARE = 0.8  # of a search's images
CPU, PRECISION = torch.device("cpu"), "float32"
VARIANTS = ("scratch", "supernet", "teacher", "both", "again", "strong", "scratch-long")


class Pictures:
    """The first `count` training images, as many of each class, and the test images."""

    def __init__(self, count: int) -> None:
        self._folder = Path(tempfile.mkdtemp()) / "images"
        write_source(self._folder, describe("fashion-mnist", ROOT, "error"))
        records = list_fashion_mnist(ROOT)
        samples, _ = manifest_samples(records, "train")
        by_class = defaultdict[int, list[Sample]](list)
        for sample in samples:
            by_class[sample[1]].append(sample)
        self.each = count // NUM_CLASSES
        self.by_class = [by_class[label][: self.each] for label in range(NUM_CLASSES)]
        rest = [by_class[label][self.each :] for label in range(NUM_CLASSES)]
        self.others = [row for rows in zip(*rest, strict=False) for row in rows]  # the classes in turn
        test, _ = manifest_samples(records, "val")
        order = torch.randperm(len(test), generator=torch.Generator().manual_seed(0)).tolist()
        self.test = [test[i] for i in order]

    def part(self, first: float, last: float) -> list[Sample]:
        """The same share of each class, e.g. from 0 to 0.8."""
        return [row for rows in self.by_class for row in rows[round(first * self.each) : round(last * self.each)]]

    def loader(self, samples: list[Sample], transform: Any, *, seed: int, trains: bool, batch: int = BATCH) -> Any:
        data = ImageDataset(self._folder, samples, transform)
        return make_loader(data, batch, shuffle=trains, seed=seed, drop_last=trains)

    def tests(self, count: int | None = None) -> Any:
        return self.loader(self.test[:count], eval_transform(SIZE), seed=0, trains=False, batch=PART)


class Shared(NamedTuple):
    """What the trainings of a seed share."""

    architecture: Architecture
    state: dict[str, Tensor]  # the network's weights in the supernet
    teacher: nn.Module
    about: dict[str, Any]


@dataclass(frozen=True)
class Bench:
    options: argparse.Namespace
    params: Params
    pictures: Pictures

    def shared(self, seed: int) -> Shared:
        """Searched and trained, or as it was written before."""
        path = self.options.out.with_suffix(f".seed{seed}.pt")
        if not path.exists():
            parts = self._search(seed), self._fit(seed)
            about = json.dumps({name: value for part in parts for name, value in part.pop("about").items()})
            write_tensors(parts[0] | parts[1] | {"about": about}, path)
        found = read_tensors(path)
        teacher = build_ranking_network(NUM_CLASSES)
        teacher.load_state_dict(found["teacher"])
        architecture = Architecture.from_dict(json.loads(found["architecture"]))
        return Shared(architecture, found["state"], teacher.eval(), json.loads(found["about"]))

    def _search(self, seed: int) -> dict[str, Any]:
        start, params = time.monotonic(), self._search_params()
        space = load_space(self.params.space)
        table = LatencyTable.load(self.options.table)
        table.check_fits(space, SIZE, source=str(self.options.table))
        limit = resolve_target_ms("A", None, self.options.relative, space, table)
        constraint = latency_constraint(space, table, limit)
        view = train_transform(SIZE, params.augmentation)
        train = self.pictures.loader(self.pictures.part(0, TRAIN_SHARE), view, seed=seed, trains=True)
        val = self.pictures.loader(self.pictures.part(TRAIN_SHARE, 1), view, seed=seed + 1, trains=True)
        seed_everything(derive_seed(seed, "search"))
        setting = Setting(params, seed, name=f"search of seed {seed}", within="budget")
        result = search(constraint, Loaders(train, val, NUM_CLASSES), setting)
        derived = result.derive("found", constraint, "budget")
        last = result.history[-1]
        about = {
            "limit_ms": limit,
            "network_ms": constraint.cost.value(derived.architecture),
            "depths": list(derived.depths.values()),
            "supernet_top1": last.derived_top1,  # on the search's 20 %, by statistics of batches
            "search_seconds": round(time.monotonic() - start, 1),
        }
        state = inherited_state(result.build_supernet(), derived)
        return {"architecture": json.dumps(derived.architecture.to_dict()), "state": state, "about": about}

    def _search_params(self) -> SearchParams:
        options, params = self.options, self.params.search
        first, searching = params.temperature.initial, options.search_epochs - 1
        changed = {
            "epochs": options.warmup_epochs + options.search_epochs,
            "warmup_epochs": options.warmup_epochs,
            "batch_size": BATCH,
            "temperature": {"initial": first, "decay": (1.0 / first) ** (1 / searching)},
            "evaluation": {"random_paths": 0, "batches": 5},
        }
        return SearchParams.model_validate(params.model_dump(by_alias=True) | changed)

    def _fit(self, seed: int) -> dict[str, Any]:
        """The ranking network, as stage rank_classes trains it: by Adam, without augmentation."""
        start, options = time.monotonic(), self.options
        seed_everything(derive_seed(seed, "rank_classes"))
        teacher = build_ranking_network(NUM_CLASSES)
        loader = self.pictures.loader(self.pictures.part(0, 1), eval_transform(SIZE), seed=seed, trains=True)
        how = FitParams(epochs=options.ranking_epochs, batch_size=BATCH, learning_rate=0.002)
        fit(teacher, loader, how, device=CPU, precision=PRECISION)
        top1 = evaluate(teacher, self.pictures.tests(), device=CPU, precision=PRECISION).top1_percent
        about = {"teacher_top1": top1, "teacher_seconds": round(time.monotonic() - start, 1)}
        return {"teacher": teacher.state_dict(), "about": about}

    def train(self, variant: str, seed: int, shared: Shared) -> dict[str, Any]:
        """One training; top-1 in percent."""
        epochs, teacher = self.options.epochs, self._teacher(variant, seed, shared)
        if variant == "scratch-long":
            epochs += round(epochs * shared.about["search_seconds"] / self._scratch_seconds(seed))
        recipe = self._recipe(epochs)
        view = train_transform(SIZE, recipe.augmentation)
        train = self.pictures.loader(self.pictures.part(0, 1), view, seed=seed, trains=True)
        seed_everything(derive_seed(seed, "retrain"))
        start, initial = time.monotonic(), {}
        network = build_network(shared.architecture, NUM_CLASSES, self.options.dropout, recipe.drop_connect)
        if variant in ("supernet", "both", "again", "strong"):
            given = Start(shared.state, "supernet", has_statistics=False)
            network = given.build(shared.architecture, NUM_CLASSES, self.options.dropout, recipe.drop_connect)
            calibrate(network, train, device=CPU, precision=PRECISION)
            initial = {"initial_top1": self._top1(network)}
        distillation = None
        if teacher is not None:
            if variant in ("again", "strong"):
                initial["own_teacher_top1"] = self._top1(teacher)
            teacher = teacher.to(memory_format=torch.channels_last)
            distillation = Distillation(teacher, self.options.temperature, self.options.weight)
        setting = loop.Setting(f"{variant} {seed}", CPU, PRECISION, seed)
        result = loop.train(
            network, (train, self.pictures.tests(EVERY_EPOCH)), recipe, setting, distillation=distillation
        )
        seconds = round(time.monotonic() - start, 1)
        if variant == "supernet":
            write_tensors(plain_state(network), self._weights("supernet", seed))
        curve = [record.val_top1 for record in result.history]
        return {"epochs": epochs, "top1": self._top1(network), **initial, "seconds": seconds, "curve": curve}

    def _weights(self, name: str, seed: int) -> Path:
        return self.options.out.with_suffix(f".seed{seed}.{name}.pt")

    def _teacher(self, variant: str, seed: int, shared: Shared) -> nn.Module | None:
        if variant not in ("again", "strong"):
            return shared.teacher if variant in ("teacher", "both") else None
        name = "supernet" if variant == "again" else "strong"
        if not self._weights(name, seed).exists():
            if variant == "again":
                self.train("supernet", seed, shared)
            else:
                self._train_strong(seed, shared)
        network = build_network(shared.architecture, NUM_CLASSES)
        network.load_state_dict(read_tensors(self._weights(name, seed)))
        return network.eval()

    def _train_strong(self, seed: int, shared: Shared) -> None:
        """The same network from scratch, on images that the trainings never see, for twice as many steps."""
        options = self.options
        recipe = self._recipe(round(2 * options.epochs * options.images / options.teacher_images))
        rows = self.pictures.others[: options.teacher_images]
        train = self.pictures.loader(rows, train_transform(SIZE, recipe.augmentation), seed=seed, trains=True)
        seed_everything(derive_seed(seed, "strong"))
        network = build_network(shared.architecture, NUM_CLASSES, options.dropout, recipe.drop_connect)
        val = self.pictures.tests(EVERY_EPOCH)
        loop.train(network, (train, val), recipe, loop.Setting(f"strong {seed}", CPU, PRECISION, seed))
        write_tensors(plain_state(network), self._weights("strong", seed))

    def _recipe(self, epochs: int) -> RecipeParams:
        values = self.params.retrain.model_dump(include=set(RecipeParams.model_fields))
        changed = {"epochs": epochs, "batch_size": BATCH, "learning_rate": self.options.rate}
        return RecipeParams.model_validate(values | changed)

    def _top1(self, network: nn.Module) -> float:
        return evaluate(network, self.pictures.tests(), device=CPU, precision=PRECISION).top1_percent

    def _scratch_seconds(self, seed: int) -> float:
        done = read_lines(self.options.out)
        return next(line["seconds"] for line in done if (line["variant"], line["seed"]) == ("scratch", seed))


def run_all(options: argparse.Namespace) -> None:
    with tempfile.NamedTemporaryFile("w", suffix=".yaml") as file:
        file.write(render_preset("fashion-mnist"))
        file.flush()
        bench = Bench(options, load_params(file.name), Pictures(options.images))
    done = {(line["variant"], line["seed"]) for line in read_lines(options.out)}
    for seed in options.seeds:
        for variant in options.variants:
            if (variant, seed) in done:
                continue
            shared = bench.shared(seed)
            line = {"images": options.images, "seed": seed, "variant": variant}
            line |= bench.train(variant, seed, shared) | shared.about
            with options.out.open("a") as file:
                file.write(json.dumps(line) + "\n")
            print({name: value for name, value in line.items() if name != "curve"}, flush=True)


def read_lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def show(lines: list[dict[str, Any]]) -> None:
    """Mean and deviation of each variant, and of its difference from scratch with the same seed."""
    top1 = {(line["variant"], line["seed"]): line["top1"] for line in lines}
    print("variant       seeds  top-1 %  (std)  over scratch  (std)  seconds  before training")
    for variant in VARIANTS:
        own = [line for line in lines if line["variant"] == variant]
        if not own:
            continue
        values = [line["top1"] for line in own]
        pairs = [line["top1"] - top1["scratch", line["seed"]] for line in own if ("scratch", line["seed"]) in top1]
        initial = [line["initial_top1"] for line in own if "initial_top1" in line]
        print(
            f"{variant:13} {len(own):5} {statistics.mean(values):8.2f} {_deviation(values):6.2f}"
            f" {statistics.mean(pairs):13.2f} {_deviation(pairs):6.2f}"
            f" {statistics.mean(line['seconds'] for line in own):8.0f}"
            f"  {format(statistics.mean(initial), '.1f') if initial else ''}"
        )
    for line in {line["seed"]: line for line in lines}.values():
        print(
            f"seed {line['seed']}: teacher {line['teacher_top1']:.2f} % ({line['teacher_seconds']:.0f} s); supernet"
            f" {line['supernet_top1']:.1f} % on the search's 20 % ({line['search_seconds']:.0f} s); network"
            f" {line['network_ms']:.3f} ms of {line['limit_ms']:.3f}, depths {line['depths']}"
        )


def _deviation(values: list[float]) -> float:
    return statistics.stdev(values) if len(values) > 1 else 0.0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--table", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--show", action="store_true", help="print the table of the finished trainings, and run none")
    parser.add_argument("--images", type=int, default=2000)
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--variants", nargs="+", default=VARIANTS[:4], choices=VARIANTS)
    parser.add_argument("--relative", type=float, default=0.08, help="target, as targets.NAME.constraint.relative")
    parser.add_argument("--warmup-epochs", type=int, default=16)
    parser.add_argument("--search-epochs", type=int, default=6, help="after the warm-up")
    parser.add_argument("--ranking-epochs", type=int, default=20)
    parser.add_argument("--epochs", type=int, default=20, help="of the trainings that are compared")
    parser.add_argument("--teacher-images", type=int, default=20000, help="of variant `strong`")
    parser.add_argument("--rate", type=float, default=0.05)
    parser.add_argument("--dropout", type=float, default=0.1)
    parser.add_argument("--temperature", type=float, default=4.0)
    parser.add_argument("--weight", type=float, default=0.5)
    options = parser.parse_args()
    if options.show:
        show(read_lines(options.out))
        return
    open_device("cpu", 1)
    run_all(options)


if __name__ == "__main__":
    main()
