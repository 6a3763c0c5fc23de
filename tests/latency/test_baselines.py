"""Baselines: multiply-adds by two counts, what is published, and the comparison on a device of known latencies."""

from __future__ import annotations

import csv

import pytest
import torch

from tfnas.latency import Curve, LatencyTable
from tfnas.latency.baselines import (
    TORCHVISION,
    Conditions,
    compare,
    count_module_macs,
    paper_baselines,
    table_ms,
    torchvision_baselines,
    write_comparison,
)
from tfnas.latency.profiler import operation_ranges
from tfnas.latency.timing import Timer
from tfnas.space import load_space, zoo


@pytest.fixture(scope="module")
def baselines():
    return [*paper_baselines(224), *torchvision_baselines(224)]


@pytest.fixture(scope="module")
def wide_table():
    """Every operation of tf-nas at 224 takes a microsecond a channel."""
    ranges = operation_ranges(load_space("tf-nas"), 224).items()
    curves = {key: Curve((low, high), (low * 1e-3, high * 1e-3)) for key, (low, high) in ranges}
    return LatencyTable("tf-nas", 224, 1, "Known", 1.0, curves)


def test_hooks_count_what_the_architecture_says(baselines) -> None:
    for baseline in baselines:
        if baseline.architecture is not None:
            with torch.device("meta"):
                module = baseline.build().eval()
            assert count_module_macs(module, 224) == baseline.macs
            assert sum(parameter.numel() for parameter in module.parameters()) == baseline.params


def test_torchvision_says_the_same_of_its_networks(baselines) -> None:
    from torchvision.models import get_model_weights

    for baseline in baselines:
        if baseline.name in TORCHVISION:
            meta = get_model_weights(baseline.name)["IMAGENET1K_V1"].meta
            assert baseline.params == meta["num_params"]
            assert baseline.macs == pytest.approx(1e9 * meta["_ops"], abs=1e6)  # published in thousandths


def test_published_accuracy_names_its_source(baselines) -> None:
    found = {baseline.name: (baseline.top1, baseline.source) for baseline in baselines}
    assert len(found) == 12 + len(TORCHVISION) and set(zoo.names()) < set(found)
    assert found["TF-NAS-A"] == (76.9, "TF-NAS paper Table 9")
    assert found["TF-NAS-MBV2-A"] == (75.3, "TF-NAS paper Table 11")
    assert found["mobilenet_v2"] == (71.878, "torchvision IMAGENET1K_V1")


def test_networks_are_compared_fastest_first_with_the_table_beside_them(
    baselines, wide_table, fake_device, tmp_path
) -> None:
    device = fake_device()
    chosen = [baseline for baseline in baselines if baseline.name in ("TF-NAS-A", "TF-NAS-D-wose", "mnasnet0_5")]
    conditions = Conditions(threads=1, batch_size=1, resolution=224, repeats=2, seed=0)
    rows = compare(chosen, device, Timer(torch.device("cpu"), 0, device.stopwatch), conditions, wide_table)
    for row in rows:  # the fake device takes 1e-3 ms a weight
        assert row.timing.median_ms == pytest.approx(1e-3 * row.baseline.params)
    assert [row.timing.median_ms for row in rows] == sorted(row.timing.median_ms for row in rows)
    write_comparison(rows, tmp_path / "c.csv")
    with (tmp_path / "c.csv").open() as file:
        written = {row["network"]: row for row in csv.DictReader(file)}
    a = next(baseline for baseline in chosen if baseline.name == "TF-NAS-A")
    assert float(written["TF-NAS-A"]["table_ms"]) == pytest.approx(wide_table.latency_ms(a.architecture))
    assert written["mnasnet0_5"]["table_ms"] == "" == written["TF-NAS-D-wose"]["table_ms"]
    assert written["mnasnet0_5"]["params"] == "2218512"


def test_table_says_nothing_of_other_spaces(baselines, wide_table) -> None:
    for baseline in baselines:
        inside = baseline.architecture is not None and baseline.architecture.space == "tf-nas"
        assert (table_ms(baseline, wide_table) is not None) == inside, baseline.name
        assert table_ms(baseline, None) is None
