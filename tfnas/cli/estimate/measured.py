"""Everything that an estimate needs: images listed, networks and steps measured."""

from __future__ import annotations

import os
import tempfile
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from tfnas.cli.estimate.networks import Reach, measure_ms, measure_reach
from tfnas.cli.estimate.schedule import ImageCounts, StepTimes
from tfnas.cli.estimate.step_times import Pictures, measure_step_times
from tfnas.data.images.stores import Store, describe, open_store, write_source
from tfnas.data.manifest import ManifestRecord
from tfnas.data.sources.digits import write_digits
from tfnas.data.sources.registry import SOURCES
from tfnas.jobs.errors import UserError
from tfnas.latency.measuring import network_probe
from tfnas.space import Architecture, Space, load_space
from tfnas.space.given import given_network
from tfnas.stages.params import Params


class Measured(NamedTuple):
    """What was measured for a params.yaml."""

    counts: ImageCounts
    reach: Reach
    times: StepTimes
    busy_cores: float = 0.0  # that other programs wanted before measuring, on the mean of a minute


def measure(params: Params, reach: Reach | None = None) -> Measured:
    """List the images, and measure networks and steps.

    Args:
        reach: the networks, where they are measured already.

    Raises:
        UserError: images, device or backend are absent.
    """
    busy = os.getloadavg()[0]
    with tempfile.TemporaryDirectory() as folder:
        records, store = _open(params, Path(folder))
        paths = [record.path for record in records if record.split == "train"]
        pictures = Pictures(paths, store)
    counts = count_images(records, pictures.mean_bytes)
    space = load_space(params.space)
    reach = reach or measure_reach(space, params.profile_latency, params.resolution)
    networks = _networks(params, space, reach)
    return Measured(counts, reach, measure_step_times(params, space, pictures, networks, sorted(counts.train)), busy)


def _networks(params: Params, space: Space, reach: Reach) -> dict[str, tuple[list[Architecture], float]]:
    """Each target's network, or some near what a search will find, and the latency in milliseconds."""
    given = {
        name: given_network(target.constraint.architecture, key=f"targets.{name}.constraint.architecture")
        for name, target in params.targets.items()
        if target.constraint.architecture is not None
    }
    profile, size = params.profile_latency, params.resolution
    probes = {name: network_probe(one, size, profile.num_classes, profile.batch_size) for name, one in given.items()}
    latencies_ms = measure_ms(probes, profile, size) if given else {}
    limits_ms = {
        name: reach.limit_ms(target.constraint) for name, target in params.targets.items() if name not in given
    }
    return {
        name: ([given[name]], latencies_ms[name])
        if name in given
        else (reach.networks_at(space, limits_ms[name]), limits_ms[name])
        for name in params.targets
    }


def count_images(records: Sequence[ManifestRecord], picture_bytes: float = 0.0) -> ImageCounts:
    """The numbers of a listing."""
    train = Counter(record.class_name for record in records if record.split == "train")
    return ImageCounts(train, sum(record.split == "val" for record in records), picture_bytes)


def check_limits(params: Params, reach: Reach, *, command: str) -> None:
    """Raise UserError for a target that lies outside of what was measured."""
    for name, target in params.targets.items():
        limit_ms = target.constraint.latency_ms
        if limit_ms is not None:
            check_limit(limit_ms, reach, f"{command}: targets.{name}.constraint.latency_ms: {limit_ms:g}", params)


def check_limit(limit_ms: float, reach: Reach, given: str, params: Params) -> None:
    """Raise UserError for a latency below the fastest or above the slowest network, which are measured quickly."""
    if reach.fastest_ms <= limit_ms <= reach.slowest_ms:
        return
    profile = params.profile_latency
    raise UserError(
        f"{given}: networks of space {params.space} at {params.resolution} pixels take about {reach.fastest_ms:.3g} to"
        f" {reach.slowest_ms:.3g} ms on {profile.device} ({profile.backend}, {profile.threads} thread"
        f"{'s' if profile.threads > 1 else ''}); choose a limit between them, or another resolution"
    )


def _open(params: Params, folder: Path) -> tuple[list[ManifestRecord], Store]:
    """The images as prepare_data lists them, those that it makes in a folder."""
    settings = params.prepare_data
    if settings.folder is None:
        return write_digits(folder, params.resolution), open_store(folder)[0]
    source, root = SOURCES[settings.source], Path(settings.folder)
    source.check(root)
    records = source.scan(root, settings).records
    write_source(folder / "images", describe(source.store, str(root.resolve()), settings.on_bad_image, settings.exif))
    return records, open_store(folder / "images")[0]
