"""The knapsack against all of its solutions, and what it says where a beam is too narrow to prove anything."""

from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np
import pytest

from tfnas.search.derivation import knapsack
from tfnas.search.derivation.knapsack import NOT_KEPT, Knapsack, Segment


def random_knapsack(random, *, spread=0.5, room=None, choices=3):
    """Two segments, of two and of three layers."""
    low = random.uniform(1, 2, (5, choices))
    score = np.log(random.dirichlet(np.ones(choices), 5))
    segments = [Segment(0, 2, np.log(random.dirichlet([1] * 2))), Segment(2, 5, np.log(random.dirichlet([1] * 3)))]
    high = low + random.uniform(0, spread, low.shape)
    room = random.uniform(2, 10) if room is None else room
    return Knapsack(score, low, high, segments, most=room, least=room)


def solutions(problem):
    """(score, sum of low, sum of high) of every solution."""
    size = problem.score.shape[1]
    for depths in itertools.product(*(range(1, 1 + len(segment.depth_score)) for segment in problem.segments)):
        layers = [s.first + i for s, depth in zip(problem.segments, depths, strict=True) for i in range(depth)]
        by_depth = sum(s.depth_score[depth - 1] for s, depth in zip(problem.segments, depths, strict=True))
        for picks in itertools.product(range(size), repeat=len(layers)):
            yield (
                by_depth + problem.score[layers, picks].sum(),
                problem.low[layers, picks].sum(),
                problem.high[layers, picks].sum(),
            )


def value(problem, choices):
    """The same of one solution."""
    kept = [i for i, choice in enumerate(choices) if choice != NOT_KEPT]
    picks = [choices[i] for i in kept]
    depths = [sum(s.first <= i < s.end for i in kept) for s in problem.segments]
    assert all(
        i in kept for s, depth in zip(problem.segments, depths, strict=True) for i in range(s.first, s.first + depth)
    )
    by_depth = sum(s.depth_score[depth - 1] for s, depth in zip(problem.segments, depths, strict=True))
    return (
        by_depth + problem.score[kept, picks].sum(),
        problem.low[kept, picks].sum(),
        problem.high[kept, picks].sum(),
    )


@pytest.mark.parametrize("spread", [0.02, 0.5, 2.0])
@pytest.mark.parametrize("share", [1.0, 0.9, 0.0])
def test_the_best_of_all_solutions(spread, share) -> None:
    random, solved = np.random.default_rng(0), 0
    for _ in range(60):
        problem = random_knapsack(random, spread=spread)
        problem = replace(problem, least=share * problem.most)
        every = [(s, a, b) for s, a, b in solutions(problem) if a <= problem.most and b >= problem.least]
        found = problem.solve()
        assert (found is None) == (not every)
        if found is not None:
            score, low, high = value(problem, found.choices)
            assert low <= problem.most and high >= problem.least
            assert found.gap <= knapsack.SAME
            assert score == pytest.approx(max(s for s, _, _ in every), abs=2 * knapsack.SAME)
            solved += 1
    assert solved > 20


def test_the_gap_bounds_what_a_narrow_beam_misses(monkeypatch) -> None:
    monkeypatch.setattr(knapsack, "BEAMS", (1,))
    random, missed = np.random.default_rng(1), 0
    for _ in range(100):
        problem = random_knapsack(random, spread=0.2)
        found = problem.solve()
        if found is None:
            continue
        best = max(s for s, a, b in solutions(problem) if a <= problem.most and b >= problem.least)
        score, _, _ = value(problem, found.choices)
        assert best <= score + found.gap + 1e-9
        missed += best > score + 1e-6
    assert missed > 0  # the beam is too narrow indeed


def test_a_choice_that_a_layer_does_not_have_is_not_taken() -> None:
    random = np.random.default_rng(2)
    problem = random_knapsack(random, spread=2.0, room=6.0)
    found = problem.solve()
    for layer, choice in enumerate(found.choices):
        if choice != NOT_KEPT:
            score = problem.score.copy()
            score[layer, choice] = -np.inf
            another = replace(problem, score=score).solve()
            assert another is None or another.choices[layer] != choice
