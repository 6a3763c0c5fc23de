"""A layer whose operations share a bank: what it computes, what trains the bank, what a new width does to it."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from tests.helpers.derived_networks import derived_block
from tests.helpers.shipped_layers import distinct_layers
from tfnas.jobs.errors import UserError
from tfnas.search.scaling.widths import CHANNEL_IMPORTANCE, channel_importance
from tfnas.search.supernet.mixed_op import CHANNEL_AXIS, plain_block, plain_sum
from tfnas.search.supernet.weight_entanglement import EntangledOp
from tfnas.space import Candidate, Layer, load_space

LAYERS = distinct_layers()
LAYER = Layer(4, 2, 8, 6, 6, 1, "swish")
CANDIDATES = (
    Candidate("k3_e3", 3, 3, (2, 4), 0),
    Candidate("k5_e6_se", 5, 6, (4, 8), 2),
    Candidate("k3_e6_se", 3, 6, (4, 8), 1),
)


def make_layer(layer=LAYER, candidates=CANDIDATES):
    torch.manual_seed(layer.stage)
    op = EntangledOp(layer, candidates)
    with torch.no_grad():
        for tensor in op.bank.values():  # biases begin at zero, which would hide an error
            tensor.add_(torch.randn_like(tensor), alpha=0.1)
    for operation in op.all_operations():
        operation.restore_width(int(torch.randint(operation.max_width // 2, operation.max_width + 1, ())))
    return op.double()


def shipped_layer(name):
    space_name, layer = LAYERS[name]
    candidates = load_space(space_name).candidates
    return make_layer(layer, candidates), candidates


def used(tensor, name, candidate, width, se_channels):
    """An operation's part of a tensor that is shaped as the bank's."""
    width, se, margin = slice(width), slice(se_channels), (tensor.shape[-1] - candidate.kernel) // 2
    centre = slice(margin, margin + candidate.kernel)
    indices = {
        "expand": (width,),
        "depthwise": (width, slice(None), centre, centre),
        "se_reduce": (se, width),
        "se_reduce_bias": (se,),
        "se_expand": (width, se),
        "se_expand_bias": (width,),
        "project": (slice(None), width),
    }
    return tensor[indices[name]]


def copies(op, candidates):
    """The operations' weights as leaves of their own, and the same parts of zeros that are shaped as the bank."""
    found = []
    for operation, candidate in zip(op.all_operations(), candidates, strict=True):
        se_channels = candidate.se_channels(op.layer.in_channels)
        names = [name for name in op.bank if se_channels or not name.startswith("se_")]
        parts = dict.fromkeys(names, (operation.width, se_channels))
        own = {n: used(op.bank[n], n, candidate, *part).detach().clone().requires_grad_() for n, part in parts.items()}
        found.append((candidate, parts, own))
    return found


def summed(op, found, gradients):
    """What the gradients of separate operations make of the bank's."""
    totals, left = {name: torch.zeros_like(tensor) for name, tensor in op.bank.items()}, iter(gradients)
    for candidate, parts, _ in found:
        for name, part in parts.items():
            used(totals[name], name, candidate, *part).add_(next(left))
    return list(totals.values())


def assert_close(found, expected) -> None:
    for own, other in zip(found, expected, strict=True):
        assert own.shape == other.shape
        assert float((own - other).detach().norm()) <= 1e-9 * max(1.0, float(other.detach().norm()))


@pytest.mark.parametrize("recompute", [False, True], ids=["kept", "recomputed"])
@pytest.mark.parametrize("name", LAYERS)
def test_the_layer_equals_separate_operations_and_their_gradients_add_up_in_the_bank(name, recompute) -> None:
    op, candidates = shipped_layer(name)
    x = torch.randn(2, op.layer.in_channels, 6, 5, dtype=torch.float64, requires_grad=True)
    u = torch.rand(len(candidates), dtype=torch.float64, requires_grad=True)
    found = copies(op, candidates)
    leaves = [tensor for _, _, own in found for tensor in own.values()]
    expected = plain_sum(x, [own for _, _, own in found], u, op.layer)
    grad = torch.randn_like(expected)
    x_grad, u_grad, *grads = torch.autograd.grad(expected, [x, u, *leaves], grad)
    out = op.forward_mixed(x, u, recompute=recompute)
    ours = torch.autograd.grad(out, [x, u, *op.leaves()], grad)
    assert_close([out, *ours], [expected, x_grad, u_grad, *summed(op, found, grads)])


@pytest.mark.parametrize("name", LAYERS)
def test_a_path_equals_its_operation_and_trains_its_part_of_the_bank(name) -> None:
    op, candidates = shipped_layer(name)
    x = torch.randn(2, op.layer.in_channels, 4, 5, dtype=torch.float64, requires_grad=True)
    for i, one in enumerate(copies(op, candidates)):
        expected, out = plain_block(x, one[2], op.layer), op.forward_path(x, i)
        grad = torch.randn_like(expected)
        x_grad, *grads = torch.autograd.grad(expected, [x, *one[2].values()], grad)
        ours = torch.autograd.grad(out, [x, *op.leaves()], grad, materialize_grads=True)
        assert_close([out, *ours], [expected, x_grad, *summed(op, [one], grads)])


@pytest.mark.parametrize("index", range(len(CANDIDATES)), ids=lambda i: CANDIDATES[i].name)
def test_operation_equals_the_block_of_the_derived_network(index, block_parameters) -> None:
    op = make_layer()
    block = derived_block(op.operation(index), CANDIDATES[index], block_parameters)
    x = torch.randn(4, 6, 8, 8, dtype=torch.float64)
    torch.testing.assert_close(op.forward_path(x, index), block(x))


@pytest.mark.parametrize("importance", CHANNEL_IMPORTANCE)
def test_a_new_width_makes_every_width_one_of_the_most_important_channels(importance) -> None:
    op = make_layer()
    before = {name: tensor.detach().clone() for name, tensor in op.bank.items()}
    order = op.operation(0).set_width(op.operation(0).width - 1, importance)
    assert sorted(order.tolist()) == list(range(48))
    ranked = channel_importance(before, importance)[order]
    assert (ranked[:-1] >= ranked[1:]).all()
    for name, tensor in op.bank.items():  # every weight of a channel goes with it
        axis = CHANNEL_AXIS[name]
        assert torch.equal(tensor, before[name] if axis is None else before[name].index_select(axis, order))


def test_reordering_the_bank_leaves_an_operation_of_full_width_as_it_was() -> None:
    op, x = make_layer(), torch.randn(4, 6, 8, 8, dtype=torch.float64)
    for index in (1, 2):
        op.operation(index).restore_width(48)
    before = [op.forward_path(x, index) for index in (1, 2)]
    narrow = op.forward_path(x, 0)
    op.operation(0).set_width(13)
    op.operation(0).set_width(op.operation(0).max_width)
    torch.testing.assert_close([op.forward_path(x, index) for index in (1, 2)], before)
    assert not torch.allclose(op.forward_path(x, 0), narrow)  # of 24 channels, others than before


def test_same_width_keeps_the_order_of_the_bank() -> None:
    op = make_layer()
    before = op.bank["expand"].detach().clone()
    assert op.operation(1).set_width(op.operation(1).width) is None
    assert torch.equal(op.bank["expand"], before)


def test_momentum_goes_with_its_channel_and_shared_biases_keep_theirs() -> None:
    op = make_layer()
    order = op.operation(1).set_width(30)
    for name, axis in CHANNEL_AXIS.items():
        values = torch.randn_like(op.bank[name])
        moved = op.operation(1).moved(name, values, 36, order)
        if axis is None:
            assert torch.equal(moved, values)
        else:
            assert torch.equal(moved.select(axis, 0), values.select(axis, int(order[0])))


def test_without_weight_decay_a_step_leaves_the_rest_of_the_bank_alone() -> None:
    op = make_layer()
    before = {name: tensor.detach().clone() for name, tensor in op.bank.items()}
    optimizer = torch.optim.SGD(op.leaves(), lr=0.1, momentum=0.9)
    for _ in range(2):
        optimizer.zero_grad()
        op.forward_path(torch.randn(4, 6, 8, 8, dtype=torch.float64), 0).square().sum().backward()
        optimizer.step()
    width = op.operation(0).width
    for name, tensor in op.bank.items():
        if name.startswith("se_"):
            assert torch.equal(tensor, before[name])
            continue
        changed = tensor != before[name]
        inside = used(changed, name, CANDIDATES[0], width, 0)
        assert inside.any() and changed.sum() == inside.sum()


def test_the_bank_moves_with_its_layer() -> None:
    op = make_layer().to(torch.float32)
    assert all(weight.dtype == torch.float32 for weight in op.operation(1).weights.values())
    assert all(isinstance(leaf, nn.Parameter) for leaf in op.leaves())
    with torch.no_grad():
        op.operation(0).weights["project"].fill_(7.0)
    assert (op.bank["project"] == 7.0).sum() == 6 * op.operation(0).width


def test_a_candidate_whose_expansion_would_disappear_is_refused() -> None:
    with pytest.raises(UserError, match="k3_e1: expand_range"):
        EntangledOp(LAYER, (*CANDIDATES, Candidate("k3_e1", 3, 1, (1, 4), 0)))
