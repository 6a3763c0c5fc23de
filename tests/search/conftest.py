"""A tiny space, a made latency table, loaders of random images, and a folder of pictures for the stages."""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from tests.helpers.params import shipped_params
from tests.helpers.tiny_spaces import K3_E3, K3_E3_SE, K3_E6, K5_E3, space_text
from tfnas.latency import Curve, LatencyTable, OperationKey, reachable_range_ms
from tfnas.latency.params import ConstraintParams
from tfnas.search.cost import Latency
from tfnas.search.derivation.inheritance import BLOCK_WEIGHTS
from tfnas.search.params import SearchParams
from tfnas.search.scaling.widths import WidthProblem, WidthRanges
from tfnas.space import Architecture, Candidate, Space, load_space
from tfnas.space.membership import assemble
from tfnas.stages.params import Params, TargetParams

CLASSES = ("black", "grey", "white")
TINY = space_text(K3_E3, K3_E6, K5_E3, K3_E3_SE)


@pytest.fixture(scope="session")
def tiny_space_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("space") / "tiny.yaml"
    path.write_text(TINY)
    return path


@pytest.fixture(scope="session")
def tiny_space(tiny_space_file: Path) -> Space:
    return load_space(tiny_space_file)


def synthetic_table(
    space: Space, *, resolution: int | None = None, monotone: bool = True, seed: int = 0
) -> LatencyTable:
    """Latencies at every width: growing with the multiply-adds, with random steps; or disturbed as well."""
    random = np.random.default_rng(seed)
    keys: dict[OperationKey, tuple[int, int]] = {}
    resolution = resolution or space.resolution
    for layer in space.layers(resolution):
        if next(stage for stage in space.stages if stage.stage == layer.stage).fixed is None:
            for candidate in space.candidates:
                key = OperationKey.of_candidate(layer, candidate)
                low, high = candidate.width_range(layer.in_channels)
                known = keys.get(key, (low, high))
                keys[key] = (min(known[0], low), max(known[1], high))
    curves = {}
    for key, (low, high) in keys.items():
        per_channel = (key.in_channels + key.out_channels + key.kernel**2 + key.se_channels) * key.resolution**2
        scale = 1e-7 * per_channel * (1 + random.random())
        steps = scale * (0.5 + random.random(high - low + 1))
        latencies = scale * low + np.cumsum(steps)
        if not monotone:
            latencies *= 1 + 0.1 * random.random(high - low + 1)
        curves[key] = Curve(tuple(range(low, high + 1)), tuple(latencies.tolist()))
    base_ms = 0.1 * sum(curve.latencies_ms[-1] for curve in curves.values()) / len(space.candidates)
    return LatencyTable(space.name, resolution, 1, "synthetic", base_ms, curves)


@pytest.fixture(scope="session")
def make_table() -> Callable[..., LatencyTable]:
    return synthetic_table


@pytest.fixture(scope="session")
def tiny_table(tiny_space: Space) -> LatencyTable:
    return synthetic_table(tiny_space)


@pytest.fixture(scope="session")
def target_ms(tiny_space: Space, tiny_table: LatencyTable) -> float:
    low, high = reachable_range_ms(tiny_space, tiny_table)
    return low + 0.35 * (high - low)


@pytest.fixture(scope="session")
def table1() -> Space:
    return load_space("tf-nas")


@pytest.fixture(scope="session")
def random_network() -> Callable[[Space, np.random.Generator], tuple[Architecture, list[tuple[int, int]]]]:
    def draw(space: Space, random: np.random.Generator) -> tuple[Architecture, list[tuple[int, int]]]:
        """A random member of the space and the width ranges of its candidates."""
        choices: dict[int, list[tuple[Candidate, int]]] = {}
        ranges = []
        for stage in space.stages:
            if stage.fixed is not None:
                ranges.append((stage.fixed.width(stage.in_channels),) * 2)
                continue
            choices[stage.stage] = []
            for position in range(random.integers(1, stage.max_depth + 1)):
                candidate = space.candidates[random.integers(len(space.candidates))]
                widths = candidate.widths(stage.out_channels if position else stage.in_channels)
                choices[stage.stage].append((candidate, widths[random.integers(len(widths))]))
                ranges.append((widths[0], widths[-1]))
        return assemble(space, "random", choices), ranges

    return draw


@pytest.fixture(scope="session")
def reachable() -> Callable[..., tuple[float, float]]:
    def latencies(architecture: Architecture, table: LatencyTable, ranges: WidthRanges) -> tuple[float, float]:
        """Latency with all widths at their smallest, at their largest."""
        problem = WidthProblem(architecture, Latency(table), ranges)
        return problem.cost(problem.low), problem.cost(problem.high)

    return latencies


@pytest.fixture(scope="session")
def block_parameters() -> dict[str, str]:
    """Where an MBInvRes block has each weight of a candidate operation."""
    return BLOCK_WEIGHTS


class RandomLoader:
    """Batches of fixed random images; the epoch alone decides their order."""

    def __init__(self, images: int, batch_size: int, *, seed: int, num_classes: int = 3) -> None:
        generator = torch.Generator().manual_seed(seed)
        self.images = torch.randn(images, 3, 16, 16, generator=generator)
        self.labels = torch.randint(num_classes, (images,), generator=generator)
        self.batch_size, self.epoch = batch_size, 0

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def __len__(self) -> int:
        return len(self.images) // self.batch_size

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        order = torch.randperm(len(self.images), generator=torch.Generator().manual_seed(self.epoch))
        for chosen in order.split(self.batch_size)[: len(self)]:
            yield self.images[chosen], self.labels[chosen]


@pytest.fixture
def loaders() -> tuple[RandomLoader, RandomLoader]:
    """Five training batches and two validation batches."""
    return RandomLoader(20, 4, seed=1), RandomLoader(10, 4, seed=2)


@pytest.fixture(scope="session")
def make_params() -> Callable[..., SearchParams]:
    def make(**changes: Any) -> SearchParams:
        values: dict[str, Any] = {
            "epochs": 4,
            "warmup_epochs": 1,
            "batch_size": 4,
            "weights": {"learning_rate": 0.025, "momentum": 0.9, "weight_decay": 1e-5},
            "architecture": {
                "learning_rate": 0.05,
                "betas": [0.5, 0.999],
                "weight_decay": 5e-4,
                "every": 2,
                "log_softmax": True,
                "paths": "all",
            },
            "temperature": {"initial": 5.0, "decay": 0.96},
            "lambda": 0.1,
            "latency_loss": "target",
            "lambda_2": 0.6,
            "weight_sharing": "none",
            "channel_importance": "depthwise",
            "depth_space": "sink",
            "second_path": "random",
            "elasticity_scaling": True,
            "evaluation": {"random_paths": 2, "batches": 2},
            "early_stopping": None,
            "gradient_clip": 5.0,
            "reset_optimizers": False,
            "recompute": False,
            "augmentation": {"crop_scale": [0.7, 1.0], "flip": False, "color_jitter": [0, 0, 0, 0]},
        }
        for section in ("architecture", "evaluation"):
            values[section] |= changes.pop(section, {})
        return SearchParams.model_validate({**values, **changes})

    return make


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tiny_table: LatencyTable) -> Path:
    """A working directory with images/, train.csv, val.csv and latency_table.json."""
    generator = np.random.default_rng(0)
    for split, count in (("train", 8), ("val", 3)):
        rows = []
        for label, name in enumerate(CLASSES):
            for number in range(count):
                path = tmp_path / "images" / "train" / name / f"{split}{number}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                pixels = generator.integers(0, 60, (20, 20, 3), dtype=np.uint8) + np.uint8(90 * label)
                Image.fromarray(pixels).save(path)
                rows.append((path.relative_to(tmp_path / "images").as_posix(), name, label))
        with (tmp_path / f"{split}.csv").open("w", newline="") as file:
            csv.writer(file, lineterminator="\n").writerows([("path", "class", "label"), *rows])
    tiny_table.save(tmp_path / "latency_table.json")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def params(tiny_space_file: Path, make_params: Callable[..., SearchParams]) -> Params:
    """Of short searches on these pictures in the tiny space."""
    shipped = shipped_params()
    target = TargetParams(constraint=ConstraintParams(relative=0.55), dropout=0.2)
    changes = {
        "space": str(tiny_space_file),
        "resolution": 16,
        "search": make_params(epochs=3, batch_size=8),
        "derive": shipped.derive.model_copy(update={"within": "strongest"}),
        "targets": dict.fromkeys(shipped.targets, target),
    }
    return shipped.model_copy(update=changes)
