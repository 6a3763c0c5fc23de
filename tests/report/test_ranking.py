"""Whether the supernet ranks: correlations by hand, intervals that cover, words that say no more than the interval."""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from tests.helpers.params import changed
from tfnas.jobs.errors import UserError
from tfnas.report.inputs import read_results
from tfnas.report.ranking import USEFUL, Agreement, Ranked, Ranking, agreement_of_seeds, rank_agreement, ranking
from tfnas.report.summary import summarize
from tfnas.stages.params import Params

PERCENT = st.integers(0, 12).map(lambda eighths: 80 + eighths / 8)  # many ties
PAIRS = st.lists(st.tuples(PERCENT, PERCENT), min_size=3, max_size=12)


def average_ranks(values: list[float]) -> list[float]:
    return [sum(v < value for v in values) + (sum(v == value for v in values) + 1) / 2 for value in values]


def by_pairs(x: list[float], y: list[float]) -> float:
    """Kendall's tau-b."""
    signs = [(np.sign(x[i] - x[j]), np.sign(y[i] - y[j])) for i, j in combinations(range(len(x)), 2)]
    untied = [sum(sign[axis] != 0 for sign in signs) for axis in (0, 1)]
    return sum(a * b for a, b in signs) / math.sqrt(untied[0] * untied[1])


@given(PAIRS)
def test_equal_accuracies_share_a_rank(pairs) -> None:
    x, y = map(list, zip(*pairs, strict=True))
    assume(len(set(x)) > 1 and len(set(y)) > 1)
    found = rank_agreement(x, y)
    assert found.spearman == pytest.approx(np.corrcoef(average_ranks(x), average_ranks(y))[0, 1], abs=1e-9)
    assert found.kendall == pytest.approx(by_pairs(x, y), abs=1e-9)
    assert found.count == len(pairs)


def test_rank_agreement_is_one_for_any_monotone_relation() -> None:
    alone = [80.0, 85.5, 83.2, 90.1]
    found = rank_agreement([a**3 for a in alone], alone)
    assert (found.spearman, found.kendall, found.count) == (pytest.approx(1.0), pytest.approx(1.0), 4)
    assert rank_agreement([-a for a in alone], alone).spearman == pytest.approx(-1.0)
    assert rank_agreement([1.0, 2.0], [1.0, 2.0]) is None and rank_agreement([1.0] * 4, alone) is None


@pytest.mark.parametrize(("true", "count"), [(0.0, 8), (0.6, 8), (0.6, 16), (0.8, 16), (0.9, 32)])
def test_the_interval_covers_the_true_correlation_at_its_rate(true, count) -> None:
    """2,000 samples from the normal distribution with this Spearman correlation, rho = 2 sin(pi r_s / 6)."""
    random, hits, tries = np.random.default_rng(0), 0, 2000
    rho = 2 * math.sin(math.pi * true / 6)
    for _ in range(tries):
        x = random.standard_normal(count)
        y = rho * x + math.sqrt(1 - rho**2) * random.standard_normal(count)
        low, high = rank_agreement(x.tolist(), y.tolist()).interval
        hits += low <= true <= high
    assert 0.94 < hits / tries < 0.985


@given(st.floats(-1, 1), st.integers(4, 40))
def test_the_interval_is_around_the_correlation_and_narrows(spearman, count) -> None:
    low, high = Agreement(spearman, 0.0, count).interval
    most = 1 - 6 / (count**3 - count)
    assert -1 < low < min(max(spearman, -most), most) < high < 1
    assert Agreement(-spearman, 0.0, count).interval == pytest.approx((-high, -low))
    more_low, more_high = Agreement(min(max(spearman, -most), most), 0.0, 2 * count).interval
    assert low - 1e-9 < more_low and more_high < high + 1e-9


@given(st.floats(-1, 1), st.integers(3, 400))
def test_the_words_never_say_more_than_the_interval(spearman, count) -> None:
    agreement = Agreement(spearman, 0.0, count)
    low, high = agreement.interval
    assert ("agrees" in agreement.verdict) == (low > 0)
    assert ("but weakly" in agreement.verdict) == (low > 0 and high < USEFUL)
    assert ("reverse" in agreement.verdict) == (high < 0)
    assert ("too small to tell" in agreement.verdict) == (low <= 0 and high >= USEFUL)
    assert ("says little" in agreement.verdict) == (low <= 0 <= high < USEFUL)


def test_seeds_agree_where_networks_differ_by_more_than_seeds_do_and_not_where_they_are_alike() -> None:
    random = np.random.default_rng(0)
    noise = 0.3 * random.standard_normal((40, 3))
    assert agreement_of_seeds((85 + noise + np.arange(40)[:, None]).tolist()) > 0.99
    assert abs(agreement_of_seeds((85 + noise).tolist())) < 0.35
    assert agreement_of_seeds([[80.0 + i] for i in range(4)]) is None
    assert agreement_of_seeds([[80.0, 81.0]] * 4) is None and agreement_of_seeds([]) is None


@given(st.lists(st.tuples(PERCENT, PERCENT), min_size=3, max_size=9))
def test_of_two_seeds_it_is_the_correlation_of_the_two(pairs) -> None:
    expected = rank_agreement(*map(list, zip(*pairs, strict=True)))
    found = agreement_of_seeds(pairs)
    assert found is None if expected is None else found == pytest.approx(expected.spearman)


def test_the_text_says_how_well_training_again_ranks_where_there_are_seeds() -> None:
    top1 = [(85.0, 85.5), (86.0, 86.5), (87.0, 87.5), (88.0, 88.5)]
    several = [Ranked(f"random_{i}", "random", 1e6, 70.0 + i, own) for i, own in enumerate(top1)]
    assert Ranking(several).text.endswith("Training with one seed agrees with the other seeds to 1.00.")
    assert Ranking(several).numbers()["ranking_equal_latency_seeds_spearman"] == pytest.approx(1.0)
    swapped = [(85.0, 87.5), (86.0, 85.5), (87.0, 86.5), (88.0, 88.5)]
    unsure = [Ranked(f"random_{i}", "random", 1e6, 70.0 + i, own) for i, own in enumerate(swapped)]
    assert Ranking(unsure).text.endswith("to 0.40, so these networks differ by little more than seeds do.")
    once = [Ranked(network.name, "random", 1e6, network.supernet_top1, network.top1[:1]) for network in several]
    assert "with one seed" not in Ranking(once).text and len(Ranking(once).numbers()) == 3


def test_multiply_adds_are_ranked_beside_the_supernet() -> None:
    networks = [Ranked(f"random_{i}", "random", 1e6 - i, 70.0 + i, (85.0 + i,)) for i in range(4)]
    assert Ranking(networks).numbers()["ranking_equal_latency_macs_spearman"] == pytest.approx(-1.0)
    assert "Multiply-adds alone: -1.00." in Ranking(networks).text
    alike = [Ranked(network.name, "random", 1e6, network.supernet_top1, network.top1) for network in networks]
    assert "ultiply-adds" not in Ranking(alike).text and len(Ranking(alike).numbers()) == 3


@pytest.mark.parametrize("count", [1, 2, 3, 4])
def test_a_perfect_order_of_few_networks_shows_nothing(count) -> None:
    """One of 24 orders of four is perfect by chance."""
    networks = [Ranked(f"random_{i}", "random", 1e6, 70.0 + i, (90.0 + i,)) for i in range(count)]
    text = Ranking(networks).text
    assert f"(n = {count})" in text and "too small to tell" in text and "agrees" not in text


def test_alike_accuracies_have_no_order() -> None:
    networks = [Ranked(f"random_{i}", "random", 1e6, 70.0, (90.0 + i,)) for i in range(4)]
    assert Ranking(networks).text == "At equal latency (n = 4): the accuracies are all the same."
    assert Ranking([]).text == "Not known: no random network was trained."


@pytest.fixture
def ranked(params: Params, make_results: Callable[..., Path], tmp_path: Path):
    """Parameters and results with random networks of the latency, some of any size, and a known one."""
    names = ["random_1", "any_1", "random_2", "mobilenet_v2", "random_3", "any_2"]
    asked = changed(params, baselines={"targets": ["A"], "networks": names})
    return asked, make_results(tmp_path / "results", asked)


def test_the_summary_has_both_correlations_each_with_n(ranked) -> None:
    params, folder = ranked
    results = read_results(params, folder)
    target, other = results.targets
    numbers = summarize(results)
    assert ranking(target).networks == [
        Ranked(b.name, b.kind, b.macs, b.supernet_top1, b.top1) for b in target.baselines if b.name != "mobilenet_v2"
    ]
    for prefix, kinds in (("ranking_equal_latency", ["random"]), ("ranking_all_sizes", ["random", "any"])):
        rows = [(b.supernet_top1, b.top1[0]) for b in target.baselines if b.kind in kinds]
        expected = rank_agreement(*zip(*rows, strict=True))
        assert numbers["A"][f"{prefix}_networks"] == len(rows) == expected.count
        assert numbers["A"][f"{prefix}_spearman"] == expected.spearman
        assert numbers["A"][f"{prefix}_kendall"] == expected.kendall
        macs = rank_agreement(*zip(*((b.macs, b.top1[0]) for b in target.baselines if b.kind in kinds), strict=True))
        assert numbers["A"][f"{prefix}_macs_spearman"] == macs.spearman
    assert not [name for name in numbers[other.name] if name.startswith("ranking")]


def test_without_networks_of_any_size_nothing_is_said_of_all_sizes(params: Params, shared_results: Path) -> None:
    found = ranking(next(t for t in read_results(params, shared_results).targets if t.baselines))
    assert found.all_sizes == [] and "all sizes" not in found.text
    assert found.numbers() and all(name.startswith("ranking_equal_latency_") for name in found.numbers())


def test_a_network_that_was_not_evaluated_is_a_user_error(ranked) -> None:
    params, folder = ranked
    path = folder / "rank_baselines/A/supernet_top1.csv"
    path.write_text("\n".join(line for line in path.read_text().splitlines() if "any_2" not in line) + "\n")
    with pytest.raises(UserError, match=r"supernet_top1\.csv: has no network 'any_2'; run rank_baselines again"):
        read_results(params, folder)
