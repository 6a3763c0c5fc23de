"""Stage rank_baselines: the random networks to compare with, evaluated in the target's searched supernet.

The report compares the order that the supernet gives them with that of training each alone. Nothing is trained here.
Known networks are not of the space, so there is nothing to evaluate.
"""

from __future__ import annotations

import csv
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from tfnas.compute import distributed
from tfnas.compute.devices import open_device
from tfnas.data import image_root, read_samples
from tfnas.jobs.artifacts import atomic_path, write_json
from tfnas.jobs.progress import track
from tfnas.latency.params import KNOWN, baseline_kind
from tfnas.search.constraint import read_constraint
from tfnas.search.derivation.strongest import Derived
from tfnas.search.epoch import set_epoch
from tfnas.search.evaluation import top1_at_own_widths
from tfnas.search.random_networks import random_baseline
from tfnas.search.result import SearchResult, read_searched
from tfnas.search.session import held_out_loader
from tfnas.search.state import Setting
from tfnas.stages.job import Job

COLUMNS = ("network", "kind", "top1_percent")


class Checked(NamedTuple):
    """The supernet, and the networks by their names in `baselines.networks`."""

    searched: SearchResult
    networks: dict[str, Derived]


def check(job: Job) -> Checked:
    """The target's supernet, and the networks that scale_baseline draws as well.

    Raises:
        UserError: a file is damaged, or of another space or latency; no network reaches the target.
    """
    assert job.target is not None
    params = job.params
    constraint = read_constraint(params, job.target, job.inputs["table"])
    searched = read_searched(job.inputs["supernet"], constraint, job.target)
    names = [name for name in params.baselines.networks if baseline_kind(name) != KNOWN]
    networks = {name: random_baseline(constraint, job.target, name, params.seed) for name in names}
    return Checked(searched, networks)


def run(job: Job, checked: Checked) -> None:
    """Write supernet_top1.csv and metrics.json into `job.out`.

    The images are all of the 20 % that did not train the weights, in whole batches and in the order of the search's
    last epoch. (The search itself looks at the first `search.evaluation.batches` of them.)
    """
    params = job.params
    device = open_device(params.device.name, params.device.threads)
    root = image_root(params.prepare_data.root, job.inputs["images"])
    batches = held_out_loader(params, read_samples(job.inputs["val"]), root, device)
    set_epoch(batches, params.search.epochs - 1)
    setting = Setting(params.search, params.seed, device, params.device.precision)
    with distributed.process_group(device):
        named = track(checked.networks.items(), label="/".join(job.name), total=len(checked.networks))
        top1 = {name: top1_at_own_widths(checked.searched, network, batches, setting) for name, network in named}
    if distributed.rank() > 0:
        return
    metrics = {f"{name}_top1_percent": value for name, value in top1.items()}
    images = len(batches) * params.search.batch_size
    _write_top1(top1, job.out / "supernet_top1.csv")
    write_json(job.out / "metrics.json", {"networks": len(top1), "images": images, **metrics})
    job.run.log_metrics(metrics)


def _write_top1(top1: Mapping[str, float], path: Path) -> None:
    """One row per network, as CSV; without networks the header alone."""
    with atomic_path(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(COLUMNS)
        writer.writerows((name, baseline_kind(name), value) for name, value in top1.items())
