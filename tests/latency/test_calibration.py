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


@given(st.floats(0.6, 1.9), st.floats(-0.4, 3), st.lists(st.floats(1, 30), min_size=FEWEST, max_size=30, unique=True))
def test_affine_truth_is_found_from_half_of_the_networks(scale, offset, sums) -> None:
    measured = [scale * ms + offset for ms in sums]
    found = fit_calibration(sums, measured)
    if max(sums) - min(sums) > 1:
        corrected = [found.scale * ms + found.offset_ms for ms in sums[1::2]]
        if len({round(ms, 3) for ms in sums[::2]}) > 1:
            assert corrected == pytest.approx(measured[1::2], rel=1e-3, abs=1e-3)
            assert found.error_after_percent < 0.2


def test_one_disturbed_network_has_no_weight() -> None:
    sums = np.linspace(5, 20, 16)
    measured = 1.1 * sums + 0.5
    measured[4] *= 3
    found = fit_calibration(sums, measured)
    assert (found.scale, found.offset_ms) == pytest.approx((1.1, 0.5))
    assert found.error_after_percent == pytest.approx(0, abs=1e-9)
    assert found.error_before_percent == pytest.approx(100 * np.mean(1 - sums[1::2] / measured[1::2]))


def test_error_after_is_of_networks_that_were_not_fitted() -> None:
    sums = np.linspace(5, 20, 16)
    measured = np.where(np.arange(16) % 2 == 0, sums, 1.25 * sums)
    found = fit_calibration(sums, measured)
    assert (found.scale, found.offset_ms) == pytest.approx((1, 0), abs=1e-9)
    assert found.error_after_percent == pytest.approx(20.0)


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
