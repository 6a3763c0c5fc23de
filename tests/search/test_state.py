"""When rankings count as settled (Appendix E), and the schedules of Appendix B."""

from __future__ import annotations

import pytest
import torch

from tfnas.search.params import EarlyStoppingParams
from tfnas.search.state import RankingStability, learning_rate, temperature

A, B = [3.0, 2.0, 1.0], [3.0, 1.0, 2.0]


def epochs_until_reached(rankings, layers=0.75, epochs=2):
    stability = RankingStability(EarlyStoppingParams(layers=layers, epochs=epochs))
    for number, rows in enumerate(rankings, start=1):
        stability.update(torch.tensor(rows))
        if stability.is_reached():
            return number
    return None


@pytest.mark.parametrize(
    ("rankings", "reached"),
    [
        ([[A] * 4] * 5, 3),  # two epochs without a change after the first
        ([[A] * 4, [B] * 4, [B] * 4, [B] * 4], 4),
        ([[A, A, A, A], [A, A, A, B]] * 3, 3),  # one layer of four never settles
        ([[A, A, A, A], [A, A, B, B]] * 3, None),
        ([[[3.0, 2.0, 1.0]] * 4, [[9.0, 8.0, -1.0]] * 4, [[2.0, 1.9, 1.8]] * 4], 3),  # values change, ranks do not
    ],
)
def test_three_quarters_of_the_layers_must_keep_their_ranking(rankings, reached) -> None:
    assert epochs_until_reached(rankings) == reached


def test_state_comes_back() -> None:
    one = RankingStability(EarlyStoppingParams(layers=1.0, epochs=2))
    assert not one.is_reached()
    for _ in range(2):
        one.update(torch.tensor([A, B]))
    two = RankingStability(EarlyStoppingParams(layers=1.0, epochs=2))
    two.load_state_dict(one.state_dict())
    for stability in (one, two):
        stability.update(torch.tensor([A, B]))
        assert stability.is_reached()


def test_learning_rate_and_temperature_follow_appendix_b(make_params) -> None:
    params = make_params(epochs=90, warmup_epochs=10)
    assert learning_rate(0, params) == 0.025
    assert learning_rate(45, params) == pytest.approx(0.0125)
    assert 0 < learning_rate(89, params) < 1e-5
    assert [temperature(epoch, params) for epoch in (0, 9, 10)] == [5.0, 5.0, 5.0]
    assert temperature(11, params) == pytest.approx(5 * 0.96)
    assert temperature(89, params) == pytest.approx(5 * 0.96**79)
