"""The correction of the sum: exact where it is affine, honest about networks it has not seen."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tfnas.latency.calibration import FEWEST, apply_calibration, fit_calibration
from tfnas.latency.profiler import profile_space
from tfnas.latency.validation import validation_networks
from tfnas.stages.profile_latency import _calibrated


@given(st.floats(0.6, 1.9), st.floats(-0.4, 3), st.lists(st.floats(1, 30), min_size=FEWEST, max_size=30, unique=True))
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


def test_error_after_is_of_each_network_by_the_fit_to_the_others() -> None:
    sums, random = np.linspace(5, 20, 12), np.random.default_rng(3)
    measured = 1.1 * sums * np.exp(0.05 * random.normal(size=12))
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


@given(st.floats(0.4, 2.2), st.floats(-12, 6), st.floats(0.1, 5), st.floats(0, 0.2), st.integers(0, 1000))
def test_no_network_of_the_space_falls_below_zero_and_the_order_stays(scale, offset, fastest, noise, seed) -> None:
    random = np.random.default_rng(seed)
    sums = random.uniform(5, 30, 16)
    measured = np.maximum(0.2, scale * sums + offset) * np.exp(noise * random.normal(size=16))
    found = fit_calibration(sums, measured, fastest_ms=fastest)
    if found is not None:
        corrected = found.scale * np.linspace(fastest, 60, 50) + found.offset_ms
        assert corrected.min() > 0.5 * fastest and (np.diff(corrected) > 0).all()


@pytest.mark.parametrize("factor", [0.3, 2.5])
def test_nonsense_is_no_correction(factor) -> None:
    sums = np.linspace(5, 20, 16)
    assert fit_calibration(sums, factor * sums) is None
    assert fit_calibration(sums[: FEWEST - 1], sums[: FEWEST - 1]) is None


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
        found = _calibrated(table, space, networks, list(measured), applied=True)
        assert found.details["calibration"]["applied"] is applied
        assert (found == table) is not applied
    assert _calibrated(table, space, networks, list(1.3 * sums), applied=False) == table
