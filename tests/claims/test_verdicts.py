"""Verdicts are laws of the differences: against SciPy's own tests, and at their ends."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from tfnas.claims.verdicts import ALPHA, MIN_SEEDS, decide_all, t_test

VALUES = st.lists(st.floats(-50, 50).map(lambda value: round(value, 3)), min_size=MIN_SEEDS, max_size=8)


@given(VALUES, VALUES)
def test_the_p_value_is_that_of_scipys_paired_test(first: list[float], second: list[float]) -> None:
    count = min(len(first), len(second))
    first, second = first[:count], second[:count]
    differences = np.subtract(first, second)
    if np.std(differences) < 1e-6:
        return
    expected = stats.ttest_rel(first, second, alternative="greater").pvalue
    assert t_test(differences.tolist()).p_holds == pytest.approx(expected, abs=1e-6)


@given(VALUES)
def test_the_opposite_differences_give_the_opposite_verdict(differences: list[float]) -> None:
    opposite = {"holds": "contradicts", "contradicts": "holds", "not shown": "not shown"}
    assert t_test([-value for value in differences]).verdict == opposite[t_test(differences).verdict]


@given(VALUES)
def test_the_interval_agrees_with_the_two_sided_test(differences: list[float]) -> None:
    if np.std(differences) < 1e-6:
        return
    low, high = stats.ttest_1samp(differences, 0.0).confidence_interval(0.95)
    tested = t_test(differences)
    assert (tested.mean - tested.half_width, tested.mean + tested.half_width) == pytest.approx((low, high), abs=1e-6)


@pytest.mark.parametrize("count", range(MIN_SEEDS))
def test_too_few_seeds_show_nothing(count: int) -> None:
    assert t_test([5.0, 5.1][:count]).verdict == "not shown"


@pytest.mark.parametrize(("value", "verdict"), [(1.0, "holds"), (-1.0, "contradicts"), (0.0, "not shown")])
def test_equal_differences_leave_no_doubt_unless_they_are_zero(value: float, verdict: str) -> None:
    assert t_test([value] * MIN_SEEDS).verdict == verdict


def test_under_no_difference_alpha_of_the_claims_hold() -> None:
    random = np.random.default_rng(0)
    verdicts = [t_test(random.standard_normal(3).tolist()).verdict for _ in range(4000)]
    for word in ("holds", "contradicts"):
        assert verdicts.count(word) / len(verdicts) == pytest.approx(ALPHA, abs=0.011)  # 3 standard errors


CLEAR, OPPOSITE, OPEN = ([sign + d for d in (0.01, 0.0, -0.01)] for sign in (1.0, -1.0, 0.0))


def test_a_claim_holds_where_all_statements_do_and_falls_with_one() -> None:
    clear, opposite, undecided = map(t_test, (CLEAR, OPPOSITE, OPEN))
    assert decide_all([clear, clear]) == "holds"
    assert decide_all([clear, undecided]) == "not shown"
    assert decide_all([clear, clear, opposite]) == "contradicts"
    assert decide_all([]) == "not shown"


def test_one_weak_contradiction_among_many_statements_is_not_enough() -> None:
    weak = t_test([-1.0, -0.4, -0.7, -1.6])
    assert weak.verdict == "contradicts" and weak.p_contradicts > ALPHA / 4
    assert decide_all([weak]) == "contradicts"
    assert decide_all([weak, *map(t_test, (CLEAR, CLEAR, CLEAR))]) == "not shown"
