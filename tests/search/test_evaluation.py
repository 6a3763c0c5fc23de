"""The accuracies that say whether a supernet learns: whose they are, and that nothing else depends on them."""

from __future__ import annotations

import logging
import math
from collections import Counter
from dataclasses import replace
from itertools import pairwise

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from tests.helpers.derived_networks import copy_shared_weights
from tfnas.search import Loaders, Setting, latency_constraint, run_warm_up, search
from tfnas.search.derivation.strongest import stage_slices
from tfnas.search.epoch import EpochRunner
from tfnas.search.evaluation import Evaluation, evaluate, random_networks
from tfnas.search.steps import Stepper
from tfnas.search.supernet.depth_spaces import DEPTH_SPACES
from tfnas.search.supernet.supernet import Supernet
from tfnas.space import build_network

ALL = sorted(DEPTH_SPACES)
EVALUATED = ("derived_top1", "random_top1_mean", "random_top1_std")


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.fixture
def make_supernet(tiny_space):
    def make(depth_space: str = "sink") -> Supernet:
        torch.manual_seed(0)
        return Supernet(tiny_space, 3, depth_space)

    return make


@pytest.fixture
def run(tiny_space, tiny_table, target_ms, loaders, make_params):
    def call(*, both=loaders, warm_up=None, **changes):
        constraint = latency_constraint(tiny_space, tiny_table, target_ms)
        return search(constraint, Loaders(*both, num_classes=3), Setting(make_params(**changes)), warm_up=warm_up)

    return call


# What is computed


@pytest.mark.parametrize("depth_space", ALL)
@torch.no_grad()
def test_a_network_computes_what_it_computes_outside_of_the_supernet(
    make_supernet, block_parameters, depth_space
) -> None:
    supernet, x = make_supernet(depth_space), torch.randn(4, 3, 16, 16, generator=generator())
    networks = random_networks(supernet, 5, generator())
    for derived, found in zip(networks, supernet.forward_derived(x, networks), strict=True):
        network = build_network(derived.architecture, num_classes=3).train()
        copy_shared_weights(supernet, network, derived, block_parameters)
        for module in network.modules():
            if isinstance(module, nn.BatchNorm2d):
                nn.init.ones_(module.weight)
        torch.testing.assert_close(found, network(x))


@torch.no_grad()
def test_its_depth_is_a_one_hot_beta_and_no_mixture(make_supernet) -> None:
    supernet, x = make_supernet(), torch.randn(4, 3, 16, 16, generator=generator())
    path = torch.tensor([1, 3, 0, 2, 3])
    for depth in range(1, 4):
        supernet.betas[1].copy_(torch.nn.functional.one_hot(torch.tensor(depth - 1), 3) * 0.1)
        mixed = supernet.forward_path(x, path)
        network = replace(
            supernet.derive("x"), operations=tuple(path.tolist()), kept=(True, False, *(i < depth for i in range(3)))
        )
        (found,) = supernet.forward_derived(x, [network])
        supernet.betas[0].copy_(torch.tensor([100.0, 0.0]))
        supernet.betas[1].mul_(1000.0)
        torch.testing.assert_close(found, supernet.forward_path(x, path))
        assert not torch.allclose(found, mixed, rtol=1e-3, atol=1e-3)
        supernet.betas[0].zero_()


# Which networks are drawn


@pytest.mark.parametrize("depth_space", ALL)
def test_random_networks_are_uniform_in_operations_and_depths(make_supernet, depth_space) -> None:
    supernet, drawn = make_supernet(depth_space), 1000
    networks = random_networks(supernet, drawn, generator())
    for layer in range(5):
        taken = Counter(network.operations[layer] for network in networks if network.kept[layer])
        assert set(taken) == {0, 1, 2, 3}
        assert max(taken.values()) - min(taken.values()) < 5 * math.sqrt(sum(taken.values()) / 4)
    for stage, (first, end) in zip(supernet.space.searchable_stages, stage_slices(supernet.space), strict=True):
        kept = [network.kept[first:end] for network in networks]
        assert all(flags[0] for flags in kept)
        if depth_space == "sink":
            depths = Counter(sum(flags) for flags in kept)
            assert all(a >= b for flags in kept for a, b in pairwise(flags))
            assert sorted(depths) == list(range(1, stage.max_depth + 1))
            assert all(abs(n - drawn / stage.max_depth) < 4 * math.sqrt(drawn / 4) for n in depths.values())
        else:
            stays = 0.5 if depth_space == "skip_out" else 0.8  # one of two ways; four of five candidates
            for i in range(1, end - first):
                assert abs(sum(flags[i] for flags in kept) - stays * drawn) < 4 * math.sqrt(drawn / 4)


def test_random_networks_follow_from_the_generator_and_have_the_current_widths(make_supernet) -> None:
    supernet = make_supernet()
    next(supernet.operations()).set_width(7)
    one, again = (random_networks(supernet, 20, generator(1)) for _ in range(2))
    assert one == again != random_networks(supernet, 20, generator(2))
    widths = {n.architecture.blocks[1].expand_channels for n in one if n.operations[0] == 0}
    assert widths == {7}


# What is counted


class Counted:
    """A stepper that knows how many of the images of a batch each network gets right."""

    def __init__(self, *counts) -> None:
        self.counts = iter(counts)

    def count_correct_derived(self, batch, networks):
        return torch.tensor(next(self.counts))

    def batch_size(self, batch):
        return 10


def test_accuracies_are_over_all_images_and_the_spread_is_over_networks() -> None:
    found = evaluate(Counted([9, 1, 3], [7, 3, 5]), [None, None], "derived", ["a", "b"])
    assert found == Evaluation(80.0, 30.0, 10.0)
    assert evaluate(Counted([9], [7]), [None, None], "derived", []) == Evaluation(80.0, None, None)


def test_the_last_accuracy_is_that_of_the_network_that_is_derived(run, loaders, tiny_space) -> None:
    result = run(evaluation={"batches": 2, "random_paths": 0})
    supernet, derived, correct = result.build_supernet(), result.derive("x"), 0
    loaders[1].set_epoch(3)
    for images, labels in loaders[1]:
        correct += int((supernet.forward_derived(images, [derived])[0].argmax(-1) == labels).sum())
    assert result.widths != Supernet(tiny_space, 3).widths()  # it is after scaling
    assert result.history[-1].derived_top1 == 100.0 * correct / 8


@pytest.mark.parametrize(("batches", "expected"), [(1, 1), (2, 2), (9, 2)])
def test_at_most_so_many_batches_are_taken(run, monkeypatch, batches, expected) -> None:
    taken, original = [], Stepper.count_correct_derived
    monkeypatch.setattr(
        Stepper, "count_correct_derived", lambda self, *a: taken.append(len(a[1])) or original(self, *a)
    )
    run(epochs=2, evaluation={"batches": batches, "random_paths": 3})
    assert taken == [4] * 2 * expected


def test_without_random_paths_their_cells_and_metrics_are_absent(run) -> None:
    for record in run(evaluation={"random_paths": 0}).history:
        assert (record.random_top1_mean, record.random_top1_std) == (None, None)
        assert set(EVALUATED) & set(record.metrics()) == {"derived_top1"}
        assert record.accuracies() == {"val_top1_percent": record.val_top1, "derived_top1_percent": record.derived_top1}


# What does not depend on it


def plain(loaders):
    """Loaders that draw their order from torch's global random state."""
    sets = [TensorDataset(loader.images, loader.labels) for loader in loaders]
    return [DataLoader(images, batch_size=4, shuffle=True, drop_last=True) for images in sets]


@pytest.mark.parametrize("shuffled", [False, True])
def test_no_other_number_depends_on_the_evaluation(run, loaders, monkeypatch, shuffled) -> None:
    changes = {"both": plain(loaders) if shuffled else loaders}
    evaluated = [run(**changes), run(evaluation={"batches": 1, "random_paths": 7}, **changes)]
    monkeypatch.setattr(EpochRunner, "_evaluate", lambda self, *a: Evaluation(0.0))
    without = run(**changes)
    for result in evaluated:
        assert torch.equal(result.alphas, without.alphas) and all(map(torch.equal, result.betas, without.betas))
        assert result.widths == without.widths
        assert all(torch.equal(result.weights[name], weight) for name, weight in without.weights.items())
        assert others(result) == others(without)
    assert evaluated[0].history[-1].random_top1_mean != evaluated[1].history[-1].random_top1_mean


def others(result):
    """Rows without durations and without the evaluation."""
    left_out = ("seconds", *EVALUATED)
    return [{k: v for k, v in record.row().items() if not k.startswith(left_out)} for record in result.history]


# The warning


WARNED = "alpha starts on a supernet that has hardly learned"


def test_alpha_that_starts_on_an_untrained_supernet_is_warned_of_once(run, caplog) -> None:
    with caplog.at_level(logging.WARNING, logger="tfnas"):
        result = run(epochs=4, warmup_epochs=2, weights={"learning_rate": 1e-9, "momentum": 0.0, "weight_decay": 0.0})
    said = [record.getMessage() for record in caplog.records if WARNED in record.getMessage()]
    loss = result.history[1].train_loss
    assert loss > 0.9 * math.log(3)
    assert len(said) == 1
    assert f"cross-entropy of {loss:.2f}, above 0.9 ln K = 0.99 for K = 3 classes (chance: ln K = 1.10)" in said[0]
    for advice in (
        "raise search.warmup_epochs (2)",
        "search.weight_sharing: entangled",
        "a space of fewer than 4 candidates",
    ):
        assert advice in said[0]


def test_a_supernet_that_has_learned_is_not_warned_of(tiny_space, loaders, make_params, run, caplog) -> None:
    warmed = run_warm_up(tiny_space, Loaders(*loaders, num_classes=3), Setting(make_params()))
    assert WARNED not in caplog.text  # no warm-up warns: alpha does not start there
    for loss, warned in ((0.99, True), (0.98, False)):  # 0.9 ln 3 = 0.989
        warmed.state["history"][0]["train_loss"] = loss
        caplog.clear()
        with caplog.at_level(logging.WARNING, logger="tfnas"):
            run(warm_up=warmed)
        assert (WARNED in caplog.text) == warned
