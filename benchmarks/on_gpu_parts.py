"""The parts of `on_gpu.py`: each yields rows as it finds them, so that a part that is stopped keeps what it has.

Nothing here imports more than PyTorch, NumPy, pydantic, PyYAML and tqdm; the tests run where pytest is installed.

N batch, H W size.
"""

from __future__ import annotations

import argparse
import gzip
import platform
import random
import re
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import NamedTuple, get_args

import numpy as np
import torch
import yaml
from search_step_variants import Authors, Ours, Steps, random_batch
from torch import Tensor, nn
from torch.nn import functional

from tfnas.cli.init.presets import render_preset
from tfnas.compute.devices import device_name, find_device, synchronize
from tfnas.jobs.artifacts import git_commit
from tfnas.latency import LatencyTable, OperationKey, measure_architecture_ms, reachable_range_ms
from tfnas.latency.measuring import Measuring, block_probe, network_probe
from tfnas.latency.params import ProfileLatencyParams
from tfnas.latency.profiler import profile_space
from tfnas.latency.timing import build, measuring
from tfnas.latency.validation import validation_networks
from tfnas.search import EpochRecord, Loaders, SearchResult, Setting, latency_constraint, search
from tfnas.search.params import SearchParams
from tfnas.space import Architecture, Space, build_network, load_space, zoo
from tfnas.stages.params import Params
from tfnas.train.step import TrainingStepper

ROOT = Path(__file__).parents[1]
SPACE = Path(__file__).with_name("on_gpu_space.yaml")
PRECISIONS = ("float32", "bfloat16")
SHARINGS: tuple[str, ...] = get_args(SearchParams.model_fields["weight_sharing"].annotation)
NUM_CLASSES = 10  # of the searched images
IMAGES, LABELS = "train-images-idx3-ubyte", "train-labels-idx1-ubyte"  # or with .gz
FOLDERS = (  # Debian's package dataset-fashion-mnist, torchvision's layout
    Path("/usr/share/datasets/fashion-mnist"),
    ROOT / "data/FashionMNIST/raw",
)


class Row(NamedTuple):
    """One line of the table."""

    what: str
    value: float | str
    unit: str = ""
    note: str = ""


class Sizes(NamedTuple):
    """How much is measured."""

    table: ProfileSize
    steps: StepsSize
    search: SearchSize
    retrain: RetrainSize


class ProfileSize(NamedTuple):
    resolution: int
    batch: int
    minutes: float
    networks: int
    repeats: int  # of each independent timing


class StepsSize(NamedTuple):
    resolution: int
    batch: int
    warm_up: int
    steps: int  # of each kind


class SearchSize(NamedTuple):
    resolution: int
    batch: int
    batches: int  # of an epoch
    epochs: int
    warm_up: int  # epochs
    minutes: float  # of measuring its table


class RetrainSize(NamedTuple):
    resolution: int
    batch: int
    warm_up: int
    steps: int


FULL = Sizes(
    ProfileSize(112, 32, 0.6, 8, 20),
    StepsSize(224, 32, 3, 8),
    SearchSize(32, 128, 100, 5, 2, 0.2),
    RetrainSize(224, 256, 5, 20),
)
TINY = Sizes(
    ProfileSize(16, 2, 0.01, 2, 2), StepsSize(32, 2, 0, 1), SearchSize(16, 4, 2, 2, 1, 0.01), RetrainSize(32, 4, 0, 1)
)


def sizes(options: argparse.Namespace) -> Sizes:
    return TINY if options.tiny else FULL


def small_space(options: argparse.Namespace) -> Space:
    """The space of the latency table and of the search."""
    space = load_space(SPACE)
    return replace(space, candidates=space.candidates[::3]) if options.tiny else space


def preset(name: str) -> Params:
    return Params.model_validate(yaml.safe_load(render_preset(name)))


# -- the device


def open_device(options: argparse.Namespace) -> torch.device:
    """The device of `--device`; a GPU becomes the current one."""
    device = find_device(options.device, source="--device")
    if device.type == "cuda":
        torch.cuda.set_device(device)
    return device


def measure_device(options: argparse.Namespace) -> Iterator[Row]:
    """What the numbers belong to: device, versions, commit."""
    device = open_device(options)
    yield Row("name", device_name(options.device))
    yield Row("PyTorch", torch.__version__, note=f"Python {platform.python_version()}")
    yield Row("commit", git_commit())
    if device.type == "cuda":
        properties = torch.cuda.get_device_properties(device)
        yield Row("memory", properties.total_memory / 2**30, "GiB")
        yield Row("CUDA", str(torch.version.cuda), note=f"cuDNN {torch.backends.cudnn.version()}")
        yield Row("TF32 in convolutions", str(torch.backends.cudnn.allow_tf32), note="PyTorch's default, all forms")


# -- the tests marked gpu


def run_tests(options: argparse.Namespace) -> Iterator[Row]:
    """pytest's own last line, of the files that have tests marked `gpu`.

    Raises:
        RuntimeError: a test failed.
    """
    try:
        import hypothesis  # noqa: F401  which tests/conftest.py imports
        import pytest  # noqa: F401
    except ImportError as error:
        yield Row("tests marked gpu", "not run", note=f"{error.name or error} is not installed")
        return
    files = [path for path in sorted((ROOT / "tests").rglob("test_*.py")) if "mark.gpu" in path.read_text("utf-8")]
    command = [sys.executable, "-m", "pytest", "-m", "gpu", "-p", "no:cacheprovider", *map(str, files)]
    finished = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    lines = finished.stdout.strip().splitlines() or [finished.stderr.strip()]
    yield Row("tests marked gpu", lines[-1].strip("= "))
    if finished.returncode:
        raise RuntimeError("; ".join(line for line in lines if re.match(r"FAILED|ERROR", line)) or lines[-1])


# -- the latency table


class Stopwatch:
    """An independent clock: CUDA events around `repeats` calls, or the wall clock on a CPU; milliseconds of one."""

    def __init__(self, device: torch.device) -> None:
        self._cuda = device.type == "cuda"

    def mark(self) -> torch.cuda.Event | float:
        """Now, in the order of the device's work."""
        if not self._cuda:
            return time.perf_counter()
        event = torch.cuda.Event(enable_timing=True)
        event.record()
        return event

    def between_ms(self, start: torch.cuda.Event | float, end: torch.cuda.Event | float) -> float:
        """Milliseconds between two marks."""
        if isinstance(start, float) or isinstance(end, float):
            assert isinstance(start, float) and isinstance(end, float)
            return 1000 * (end - start)
        end.synchronize()
        return start.elapsed_time(end)

    def call_ms(self, run: Callable[[], object], repeats: int) -> float:
        """The mean of calls in a row, after as many to warm up."""
        for _ in range(repeats):
            run()
        start = self.mark()
        for _ in range(repeats):
            run()
        return self.between_ms(start, self.mark()) / repeats


def make_table(
    options: argparse.Namespace, space: Space, resolution: int, batch: int, minutes: float, networks: int
) -> tuple[LatencyTable, list[Architecture], ProfileLatencyParams]:
    """A table measured as `tfnas profile` does, networks to compare it with, and how it was measured."""
    params = preset("imagenet-gpu").profile_latency.model_copy(
        update={"device": options.device, "batch_size": batch, "minutes": minutes, "on_busy": "warn"}
    )
    drawn = validation_networks(space, networks, seed=1)
    table, _ = profile_space(space, Measuring(params, space=space.name, resolution=resolution), networks=drawn)
    return table, drawn, params


class Compared(NamedTuple):
    """The table next to independent timings, (table_ms, event_ms) each."""

    inside: list[tuple[float, float]]  # operations within runs of whole networks
    alone: list[tuple[float, float]]  # the same operations by themselves
    whole: list[tuple[float, float]]  # networks


def measure_latency(options: argparse.Namespace) -> Iterator[Row]:
    """The table of a small space against events: operations inside networks and alone, and whole networks."""
    size, space, device = sizes(options).table, small_space(options), open_device(options)
    start = time.perf_counter()
    table, networks, params = make_table(options, space, size.resolution, size.batch, size.minutes, size.networks)
    points = sum(len(curve.widths) for curve in table.curves.values())
    yield Row("table measured in", time.perf_counter() - start, "s", f"{len(table.curves)} operations, {points} widths")
    found = Compared([], [], [])
    with measuring(params.threads):
        for network in networks:
            time_network(network, table, size, params.num_classes, device, found)
    yield from compare("operations inside networks", found.inside)
    yield from compare("operations alone", found.alone, "warm caches: not what a network pays")
    yield from compare("whole networks", found.whole, "the sum of Eq. 4, not corrected")


def time_network(
    network: Architecture,
    table: LatencyTable,
    size: ProfileSize,
    num_classes: int,
    device: torch.device,
    found: Compared,
) -> None:
    """Add a network, and its searched operations, to what is compared."""
    stopwatch = Stopwatch(device)
    module, images = build(network_probe(network, size.resolution, num_classes, size.batch), device)
    found.whole.append((table.latency_ms(network), stopwatch.call_ms(partial(module, images), size.repeats)))
    inside_ms = blocks_ms(module, images, stopwatch, size.repeats)
    for (resolution, block), block_ms in zip(network.block_resolutions(size.resolution), inside_ms, strict=True):
        key, width = OperationKey.of_block(resolution, block), block.expand_channels
        if key not in table.curves:  # a fixed block
            continue
        found.inside.append((table.operation_ms(key, width), block_ms))
        alone = partial(*build(block_probe(key, width, size.batch), device))
        found.alone.append((table.operation_ms(key, width), stopwatch.call_ms(alone, size.repeats)))


def blocks_ms(network: nn.Module, images: Tensor, stopwatch: Stopwatch, repeats: int) -> list[float]:
    """Median milliseconds of each block within runs of the whole network, by marks before and after it."""
    marks: list[torch.cuda.Event | float] = []
    blocks = list(network.get_submodule("blocks").children())
    for block in blocks:
        block.register_forward_pre_hook(lambda *_: marks.append(stopwatch.mark()))
        block.register_forward_hook(lambda *_: marks.append(stopwatch.mark()))
    for _ in range(repeats):
        network(images)
    times = [stopwatch.between_ms(*pair) for pair in zip(marks[::2], marks[1::2], strict=True)]
    return np.median(np.reshape(times, (repeats, len(blocks))), axis=0).tolist()


def compare(what: str, pairs: list[tuple[float, float]], note: str = "") -> Iterator[Row]:
    """How far the table is from independent timings, in percent of these."""
    percent = np.array([100 * (table_ms / event_ms - 1) for table_ms, event_ms in pairs])
    counted = f"{len(pairs)} of {min(own for _, own in pairs):.3f} to {max(own for _, own in pairs):.3f} ms"
    yield Row(f"{what}: median error", float(np.median(abs(percent))), "%", counted)
    yield Row(f"{what}: mean", float(percent.mean()), "%", note)
    yield Row(f"{what}: largest", float(percent[abs(percent).argmax()]), "%")


# -- the steps of a search


def measure_steps(options: argparse.Namespace) -> Iterator[Row]:
    """Both steps in Table 1's space, each form in both precisions; and the authors' code where it is given."""
    size, device = sizes(options).steps, open_device(options)
    forms = forms_of_steps(options.authors)
    for precision in PRECISIONS:
        together: dict[str, float] = {}
        for name, make in forms.items():
            rows, together[name] = time_form(partial(make, precision=precision), size, device)
            yield from (row._replace(what=f"{name} {precision}: {row.what}") for row in rows)
        theirs = together.pop("authors", None)
        for name, seconds in together.items() if theirs else ():
            yield Row(f"authors / {name} {precision}", theirs / seconds, "x", "both steps together")


def forms_of_steps(authors: Path | None) -> dict[str, Callable[..., Steps]]:
    """What makes each form, given a batch and a precision; those that an interruption may cost come last."""
    forms: dict[str, Callable[..., Steps]] = {}
    for sharing in SHARINGS:
        forms[sharing] = partial(Ours, weight_sharing=sharing)
    if authors:
        forms["authors"] = partial(Authors, folder=authors)
    for sharing in SHARINGS:
        forms[f"{sharing}, one path"] = partial(Ours, weight_sharing=sharing, paths="one")
    return forms


def time_form(
    make: Callable[[tuple[Tensor, Tensor]], Steps], size: StepsSize, device: torch.device
) -> tuple[list[Row], float]:
    """Median seconds of both steps and their peak memory, in a fresh supernet; and the sum of the two medians."""
    random.seed(0)
    torch.manual_seed(0)
    images, labels = random_batch(size.batch, size.resolution)
    if device.type == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(device)
    form = make((images.to(device), labels.to(device)))
    taken: dict[str, list[float]] = {"weight_step": [], "architecture_step": []}
    for turn in range(size.warm_up + size.steps):
        for step, own in taken.items():
            seconds = timed(getattr(form, step), device)
            if turn >= size.warm_up:
                own.append(seconds)
    medians = {step: statistics.median(own) for step, own in taken.items()}
    rows = [Row(step.replace("_", " "), 1000 * median, "ms") for step, median in medians.items()]
    if device.type == "cuda":
        rows.append(Row("peak memory", torch.cuda.max_memory_allocated(device) / 2**30, "GiB"))
    return rows, sum(medians.values())


def timed(step: Callable[[], object], device: torch.device) -> float:
    """Seconds of a step, until the device is done."""
    synchronize(device)
    start = time.perf_counter()
    step()
    synchronize(device)
    return time.perf_counter() - start


# -- a short search


class InMemory:
    """Batches of images that are on the device already; the epoch decides their order."""

    def __init__(self, images: Tensor, labels: Tensor, batch_size: int) -> None:
        self._images, self._labels, self._batch_size, self._epoch = images, labels, batch_size, 0

    def set_epoch(self, epoch: int) -> None:
        self._epoch = epoch

    def __len__(self) -> int:
        return len(self._labels) // self._batch_size

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        order = torch.randperm(len(self._labels), generator=torch.Generator().manual_seed(self._epoch))
        for chosen in order.to(self._labels.device).split(self._batch_size)[: len(self)]:
            yield self._images[chosen], self._labels[chosen]


def run_search(options: argparse.Namespace) -> Iterator[Row]:
    """A search in the small space with the settings of the digits, on the images that are there."""
    size, space, device = sizes(options).search, small_space(options), open_device(options)
    cut = size.batch * size.batches
    images, labels, source = load_images(options.images, cut + max(cut // 4, size.batch), size.resolution)
    yield Row("images", source, note=f"{len(labels)}, {size.resolution} x {size.resolution}")
    table, _, latency = make_table(options, space, size.resolution, size.batch, size.minutes, 0)
    low, high = reachable_range_ms(space, table)
    target_ms = low + 0.4 * (high - low)
    images, labels = images.to(device), labels.to(device)
    loaders = Loaders(
        InMemory(images[:cut], labels[:cut], size.batch), InMemory(images[cut:], labels[cut:], size.batch), NUM_CLASSES
    )
    changes = {"epochs": size.epochs, "warmup_epochs": size.warm_up, "batch_size": size.batch}
    params = preset("digits").search.model_copy(update={**changes, "weight_sharing": SHARINGS[-1]})
    setting = Setting(params, device=device, precision="bfloat16" if device.type == "cuda" else "float32")
    records: list[EpochRecord] = []
    start = time.perf_counter()
    result = search(latency_constraint(space, table, target_ms), loaders, setting, on_epoch=records.append)
    yield Row("search", time.perf_counter() - start, "s", f"{params.weight_sharing}, {setting.precision}")
    yield from describe_search(records, result)
    network = result.derive("searched").architecture
    found = measure_architecture_ms(network, latency, resolution=size.resolution, repeats=10)
    yield Row("derived network by the table", table.latency_ms(network), "ms", f"target {target_ms:.3f} ms")
    yield Row("derived network measured", found.median_ms, "ms")


def describe_search(records: list[EpochRecord], result: SearchResult) -> Iterator[Row]:
    """Accuracy after the warm-up and at the end, and the seconds of a step."""
    warm = next(record for record in reversed(records) if record.architecture_loss is None)
    yield Row(
        "sampled paths after the warm-up",
        warm.val_top1,
        "%",
        f"epoch {warm.epoch}; chance is {100 / NUM_CLASSES:.0f} %",
    )
    last = records[-1]
    yield Row("sampled paths at the end", last.val_top1, "%", f"epoch {last.epoch}")
    for what, seconds in (
        ("weight", last.seconds_per_weight_step),
        ("architecture", last.seconds_per_architecture_step),
    ):
        assert seconds is not None
        yield Row(f"{what} step", 1000 * seconds, "ms")


def load_images(folder: Path | None, count: int, resolution: int) -> tuple[Tensor, Tensor, str]:
    """(N, 3, H, W) normalized images, (N,) labels and where they are from: IDX files, else made ones."""
    for place in (folder,) if folder else FOLDERS:
        if any((place / f"{IMAGES}{suffix}").is_file() for suffix in ("", ".gz")):
            pixels, labels = (torch.from_numpy(read_idx(place, name)[:count]) for name in (IMAGES, LABELS))
            gray = functional.pad(pixels[:, None].float() / 255, (2, 2, 2, 2))  # 28 to 32
            return normalized(gray, resolution), labels.long(), str(place)
    if folder:
        raise FileNotFoundError(f"--images {folder}: has no {IMAGES} or {IMAGES}.gz")
    generator = torch.Generator().manual_seed(0)
    shapes = torch.rand(NUM_CLASSES, 1, 32, 32, generator=generator)
    labels = torch.randint(NUM_CLASSES, (count,), generator=generator)
    noisy = shapes[labels] + torch.rand(count, 1, 32, 32, generator=generator)
    return normalized(noisy, resolution), labels, "made: ten patterns and noise"


def normalized(gray: Tensor, resolution: int) -> Tensor:
    """(N, 1, H, W) to (N, 3, R, R), zero mean and unit deviation over all."""
    sized = functional.adaptive_avg_pool2d(gray, resolution)
    return ((sized - sized.mean()) / sized.std()).expand(-1, 3, -1, -1).contiguous()


def read_idx(folder: Path, name: str) -> np.ndarray:
    """The bytes of an IDX file, gzip or not, in its own shape."""
    path = folder / name
    content = path.read_bytes() if path.is_file() else gzip.decompress((folder / f"{name}.gz").read_bytes())
    if content[:3] != b"\0\0\x08":
        raise ValueError(f"{path}: is not an IDX file of bytes; download it again")
    axes = content[3]
    shape = np.frombuffer(content, ">u4", axes, offset=4)
    return np.frombuffer(content, np.uint8, offset=4 + 4 * axes).reshape(shape.astype(int)).copy()


# -- retraining


def measure_retraining(options: argparse.Namespace) -> Iterator[Row]:
    """Images a second of TF-NAS-A by the paper's recipe, on images that are on the device already."""
    size, device = sizes(options).retrain, open_device(options)
    recipe = preset("imagenet-gpu").retrain
    for precision in PRECISIONS:
        if device.type == "cuda":
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats(device)
        network = build_network(zoo.load("TF-NAS-A"), dropout=0.2, drop_connect=recipe.drop_connect)
        stepper = TrainingStepper(network, recipe, device=device, precision=precision)
        stepper.train_mode()
        images, labels = random_batch(size.batch, size.resolution)
        batch = stepper.to_device(images, labels)
        train(stepper, batch, size.warm_up)
        seconds = timed(partial(train, stepper, batch, size.steps), device)
        shape = f"TF-NAS-A, batch {size.batch}, {size.resolution} x {size.resolution}"
        yield Row(f"retraining {precision}", size.batch * size.steps / seconds, "images/s", shape)
        if device.type == "cuda":
            yield Row(f"retraining {precision}: peak memory", torch.cuda.max_memory_allocated(device) / 2**30, "GiB")


def train(stepper: TrainingStepper, batch: tuple[Tensor, Tensor], steps: int) -> None:
    """Steps on one batch; the device is not waited for."""
    for _ in range(steps):
        stepper.step([batch], rate=0.1)
