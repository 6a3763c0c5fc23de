"""Whole networks against the table: random members, exact agreement where blocks add up, and the metrics."""

from __future__ import annotations

import csv

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import rankdata
from torch import nn

from tfnas.latency import measure_architecture_ms
from tfnas.latency.profiler import profile_space
from tfnas.latency.validation import (
    Validated,
    mean_interval,
    published_members,
    random_architecture,
    validated,
    validation_metrics,
    validation_networks,
    write_validation,
)
from tfnas.space import Architecture, Space, count_params, load_space, zoo
from tfnas.space.membership import assemble, violations


@pytest.mark.parametrize("name", ["tf-nas", "mobilenet-v2"])
def test_random_networks_are_members_and_use_all_the_freedom(name) -> None:
    space, random = load_space(name), np.random.default_rng(0)
    networks = [random_architecture(space, f"random-{i}", random) for i in range(150)]
    assert not [line for network in networks for line in violations(network, space)]
    for stage in space.searchable_stages:
        blocks = [[b for b in network.blocks if b.stage == stage.stage] for network in networks]
        assert {len(row) for row in blocks} == set(range(stage.min_depth, stage.max_depth + 1))
        first = {(row[0].kernel, row[0].se_channels) for row in blocks}
        assert first == {(c.kernel, c.se_channels(stage.in_channels)) for c in space.candidates}


def test_random_networks_are_of_all_sizes() -> None:
    """By weights, each quarter of the way from the smallest network to the largest one has some."""
    space = load_space("tf-nas")
    sizes = np.log([count_params(network, 10) for network in validation_networks(space, 24, seed=0)])
    low, high = (np.log(count_params(extreme_network(space, largest), 10)) for largest in (False, True))
    shares = (sizes - low) / (high - low)
    assert set(np.digitize(shares, (0.25, 0.5, 0.75))) == {0, 1, 2, 3}


def extreme_network(space: Space, largest: bool) -> Architecture:
    """The network of fewest or most weights: widths and squeeze-and-excitation decide."""
    choose, place = (max, 1) if largest else (min, 0)
    choices = {}
    for stage in space.searchable_stages:
        candidate = choose(space.candidates, key=lambda c: (c.expand_range[place], c.se_ratio, c.kernel))
        inputs = [stage.in_channels] + [stage.out_channels] * ((stage.max_depth if largest else stage.min_depth) - 1)
        choices[stage.stage] = [(candidate, candidate.width_range(channels)[place]) for channels in inputs]
    return assemble(space, "extreme", choices)


def test_table_agrees_where_latencies_are_linear_and_add_up(space, fake_device, make_measuring) -> None:
    """Weights are linear in the width, so with one microsecond a weight the sum of Eq. 4 is the network's latency."""

    class ByWeights(fake_device):
        def prepare(self, module: nn.Module, example: torch.Tensor):
            def run() -> None:
                self.now_ms += 1e-3 * sum(parameter.numel() for parameter in module.parameters())

            return run

    networks = validation_networks(space, 8, seed=3)
    table, networks_ms = profile_space(space, make_measuring(ByWeights()), networks=networks)
    rows = validated(table, networks, networks_ms)
    assert len(rows) == 8 and len({row.table_ms for row in rows}) > 4
    assert [row.table_ms for row in rows] == pytest.approx([row.measured_ms for row in rows])
    metrics = validation_metrics(rows)
    assert metrics["mean_absolute_percentage_error"] == pytest.approx(0, abs=1e-6)
    assert metrics["spearman"] == pytest.approx(1)
    assert metrics["kendall"] == pytest.approx(1)
    assert validation_networks(space, 8, seed=3) == networks
    assert len({row.network for row in rows}) == 8


MS = st.floats(0.5, 50)


@given(st.lists(st.tuples(MS, MS), min_size=1, max_size=12))
def test_metrics_against_their_definitions(pairs) -> None:
    rows = [Validated(f"n{i}", table_ms, measured_ms) for i, (table_ms, measured_ms) in enumerate(pairs)]
    metrics = validation_metrics(rows)
    errors = [100 * (table_ms - measured_ms) / measured_ms for table_ms, measured_ms in pairs]
    assert metrics["mean_absolute_percentage_error"] == pytest.approx(sum(map(abs, errors)) / len(errors), abs=1e-6)
    assert metrics["bias_percent"] == pytest.approx(sum(errors) / len(errors), abs=1e-6)
    columns = list(zip(*pairs, strict=True))
    if all(len(set(column)) > 1 for column in columns):
        ranks = [rankdata(column) for column in columns]
        assert metrics["spearman"] == pytest.approx(np.corrcoef(*ranks)[0, 1], abs=1e-9)
    else:
        assert "spearman" not in metrics


def test_no_network_gives_no_metric_and_a_file_with_a_header(tmp_path) -> None:
    assert validation_metrics([]) == {}
    write_validation([], tmp_path / "validation.csv")
    assert (tmp_path / "validation.csv").read_text() == "network,table_ms,measured_ms\n"


def test_file_holds_the_rows(tmp_path) -> None:
    rows = [Validated("random-1", 1.25, 1.5), Validated("random-2", 2.0, 0.125)]
    write_validation(rows, tmp_path / "validation.csv")
    with (tmp_path / "validation.csv").open() as file:
        assert [Validated(n, float(t), float(m)) for n, t, m in list(csv.reader(file))[1:]] == rows


def test_one_network_is_measured_whole_without_touching_random_state(space, make_profile_params) -> None:
    architecture = random_architecture(space, "random", np.random.default_rng(0))
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    params = make_profile_params(num_classes=3, batch_size=1, device="cpu", threads=1, warmup_runs=0)
    timing = measure_architecture_ms(architecture, params, resolution=16, repeats=3)
    assert timing.median_ms > 0 and timing.repeats == 3
    assert torch.equal(torch.rand(3), expected)


def test_random_networks_have_stages_of_favored_widths_as_published_ones_do() -> None:
    """TF-NAS-C and both of the CPU are multiples of 8 throughout, TF-NAS-A has hardly one."""
    networks = validation_networks(load_space("tf-nas"), 60, seed=0)
    shares = [
        np.mean([block.expand_channels % 8 == 0 for block in network.blocks if block.stage == 5])
        for network in (*networks, zoo.load("TF-NAS-C"))
    ]
    assert shares[-1] == 1.0
    assert 0.25 < np.mean(np.array(shares[:-1]) == 1.0) < 0.75


@pytest.mark.parametrize("name", ["tf-nas", "tf-nas-wose", "mobilenet-v2"])
def test_published_networks_of_a_space(name) -> None:
    found = published_members(load_space(name))
    assert {network.name for network in found} == {n for n in zoo.names() if zoo.load(n).space == name}


def test_published_networks_are_judged_apart() -> None:
    rows = [Validated(f"random-{i}", 1.1, 1.0 + 0.001 * i) for i in range(6)] + [Validated("TF-NAS-A", 1.5, 2.0)]
    metrics = validation_metrics(rows)
    assert metrics["bias_percent"] == pytest.approx(9.7, abs=0.1)
    assert metrics["published_bias_percent"] == pytest.approx(-25)
    assert "published_mean_absolute_percentage_error_low" not in metrics  # of one network, nothing can be said
    error = "mean_absolute_percentage_error"
    assert metrics[f"{error}_low"] <= metrics[error] <= metrics[f"{error}_high"]


@pytest.mark.parametrize("count", [6, 10, 32])
def test_interval_holds_the_mean_error_in_nearly_95_of_100_cases(count, monkeypatch) -> None:
    monkeypatch.setattr("tfnas.latency.validation.RESAMPLES", 600)
    random = np.random.default_rng(0)
    truth = np.sqrt(2 / np.pi)  # mean of |normal|
    intervals = [mean_interval(abs(random.normal(size=count))) for _ in range(400)]
    held = np.mean([low <= truth <= high for low, high in intervals])
    assert 0.9 <= held <= 0.99
