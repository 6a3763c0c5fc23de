"""The verdict follows from the numbers: intervals that cover, scipy's tests agree, words match the signs."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from tfnas.report.worth import (
    Trained,
    margin_over_known,
    margin_over_random,
    pooled_variance,
    standing,
    worth_text,
)

PERCENT = st.floats(10, 99).map(lambda value: round(value, 2))


def trained(*top1, kind="random", name="n"):
    return Trained(name, kind, 5.0, tuple(top1))


def draw(random, count, seeds, between, noise, found_gain=0.0):
    """A found network and random ones, from normal distributions of known deviations."""
    means = 90 + between * random.standard_normal(count)
    networks = [trained(*(mean + noise * random.standard_normal(seeds))) for mean in means]
    return trained(*(90 + found_gain + noise * random.standard_normal(seeds)), kind="found"), networks


@pytest.mark.parametrize(("count", "seeds"), [(8, 3), (4, 2), (8, 1)])
def test_the_interval_covers_the_true_margin_at_its_rate(count, seeds):
    """2,000 experiments with a margin of 0.5: 95 % of the intervals hold it, within counting error, or more."""
    random, hits, tries = np.random.default_rng(0), 0, 2000
    for _ in range(tries):
        margin = margin_over_random(*draw(random, count, seeds, between=0.3, noise=0.4, found_gain=0.5))
        hits += margin.low <= 0.5 <= margin.high
    error = 3 * (0.95 * 0.05 / tries) ** 0.5
    assert hits / tries > 0.95 - error
    assert hits / tries < 0.95 + error or seeds == 1  # one seed cannot tell noise from differences: wider on purpose


def test_without_noise_it_is_a_t_test_of_the_random_means():
    found, networks = trained(91.0, 91.0, kind="found"), [trained(m, m) for m in (90.0, 90.4, 89.9, 90.8)]
    margin = margin_over_random(found, networks)
    interval = stats.ttest_1samp([network.mean for network in networks], 91.0).confidence_interval(0.95)
    assert (91 - margin.high, 91 - margin.low) == pytest.approx(tuple(interval))


def test_one_known_network_is_students_test():
    found, known = trained(90.1, 90.5, 90.3, kind="found"), trained(89.9, 90.0, 90.4, kind="known")
    margin = margin_over_known(found, known)
    expected = stats.ttest_ind(found.top1, known.top1).confidence_interval(0.95)
    assert (margin.low, margin.high) == pytest.approx((expected.low, expected.high))
    assert margin_over_known(trained(90.0), trained(89.0)) is None


@given(st.lists(st.lists(PERCENT, min_size=2, max_size=4), min_size=2, max_size=6))
def test_pooled_variance_is_that_of_the_deviations(rows):
    deviations = np.concatenate([np.array(row) - np.mean(row) for row in rows])
    degrees = sum(len(row) - 1 for row in rows)
    noise = pooled_variance([trained(*row) for row in rows])
    assert noise.degrees == degrees and noise.variance == pytest.approx((deviations**2).sum() / degrees, abs=1e-9)


@given(PERCENT, st.lists(PERCENT, min_size=2, max_size=8), st.integers(0, 2))
def test_the_words_never_say_more_than_the_interval(top1, others, extra_seeds):
    found = trained(*[top1] * (1 + extra_seeds), kind="found")
    networks = [trained(*[other] * (1 + extra_seeds)) for other in others]
    margin, text = margin_over_random(found, networks), worth_text(found, networks, [])
    assert text.startswith("Better") == (margin.low > 0)
    assert text.startswith("Worse") == (margin.high < 0)
    assert text.startswith("No difference") == (margin.low <= 0 <= margin.high)
    assert f"{margin.points:+.2f} points" in text and f"mean of {len(others)}" in text
    mirrored = margin_over_random(
        trained(*(100 - t for t in found.top1)), [trained(*(100 - o for o in n.top1)) for n in networks]
    )
    assert mirrored.points == pytest.approx(-margin.points) and mirrored.low == pytest.approx(-margin.high)


def test_too_few_random_networks_give_no_verdict():
    assert margin_over_random(trained(90.0), [trained(89.0)]) is None
    assert "takes two or more" in worth_text(trained(90.0), [], [])


def test_the_best_known_network_is_named():
    known = [trained(88.0, name="mnasnet"), trained(91.0, name="mobilenet_v2")]
    text = worth_text(trained(90.0, kind="found"), [trained(89.0), trained(89.5)], known)
    assert "-1.00 points over the best known network, mobilenet_v2." in text


def test_a_known_network_that_is_slower_than_the_target_does_not_stand_for_the_known_ones():
    found, random = trained(90.0, kind="found"), [trained(89.0), trained(89.5)]
    fast, slow = trained(88.0, name="mnasnet"), replace(trained(91.0, name="mobilenet_v2"), latency_ms=7.25)
    assert "+2.00 points over the best known network, mnasnet." in worth_text(found, random, [fast, slow], 5.5)
    text = worth_text(found, random, [slow], 5.5)
    assert "No known network is as fast as the target; -1.00 points over the best of the slower" in text
    assert "mobilenet_v2 at 7.25 ms." in text
    assert "the best known network, mobilenet_v2." in worth_text(found, random, [fast, slow])  # of another device


@given(st.lists(PERCENT, min_size=1, max_size=8), PERCENT)
def test_standing_counts_who_is_below(others, top1):
    above, count = standing(trained(top1), [trained(other) for other in others])
    assert (above, count) == (sum(other < top1 for other in others), len(others))
