"""A searchable layer against the blocks of the derived network; shrinking, expanding, and what training touches."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from tests.helpers.derived_networks import derived_block
from tfnas.jobs.errors import UserError
from tfnas.search.scaling.widths import CHANNEL_IMPORTANCE, channel_importance, channel_order
from tfnas.search.supernet.mixed_op import CHANNEL_AXIS, CandidateOperation, MixedOp
from tfnas.space import Candidate, Layer

LAYERS = {
    "residual": Layer(4, 2, 8, 6, 6, 1, "swish"),
    "down": Layer(3, 1, 8, 6, 10, 2, "relu"),
    "relu6": Layer(3, 1, 8, 6, 10, 1, "relu6"),
}
CANDIDATES = (
    Candidate("k3_e3", 3, 3, (2, 4), 0),
    Candidate("k5_e6_se", 5, 6, (4, 8), 2),
)


def make_operation(layer, candidate):
    torch.manual_seed(0)
    operation = CandidateOperation(layer, candidate)
    for tensor in operation.buffers():  # biases begin at zero, which would hide an error
        tensor.normal_(0, 0.3)
    return operation


@pytest.mark.parametrize("candidate", CANDIDATES, ids=lambda c: c.name)
@pytest.mark.parametrize("layer", LAYERS.values(), ids=LAYERS)
@pytest.mark.parametrize("narrowed", [None, 5, 0], ids=["initial", "narrow", "full"])
def test_operation_equals_the_block_with_its_active_weights(layer, candidate, narrowed, block_parameters) -> None:
    operation = make_operation(layer, candidate).double()
    low, high = candidate.width_range(layer.in_channels)
    if narrowed is not None:
        operation.set_width(low + narrowed if narrowed else high)
    block = derived_block(operation, candidate, block_parameters).double()
    x = torch.randn(4, 6, 8, 8, dtype=torch.float64)
    inputs = x.clone().requires_grad_(), x.clone().requires_grad_()
    ours, theirs = operation(inputs[0]), block(inputs[1])
    torch.testing.assert_close(ours, theirs)
    ours.square().sum().backward()
    theirs.square().sum().backward()
    torch.testing.assert_close(inputs[0].grad, inputs[1].grad)
    for name, weight in operation.weights.items():
        torch.testing.assert_close(weight.grad, block.get_parameter(block_parameters[name]).grad)


def test_evaluation_uses_batch_statistics_too() -> None:
    operation = make_operation(LAYERS["residual"], CANDIDATES[1])
    x = torch.randn(4, 6, 8, 8)
    torch.testing.assert_close(operation.train()(x), operation.eval()(x))


def test_path_is_the_mixture_with_one_hot_weights() -> None:
    mixed = MixedOp(LAYERS["residual"], CANDIDATES)
    x = torch.randn(4, 6, 8, 8)
    for index in range(len(CANDIDATES)):
        torch.testing.assert_close(mixed.forward_path(x, index), mixed.forward_mixed(x, torch.eye(2)[index]))


@pytest.mark.parametrize("candidate", CANDIDATES, ids=lambda c: c.name)
def test_search_begins_with_three_quarters_of_the_channels(candidate) -> None:
    operation = make_operation(LAYERS["down"], candidate)
    assert operation.width == 3 * operation.max_width // 4


@pytest.mark.parametrize("kind", CHANNEL_IMPORTANCE)
def test_the_most_important_channels_are_kept(kind) -> None:
    operation = make_operation(LAYERS["residual"], CANDIDATES[1])
    before = {name: tensor.clone() for name, tensor in operation.named_buffers()}
    importance = channel_importance(before, kind)
    order = operation.set_width(30, kind)
    assert sorted(order.tolist()) == list(range(48))
    assert importance[order[:30]].min() >= importance[order[30:]].max()
    for name, weight in operation.weights.items():  # every weight of a channel goes with it
        axis = CHANNEL_AXIS[name]
        assert torch.equal(weight, before[name] if axis is None else before[name].index_select(axis, order[:30]))


def test_importance_is_the_norm_of_the_kernel_of_the_column_or_both() -> None:
    depthwise = torch.tensor([[1.0, -2.0], [3.0, 0.0], [0.0, 0.0]])[:, None, None]  # (3, 1, 1, 2)
    project = torch.tensor([[3.0, 0.0, 1.0], [-4.0, 2.0, 0.0]])[:, :, None, None]  # (2, 3, 1, 1)
    weights = {"depthwise": depthwise, "project": project}
    assert channel_importance(weights, "depthwise").tolist() == [3.0, 3.0, 0.0]
    assert channel_importance(weights, "projection").tolist() == [5.0, 2.0, 1.0]
    assert channel_importance(weights, "product").tolist() == [15.0, 6.0, 0.0]
    assert channel_order(weights, 1, "depthwise").tolist() == [0, 1, 2]  # the first of equals


def test_dropping_the_least_important_column_hurts_the_projection_least() -> None:
    torch.manual_seed(0)
    project = torch.randn(8, 12) * torch.linspace(0.1, 2.0, 12)[torch.randperm(12)]
    channels = torch.randn(12, 100_000)  # as BatchNorm leaves them: independent, mean square 1
    errors = torch.stack([(project[:, [i]] @ channels[[i]]).square().sum() for i in range(12)])
    weights = {"depthwise": torch.ones(12, 1, 3, 3), "project": project[:, :, None, None]}
    assert torch.equal(channel_importance(weights, "projection").argsort(), errors.argsort())


@pytest.mark.parametrize("scale", [0.1, 10.0])
def test_the_scale_of_a_depthwise_kernel_changes_only_the_authors_measure_not_the_output(scale) -> None:
    operation = make_operation(LAYERS["residual"], CANDIDATES[0])
    x = torch.randn(8, 6, 8, 8, dtype=operation.get_buffer("expand").dtype)
    before, weights = operation(x), dict(operation.named_buffers())
    depthwise, projection = (channel_importance(weights, kind) for kind in ("depthwise", "projection"))
    with torch.no_grad():
        operation.get_buffer("depthwise")[0].mul_(scale)
    torch.testing.assert_close(operation(x), before, rtol=0, atol=2e-2)
    assert channel_importance(weights, "depthwise")[0] == pytest.approx(scale * float(depthwise[0]))
    assert torch.equal(channel_importance(weights, "projection"), projection)


def test_dropped_channels_come_back_unchanged_after_training_without_them() -> None:
    operation = make_operation(LAYERS["residual"], CANDIDATES[1])
    operation.set_width(24)
    dropped = {name: tensor.clone() for name, tensor in operation.named_buffers()}
    optimizer = torch.optim.SGD(operation.weights.values(), lr=0.1, momentum=0.9, weight_decay=0.1)
    for _ in range(3):
        optimizer.zero_grad()
        operation(torch.randn(4, 6, 8, 8)).square().sum().backward()
        optimizer.step()
    for name, tensor in operation.named_buffers():
        axis = CHANNEL_AXIS[name]
        if axis is not None:
            assert torch.equal(tensor.narrow(axis, 24, 24), dropped[name].narrow(axis, 24, 24))
            assert not torch.equal(tensor.narrow(axis, 0, 24), dropped[name].narrow(axis, 0, 24))
    trained = operation.get_buffer("depthwise").clone()
    operation.set_width(48)
    assert torch.equal(operation.weights["depthwise"], trained)


def test_shrinking_and_expanding_leaves_the_full_operation_as_it_was() -> None:
    operation = make_operation(LAYERS["down"], CANDIDATES[1])
    operation.set_width(48)
    x = torch.randn(4, 6, 8, 8)
    before = operation(x)
    for width in (25, 40, 31, 48):
        operation.set_width(width)
    torch.testing.assert_close(operation(x), before)


def test_same_width_keeps_the_same_channels() -> None:
    operation = make_operation(LAYERS["residual"], CANDIDATES[0])
    before = operation.weights["expand"].clone()
    assert operation.set_width(operation.width) is None
    assert torch.equal(operation.weights["expand"], before)


def test_moving_the_layer_keeps_weights_and_buffers_one() -> None:
    operation = make_operation(LAYERS["residual"], CANDIDATES[0]).to(torch.float64)
    with torch.no_grad():
        operation.weights["project"].fill_(7.0)
    assert (operation.get_buffer("project")[:, : operation.width] == 7.0).all()
    assert (operation.get_buffer("project")[:, operation.width :] != 7.0).all()


def test_a_candidate_whose_expansion_would_disappear_is_refused() -> None:
    with pytest.raises(UserError, match="k3_e3: expand_range"):
        CandidateOperation(LAYERS["residual"], replace(CANDIDATES[0], expand_range=(1, 4)))
