"""What `tfnas suggest` finds and says: images, device, limit, time, what to expect, and the cheaper alternative."""

from __future__ import annotations

import argparse
import shlex
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from tfnas.cli.estimate import duration, time_table
from tfnas.cli.estimate.measured import Measured, check_limit, count_images, measure
from tfnas.cli.estimate.networks import measure_ms, measure_reach
from tfnas.cli.estimate.schedule import job_times, search_steps, total_seconds, training_steps
from tfnas.cli.init.presets import Preset, TrainingImages
from tfnas.cli.init.sizes import FEW as FEW_TO_TRAIN
from tfnas.cli.init.sizes import IMBALANCE
from tfnas.cli.suggest import TARGET
from tfnas.compute.devices import allowed_cpus, device_name, find_device, visible_gpus
from tfnas.data.sources.image_folder import scan_image_folder
from tfnas.data.verify import find_duplicates, find_kinds
from tfnas.jobs.errors import UserError
from tfnas.space import load_space
from tfnas.stages.params import Params, load_params

FEW, MANY = 100, 1000  # training images of a class
TEACHERS = "inputs/teachers"
WEIGHTS = "inputs/weights"  # where params.yaml may name files of weights
WEIGHT_FOLDERS = (Path("~/.cache/torch/hub/checkpoints"), Path(WEIGHTS))


class Known(NamedTuple):
    """A network that need not be searched."""

    name: str
    latency_ms: float
    top1: float  # percent on ImageNet, as published
    weights: Path | None  # at hand
    is_published: bool  # by the paper, so that the pipeline can train it


def check_device(name: str) -> tuple[str, str]:
    """Where to train, a GPU if there is one, and where to measure.

    Raises:
        UserError: no such device.
    """
    import torch

    find_device(name, source="suggest: --device")
    return ("cuda" if torch.cuda.is_available() else "cpu"), name


def suggest(
    options: argparse.Namespace, images: TrainingImages, preset: Preset, shortened: Callable[[float], Preset]
) -> tuple[str, str]:
    """The text of params.yaml, and what to print.

    Raises:
        UserError: a limit that no network reaches, or hours that are too few.
    """
    params = _typed(preset)
    reach = measure_reach(load_space(params.space), params.profile_latency, params.resolution)
    wanted = params.targets[TARGET].constraint
    if wanted.latency_ms is not None:
        check_limit(wanted.latency_ms, reach, f"suggest: --limit {options.limit}", params)
    measured = measure(params, reach)
    if options.hours is not None:
        preset = _fit_hours(options.hours, measured, preset, shortened)
        params = _typed(preset)
    limit_ms = reach.limit_ms(wanted)
    known = known_networks(params)
    parts = [
        describe_images(options.data, images, params),
        describe_device(params, measured, limit_ms),
        describe_plan(params, measured),
        time_table(params, measured),
        describe_expectation(images, params),
        *describe_options(images),
        describe_alternative(known, limit_ms),
    ]
    return preset.render(), "\n\n".join(parts)


def _typed(preset: Preset) -> Params:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "params.yaml"
        path.write_text(preset.render(), encoding="utf-8")
        return load_params(path)


def _fit_hours(hours: float, measured: Measured, preset: Preset, shortened: Callable[[float], Preset]) -> Preset:
    """The longest run within some hours, of the shares 1, 0.95 and so on.

    Raises:
        UserError: the shortest takes longer.
    """
    cores, share, taken = allowed_cpus(), 1.0, 0.0
    while share > 0:
        params = _typed(preset)
        jobs = job_times(params, measured.counts, measured.times, cores)
        taken = total_seconds(jobs, params, cores, len(visible_gpus()))
        if taken <= 3600 * hours:
            return preset
        share = round(share - 0.05, 2) if share > 0.05 else round(share - 0.01, 2)
        preset = shortened(max(share, 0.001))
    raise UserError(
        f"suggest: --hours {hours:g}: the shortest sensible run takes about {duration(taken)}; allow as much"
    )


def describe_images(root: Path, images: TrainingImages, params: Params) -> str:
    """How many of which class, how large, and what is odd about them."""
    counts, total = images.counts, sum(images.counts.values())
    (most, largest), (least, smallest) = counts.most_common(1)[0], counts.most_common()[-1]
    lines = [
        f"Images: {total:,} to train on and {images.val:,} to validate on, in {len(counts)} classes, from {smallest}"
        f" ({least}) to {largest} ({most}) each; scaled to {params.resolution} x {params.resolution} pixels."
    ]
    if largest > IMBALANCE * smallest:
        lines.append("  The classes are unequal: retraining draws each as often as any other (sampler: balanced).")
    records = scan_image_folder(root, val_fraction=params.prepare_data.val_fraction).records
    twins, kinds = find_duplicates(root, records), find_kinds(root, records)
    if twins.splits:
        lines.append(
            f"  {len(twins.splits)} images of val are in train as well: remove them, or accuracy looks too good."
        )
    if twins.classes:
        lines.append(f"  {len(twins.classes)} images are in two classes: remove one of each.")
    lines += [f"  {len(paths)} {words}." for words, paths in kinds.said(params.prepare_data.exif)]
    assert count_images(records).all_train == total
    return "\n".join(lines)


def describe_device(params: Params, measured: Measured, limit_ms: float) -> str:
    """What it is, and where the limit is between the fastest and the slowest network."""
    reach, profile = measured.reach, params.profile_latency
    trains = "" if params.device.name == "cpu" else f"; trains on {device_name(params.device.name)}"
    return (
        f"Device: {device_name(profile.device)}, {_cores()}{trains}.\n"
        f"  Networks of space {params.space} take about {reach.fastest_ms:.3g} to {reach.slowest_ms:.3g} ms with"
        f" {profile.backend}, batch {profile.batch_size}, {profile.threads} thread{'s' if profile.threads > 1 else ''};"
        f" the limit is about {limit_ms:.3g} ms."
    )


def _cores() -> str:
    cpus = allowed_cpus()
    return f"{cpus} core{'s' if cpus > 1 else ''}"


def describe_plan(params: Params, measured: Measured) -> str:
    """What a run does, in steps."""
    steps, _, _ = search_steps(params, measured.counts)
    trained, _ = training_steps(params.retrain, measured.counts.all_train, measured.counts.val)
    search, retrain = params.search, params.retrain
    return (
        f"Plan: measure the operations on the device ({params.profile_latency.minutes:g} min); train a supernet of all"
        f" networks on {params.build_subset.groups} classes for {search.epochs} epochs of {steps} steps, of which"
        f" {search.warmup_epochs} before it starts to choose;\n  take the best network within the limit, and train it"
        f" for {retrain.epochs} epochs of {trained} steps at batch {retrain.batch_size}."
    )


def describe_expectation(images: TrainingImages, params: Params) -> str:
    """In plain words, without a number that nobody can know."""
    mean = sum(images.counts.values()) / len(images.counts)
    if mean < FEW:
        words = (
            f"{mean:.0f} images of a class are few for a network trained from scratch: it will tell classes apart that"
            " differ in color and shape,\n  not in details. A pretrained network, fine-tuned, or as teacher, is"
            " likely to be more accurate."
        )
    elif mean < MANY:
        words = (
            f"{mean:.0f} images of a class allow a usable network from scratch, but a pretrained one, fine-tuned, is"
            " likely to be more accurate."
        )
    else:
        words = f"{mean:.0f} images of a class are enough to train from scratch."
    noise = f"\n  With {images.val} validation images, accuracy is known to about {100 / images.val**0.5:.0f} points."
    return f"Expect: {words}{noise}"


def describe_options(images: TrainingImages) -> list[str]:
    """What is different with few images of a class, and what is worth a try; what it brings, nobody knows before."""
    mean = sum(images.counts.values()) / len(images.counts)
    if mean >= FEW_TO_TRAIN:
        return []
    return [
        "Few images: training starts from the supernet's weights (retrain.initial), not from scratch.\n"
        "  To try: a teacher that is more accurate than the network itself may help, such as a pretrained one,\n"
        f"  fine-tuned on your images (retrain.teacher, a file in {TEACHERS}/). The network of rank_classes,\n"
        "  trained on these few images alone, is likely to harm. `tfnas estimate` says how long it takes then."
    ]


def describe_alternative(known: list[Known], limit_ms: float) -> str:
    """Fine-tuning the best network within the limit that has weights here; else, which one it would be."""
    fitting = sorted((one for one in known if one.latency_ms <= limit_ms), key=lambda one: -one.top1)
    at_hand = [one for one in fitting if one.weights is not None]
    if not fitting:
        return "Cheaper: none of the published networks is within the limit at this resolution."
    if not at_hand:
        best = next((one for one in fitting if one.is_published), fitting[0])
        folders = " or ".join(map(str, WEIGHT_FOLDERS))
        return (
            f"Cheaper: fine-tune {_say(best)}; its weights are not in {folders}."
            f"{_how(best, 'FILE.pth.tar') if best.is_published else ''}"
        )
    best = at_hand[0]
    return (
        f"Cheaper: fine-tune {_say(best)}; its weights are in {best.weights}."
        f"{_how(best, shlex.quote(str(best.weights)))}"
    )


def _say(one: Known) -> str:
    return f"{one.name} (about {one.latency_ms:.3g} ms here, {one.top1:.1f} % on ImageNet)"


def _how(one: Known, weights: str) -> str:
    """The commands and keys that do it, for a network of the paper.

    Args:
        weights: file of the authors, as in a command.
    """
    if not one.is_published:
        return (
            "\n  The pipeline does not train it; fine-tuned on your images elsewhere, it can be a teacher"
            f" (retrain.teacher, a file in {TEACHERS}/)."
        )
    ours = f"{WEIGHTS}/{one.name}.pt"
    return (
        f"\n  tfnas import weights {weights} --architecture {one.name} --out {ours}\n"
        "  Then write these keys, for no search, and fewer epochs of retraining:\n"
        f"    targets.{TARGET}.constraint: {{architecture: {one.name}}}\n"
        "    search.epochs: 0\n"
        f"    retrain.initial: {ours}"
    )


def known_networks(params: Params) -> list[Known]:
    """The paper's networks, and torchvision's whose weights are at hand, measured quickly."""
    from torchvision.models import get_model, get_model_weights

    from tfnas.latency.baselines import TORCHVISION
    from tfnas.latency.measuring import network_probe
    from tfnas.latency.timing import Probe
    from tfnas.space import zoo

    profile, size = params.profile_latency, params.resolution
    files = {name: _file(name) for name in zoo.names()}
    top1 = {name: zoo.published(name).top1 for name in files}
    probes = {
        name: network_probe(zoo.load(name), size, profile.num_classes, profile.batch_size) for name in zoo.names()
    }
    for name in TORCHVISION:
        weights = get_model_weights(name)["IMAGENET1K_V1"]
        if (found := _file(Path(weights.url).stem)) is not None:
            files[name], top1[name] = found, float(weights.meta["_metrics"]["ImageNet-1K"]["acc@1"])
            shape = (profile.batch_size, 3, size, size)
            probes[name] = Probe(lambda name=name: get_model(name, weights=None), shape)  # type: ignore[misc]
    measured = measure_ms(probes, profile, size)
    return [Known(name, ms, top1[name], files[name], name in zoo.names()) for name, ms in measured.items()]


def _file(stem: str) -> Path | None:
    """A file of weights whose name begins so."""
    for folder in WEIGHT_FOLDERS:
        found = next(iter(sorted(folder.expanduser().glob(f"{stem}*.pth*"))), None)
        if found is not None:
            return found
    return None
