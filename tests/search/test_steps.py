"""One weight step, one architecture step: what they train and what they leave alone."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from tfnas.search import Setting, latency_constraint
from tfnas.search.state import SearchState
from tfnas.search.steps import Stepper
from tfnas.search.supernet.supernet import WEIGHT_SHARING, Supernet


@pytest.fixture
def make_stepper(tiny_space, tiny_table, target_ms, make_params):
    def make(target_ms=target_ms, **changes):
        torch.manual_seed(0)
        setting = Setting(make_params(**changes))
        supernet = Supernet(tiny_space, 3, weight_sharing=setting.params.weight_sharing)
        state = SearchState(supernet, setting)
        return Stepper(state, setting, latency_constraint(tiny_space, tiny_table, target_ms))

    return make


def batch(seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(4, 3, 16, 16, generator=generator), torch.randint(3, (4,), generator=generator)


def snapshot(tensors):
    return [tensor.detach().clone() for tensor in tensors]


def test_weight_step_trains_the_sampled_operations_and_nothing_else(make_stepper) -> None:
    stepper = make_stepper()
    supernet = stepper.supernet
    paths = [torch.tensor([0, 1, 2, 3, 0]), torch.tensor([1, 2, 3, 0, 1])]
    before, architecture = snapshot(supernet.weight_parameters()), snapshot(supernet.architecture_parameters())
    full = [snapshot(operation.buffers()) for operation in supernet.operations()]
    stepper.weight_step(batch(), paths)
    assert all(map(torch.equal, architecture, supernet.architecture_parameters()))
    assert not torch.equal(before[0], supernet.weight_parameters()[0])  # the stem
    for number, operation in enumerate(supernet.operations()):
        sampled = any(int(path[number // 4]) == number % 4 for path in paths)
        changed = not all(map(torch.equal, full[number], operation.buffers()))
        assert changed == sampled


def test_weight_step_with_entangled_weights_trains_the_bank_where_a_path_uses_it(make_stepper) -> None:
    weights = {"learning_rate": 0.025, "momentum": 0.9, "weight_decay": 0.0}
    stepper = make_stepper(weight_sharing="entangled", weights=weights)
    supernet, path = stepper.supernet, torch.tensor([0, 1, 2, 3, 0])
    before = [snapshot(layer.leaves()) for layer in supernet.searchable_layers()]
    architecture = snapshot(supernet.architecture_parameters())
    stepper.weight_step(batch(), [path])
    assert all(map(torch.equal, architecture, supernet.architecture_parameters()))
    for layer, old, index in zip(supernet.searchable_layers(), before, path.tolist(), strict=True):
        expand = (layer.bank["expand"] != old[0]).flatten(1).any(-1)
        width = layer.operation(index).width
        assert expand[:width].any() and not expand[width:].any() and width < len(expand)


def test_loss_of_a_weight_step_is_the_sum_over_both_paths(make_stepper) -> None:
    paths = [torch.tensor([0, 1, 2, 3, 0]), torch.tensor([1, 2, 3, 0, 1])]
    gradients = []
    for chosen in ([paths[0]], [paths[1]], paths):
        stepper = make_stepper(gradient_clip=0.0)
        stepper.weight_step(batch(), chosen)
        gradients.append(stepper.supernet.weight_parameters()[0].grad)
    torch.testing.assert_close(gradients[0] + gradients[1], gradients[2])


@pytest.mark.parametrize("paths", ["all", "one"])
@pytest.mark.parametrize("weight_sharing", WEIGHT_SHARING)
def test_architecture_step_trains_alpha_and_beta_and_computes_no_weight_gradient(
    make_stepper, weight_sharing, paths
) -> None:
    stepper = make_stepper(weight_sharing=weight_sharing, architecture={"paths": paths})
    weights, before = stepper.supernet.weight_parameters(), snapshot(stepper.supernet.state_dict().values())
    stepper.architecture_step(batch(), 5.0, torch.zeros(5, 4))
    names = list(stepper.supernet.state_dict())
    changed = {
        name
        for name, old, new in zip(names, before, stepper.supernet.state_dict().values(), strict=True)
        if not torch.equal(old, new)
    }
    assert changed == {"alphas", "betas.0", "betas.1"}
    assert all(weight.grad is None for weight in weights)


@pytest.mark.parametrize("log_softmax", [True, False])
def test_alpha_and_beta_become_log_probabilities_where_asked(make_stepper, log_softmax) -> None:
    stepper = make_stepper(architecture={"log_softmax": log_softmax})
    stepper.architecture_step(batch(), 5.0, torch.zeros(5, 4))
    sums = [float(p.detach().exp().sum(-1).max()) for p in stepper.supernet.architecture_parameters()]
    assert all(total == pytest.approx(1.0, abs=1e-6) for total in sums) == log_softmax


@pytest.mark.parametrize(
    ("kind", "target_factor", "grows"), [("target", 10, None), ("target_abs", 10, True), ("target", 0.1, False)]
)
def test_latency_loss_pulls_towards_the_target(make_stepper, tiny_table, target_ms, kind, target_factor, grows) -> None:
    losses = []
    stepper = make_stepper(latency_loss=kind, target_ms=target_factor * target_ms, **{"lambda": 1e4})
    before = stepper.expected_cost()
    for number in range(3):
        losses.append(stepper.architecture_step(batch(number), 5.0, torch.zeros(5, 4)).cost_loss)
    if grows is None:
        assert losses == [0.0, 0.0, 0.0]
    else:
        assert (stepper.expected_cost() > before) == grows


def test_momentum_goes_with_its_channel(make_stepper) -> None:
    stepper = make_stepper()
    state, supernet = stepper.state, stepper.supernet
    path = torch.tensor([1, 1, 1, 1, 1])
    stepper.weight_step(batch(), [path])
    with torch.no_grad():
        supernet.alphas[:, 1] = 1.0
    operation = list(supernet.operations())[1]

    def velocities():
        weight = operation.weights["depthwise"].detach()
        momentum = state.weight_optimizer.state[operation.weights["depthwise"]]["momentum_buffer"]
        assert weight.shape == momentum.shape
        return {tuple(w.flatten().tolist()): tuple(v.flatten().tolist()) for w, v in zip(weight, momentum, strict=True)}

    def apply_width(width) -> None:
        derived = supernet.derive("x")
        blocks = list(derived.architecture.blocks)
        blocks[1] = replace(blocks[1], expand_channels=width)
        state.apply_widths(derived, replace(derived.architecture, blocks=tuple(blocks)))

    trained = velocities()
    assert len(trained) == 24
    apply_width(20)
    kept = velocities()
    assert len(kept) == 20
    assert {w for w in kept if w in trained} and all(kept[w] == trained.get(w, (0.0,) * 9) for w in kept)
    apply_width(32)
    grown = velocities()
    assert len(grown) == 32
    assert all(grown[w] == kept.get(w, (0.0,) * 9) for w in grown)
    before = snapshot(operation.weights.values())
    Stepper(state, Setting(stepper._params), stepper._constraint).weight_step(batch(), [path])
    assert not any(map(torch.equal, before, operation.weights.values()))
    assert len(supernet.weight_parameters()) == len(state.weight_optimizer.param_groups[0]["params"])


def test_momentum_goes_with_its_channel_in_an_entangled_bank(make_stepper) -> None:
    stepper = make_stepper(weight_sharing="entangled")
    state, supernet = stepper.state, stepper.supernet
    stepper.weight_step(batch(), [torch.tensor([1, 1, 1, 1, 1])])
    layer = next(supernet.searchable_layers())
    with torch.no_grad():
        supernet.alphas[:, 1] = 1.0

    def velocities():
        bank, state_of = layer.bank["depthwise"], state.weight_optimizer.state
        momentum = state_of[bank]["momentum_buffer"]
        pairs = zip(bank.detach().flatten(1).tolist(), momentum.flatten(1).tolist(), strict=True)
        return [(tuple(weight), tuple(velocity)) for weight, velocity in pairs]

    before, parameters = velocities(), [id(p) for p in state.weight_optimizer.param_groups[0]["params"]]
    derived = supernet.derive("x")
    blocks = list(derived.architecture.blocks)
    blocks[1] = replace(blocks[1], expand_channels=20)
    state.apply_widths(derived, replace(derived.architecture, blocks=tuple(blocks)))
    assert layer.operation(1).width == 20 and velocities() != before
    assert sorted(velocities()) == sorted(before)
    assert [id(p) for p in state.weight_optimizer.param_groups[0]["params"]] == parameters
