"""Whole networks against the table: random members, sums that are exact, metrics, and the correction."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binom, rankdata
from torch import nn

from tfnas.jobs.errors import UserError
from tfnas.latency import measure_architecture_ms, reachable_range_ms
from tfnas.latency.profiler import profile_space
from tfnas.latency.validation import (
    CONFIDENCE,
    FEWEST_FOR_FIT,
    Validated,
    apply_calibration,
    fit_calibration,
    mean_interval,
    published_members,
    random_architecture,
    read_validation,
    share_interval,
    validated,
    validation_metrics,
    validation_networks,
    write_validation,
)
from tfnas.space import Architecture, Space, count_params, load_space, zoo
from tfnas.space.membership import assemble, violations
from tfnas.stages.profile_latency import calibrated


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
    for limit in (5, 10):
        hits = sum(abs(error) <= limit for error in errors)
        assert metrics[f"within_{limit}_percent"] == pytest.approx(100 * hits / len(errors))
        assert (f"within_{limit}_percent_low" in metrics) is (len(errors) >= 5)


def test_no_network_gives_no_metric_and_a_file_with_a_header(tmp_path) -> None:
    assert validation_metrics([]) == {}
    write_validation([], tmp_path / "validation.csv")
    assert (tmp_path / "validation.csv").read_text() == "network,table_ms,measured_ms,unseen_ms\n"


def test_file_is_read_back(tmp_path: Path) -> None:
    path = tmp_path / "validation.csv"
    rows = [Validated("random-1", 1.25, 1.5, 1.25), Validated("TF-NAS-A", 2.0, 0.125, 3.0)]
    write_validation(rows, path)
    assert read_validation(path) == rows
    unjudged = [row._replace(unseen_ms=None) for row in rows]
    write_validation(unjudged, path)
    assert validation_metrics(read_validation(path)) == validation_metrics(unjudged)
    for damaged in ("network,table_ms\nrandom-1,1.0\n", "network,measured_ms,unseen_ms\nrandom-1,1.0,1.0\n"):
        path.write_text(damaged)
        with pytest.raises(UserError, match="cannot be read as a validation"):
            read_validation(path)


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
    assert metrics["published_within_10_percent"] == 0 and metrics["within_10_percent"] > 0
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


@given(
    st.floats(0.6, 1.9),
    st.floats(-0.4, 3),
    st.lists(st.floats(1, 30), min_size=FEWEST_FOR_FIT, max_size=30, unique=True),
)
def test_affine_truth_is_found(scale, offset, sums) -> None:
    measured = [scale * ms + offset for ms in sums]
    factors = [ms / own for ms, own in zip(measured, sums, strict=True)]
    found = fit_calibration(sums, measured)
    if max(sums) - min(sums) > 1 and min(factors) > 0.51 and max(factors) < 1.99:
        corrected = [found.scale * ms + found.offset_ms for ms in sums]
        assert corrected == pytest.approx(measured, rel=1e-3, abs=1e-3)
        assert found.error_after_percent < 0.2


def test_one_disturbed_network_has_no_weight() -> None:
    sums = np.linspace(5, 20, 16)
    measured = 1.1 * sums + 0.5
    measured[4] *= 3
    found = fit_calibration(sums, measured)
    assert (found.scale, found.offset_ms) == pytest.approx((1.1, 0.5))
    assert found.error_after_percent == pytest.approx(100 * (2 / 3) / 16)  # the disturbed one's own
    assert found.error_before_percent == pytest.approx(100 * np.mean(1 - sums / measured))


@pytest.mark.parametrize("share", [0.6, 0.9, 1.0])
@pytest.mark.parametrize("count", [5, 10, 32])
def test_interval_of_a_share_holds_it_and_is_never_without_width(share, count) -> None:
    """Its coverage, computed exactly over the binomial distribution, is about 95 %."""
    intervals = [share_interval(hits, count) for hits in range(count + 1)]
    assert all(0 <= low < high <= 100 + 1e-9 for low, high in intervals)
    held = [low <= 100 * share <= high + 1e-9 for low, high in intervals]
    assert binom.pmf(range(count + 1), count, share)[held].sum() > 0.89


def test_a_network_is_judged_by_the_correction_without_it(space, fake_device, make_measuring) -> None:
    """One disturbed network of many: corrected without it or with it, it is the same miss, and no hit."""
    table, networks = profile_space(space, make_measuring(fake_device())).table, validation_networks(space, 12, seed=1)
    sums = np.array([table.latency_ms(network) for network in networks])
    measured = 1.3 * sums + 0.1 * np.sin(np.arange(12))
    _, rows = calibrated(table, space, networks, list(measured), fitted=12, applied=True)
    for i, row in enumerate(rows):
        others = fit_calibration(
            np.delete(sums, i), np.delete(measured, i), fastest_ms=reachable_range_ms(space, table)[0]
        )
        assert row.predicted_ms == pytest.approx(others.scale * sums[i] + others.offset_ms)
    metrics = validation_metrics(rows)
    errors = np.array([100 * abs(row.unseen_ms / row.measured_ms - 1) for row in rows])
    assert metrics["mean_absolute_percentage_error"] == pytest.approx(errors.mean())
    assert metrics["within_5_percent"] == pytest.approx(100 * np.mean(errors <= 5))


def test_error_after_is_of_each_network_by_the_fit_to_the_others() -> None:
    sums, random = np.linspace(5, 20, 12), np.random.default_rng(3)
    measured = 1.3 * sums * np.exp(0.05 * random.normal(size=12))
    errors = []
    for i in range(12):
        others = fit_calibration(np.delete(sums, i), np.delete(measured, i))
        errors.append(abs((others.scale * sums[i] + others.offset_ms) / measured[i] - 1.0))
    assert fit_calibration(sums, measured).error_after_percent == pytest.approx(100 * np.mean(errors))


@pytest.mark.parametrize("count", [8, 16, 32])
@pytest.mark.parametrize(("scale", "offset"), [(1.0, 0.0), (1.1, 0.0), (1.0, -1.5), (0.8, 1.0), (1.1, 0.5)])
def test_applied_where_it_helps_and_nearly_never_where_it_harms(scale, offset, count) -> None:
    random, harmed, applied, draws = np.random.default_rng(0), 0, 0, 170
    for _ in range(draws):
        sums = random.uniform(8, 30, count)
        measured = (scale * sums + offset) * np.exp(0.02 * random.normal(size=count))
        found = fit_calibration(sums, measured, fastest_ms=7.0)
        if found is not None and found.helps:
            applied += 1
            fresh = random.uniform(8, 30, 200)
            truth = scale * fresh + offset
            error = np.mean(abs((found.scale * fresh + found.offset_ms) / truth - 1.0))
            harmed += error > np.mean(abs(fresh / truth - 1.0))
    assert harmed <= 0.02 * draws  # without bias: applied is harmed
    if count > 8 and (scale, offset) != (1.0, 0.0):
        assert applied > 0.95 * draws


@pytest.mark.parametrize("count", [3, 5])
def test_a_few_networks_show_a_factor(count) -> None:
    """Without one, the line and the factor each seem to help in at most one of twenty cases."""
    random, draws = np.random.default_rng(0), 170
    for factor, least, most in ((0.8, 0.95, 1.0), (1.0, 0.0, 2 * (1.0 - CONFIDENCE)), (1.25, 0.95, 1.0)):
        applied = 0
        for _ in range(draws):
            sums = random.uniform(8, 30, count)
            measured = factor * sums * np.exp(0.02 * random.normal(size=count))
            applied += fit_calibration(sums, measured, fewest=count).helps
        assert least * draws <= applied <= most * draws


@given(st.floats(0.4, 2.2), st.floats(-12, 6), st.floats(0.1, 5), st.floats(0, 0.2), st.integers(0, 1000))
def test_no_network_of_the_space_falls_below_zero_and_the_order_stays(scale, offset, fastest, noise, seed) -> None:
    random = np.random.default_rng(seed)
    sums = random.uniform(5, 30, 16)
    measured = np.maximum(0.2, scale * sums + offset) * np.exp(noise * random.normal(size=16))
    found = fit_calibration(sums, measured, fastest_ms=fastest)
    if found is not None:
        corrected = found.scale * np.linspace(fastest, 60, 50) + found.offset_ms
        assert corrected.min() >= 0.5 * fastest * (1 - 1e-9) and (np.diff(corrected) > 0).all()


@pytest.mark.parametrize("fastest", [0.62, 0.68, 1.0])
def test_a_constant_too_many_that_is_half_of_the_fastest_network_is_taken_off(fastest) -> None:
    """Seen with ONNX Runtime at 16 pixels: the call of each block costs what a small network does as a whole."""
    sums = np.geomspace(fastest, 16, 32)
    measured = 1.01 * sums - 0.34
    found = fit_calibration(sums, measured, fastest_ms=fastest)
    assert 0.5 * fastest <= found.scale * fastest + found.offset_ms
    errors = abs((found.scale * sums + found.offset_ms) / measured - 1.0)
    assert errors.mean() < 0.02 < 0.1 < abs(sums / measured - 1.0).mean()


@pytest.mark.parametrize("factor", [0.3, 2.5])
def test_nonsense_is_no_correction(factor) -> None:
    sums = np.linspace(5, 20, 16)
    assert fit_calibration(sums, factor * sums) is None
    assert fit_calibration(sums[: FEWEST_FOR_FIT - 1], sums[: FEWEST_FOR_FIT - 1]) is None


def test_corrected_table_says_scale_times_sum_plus_offset_of_every_network(space, fake_device, make_measuring) -> None:
    table = profile_space(space, make_measuring(fake_device())).table
    networks = validation_networks(space, 20, seed=1)
    sums = [table.latency_ms(network) for network in networks]
    calibration = replace(fit_calibration(sums, [1.2 * ms for ms in sums]), scale=1.2, offset_ms=0.25)
    corrected = apply_calibration(table, calibration)
    assert [corrected.latency_ms(n) for n in networks] == pytest.approx([1.2 * ms + 0.25 for ms in sums])
    assert corrected.details["calibration"]["applied"] is True


def test_a_table_without_bias_stays_as_measured(space, fake_device, make_measuring) -> None:
    table, networks = profile_space(space, make_measuring(fake_device())).table, validation_networks(space, 12, seed=1)
    sums = np.array([table.latency_ms(network) for network in networks])
    noisy = sums * np.exp(0.03 * np.random.default_rng(0).normal(size=12))
    for measured, applied in ((sums, False), (noisy, False), (1.3 * sums, True)):
        found, rows = calibrated(table, space, networks, list(measured), fitted=12, applied=True)
        assert all((row.unseen_ms is not None) is applied for row in rows)
        assert found.details["calibration"]["applied"] is applied
        assert (found == table) is not applied
    assert calibrated(table, space, networks, list(1.3 * sums), fitted=12, applied=False)[0] == table
