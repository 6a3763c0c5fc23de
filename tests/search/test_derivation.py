"""Eq. 10 and 11: the strongest network."""

from __future__ import annotations

import torch

from tfnas.search.derivation.strongest import derive, operation_strength, searchable_layers
from tfnas.search.supernet.sink_connecting import depth_strength
from tfnas.search.supernet.supernet import Supernet


def test_strengths_are_softmax() -> None:
    alphas = torch.tensor([[1.0, 2.0], [0.0, -1.0]])
    expected = alphas.exp() / alphas.exp().sum(1, keepdim=True)
    torch.testing.assert_close(operation_strength(alphas), expected)
    torch.testing.assert_close(depth_strength(alphas[0]), expected[0])


def test_derived_network_is_the_strongest(tiny_space) -> None:
    alphas = torch.zeros(5, 4)
    strongest = [1, 0, 3, 2, 1]
    alphas[torch.arange(5), strongest] = 1.0
    betas = [torch.tensor([0.0, 1.0]), torch.tensor([0.0, 0.5, 0.4])]
    widths = [[10 * (layer + 1) + operation for operation in range(4)] for layer in range(5)]
    derived = derive(tiny_space, alphas, betas, widths, "x")
    assert derived.operations == tuple(strongest)
    assert derived.depths == {3: 2, 4: 2}
    searched = derived.architecture.blocks[1:]
    assert [block.stage for block in searched] == [3, 3, 4, 4]
    assert [block.expand_channels for block in searched] == [11, 20, 33, 42]
    assert [block.kernel for block in searched] == [3, 3, 3, 5]
    assert [block.se_channels for block in searched] == [0, 0, 6, 0]
    assert [tuple(chosen) for chosen in derived.chosen(tiny_space)] == [(0, 1, 1), (1, 0, 2), (2, 3, 3), (3, 2, 4)]


def test_ranges_are_those_of_the_chosen_candidates(tiny_space) -> None:
    supernet = Supernet(tiny_space, 3)
    with torch.no_grad():
        supernet.alphas[0, 1] = 1.0  # k3_e6
    ranges = supernet.derive("x").width_ranges(tiny_space)
    assert ranges == [(6, 6), (16, 32), (12, 24)]


def test_the_first_of_equals_wins(tiny_space) -> None:
    derived = Supernet(tiny_space, 3).derive("x")
    assert derived.depths == {3: 1, 4: 1}
    assert derived.operations == (0,) * len(searchable_layers(tiny_space))
