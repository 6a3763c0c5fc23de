"""The fused form of a searchable layer against the plain one: values and gradients, in float64."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import get_args

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from tests.helpers.derived_networks import derived_block
from tests.helpers.shipped_layers import distinct_layers
from tfnas.search import fused
from tfnas.search.derivation.strongest import searchable_layers
from tfnas.search.fused import fused_sum
from tfnas.search.sampling import gumbel_softmax
from tfnas.search.supernet.mixed_op import MixedOp, SearchableLayer, plain_block, plain_sum
from tfnas.search.supernet.sink_connecting import SinkConnectedStage
from tfnas.search.supernet.supernet import WEIGHT_SHARING, Supernet
from tfnas.space import Candidate, Layer, load_space
from tfnas.space.space import Kernel, Stride, halve, shipped_spaces

SPACES = shipped_spaces()
LAYERS = distinct_layers()
STAGES = (3, 4, 5, 6, 7, 8)
TOLERANCE = 1e-9  # relative, of a tensor's norm; 1e-5 is asked for


def draw_weights(module: nn.Module) -> None:
    """Random widths, and biases that are not zero."""
    for op in (op for op in module.modules() if isinstance(op, SearchableLayer)):
        for operation in op.all_operations():
            operation.set_width(int(torch.randint(operation.max_width // 2, operation.max_width + 1, ())))
        for name, tensor in op.state_dict().items():
            if name.endswith("bias"):
                tensor.normal_()


def assert_close(found: list[Tensor], expected: list[Tensor]) -> None:
    for own, other in zip(found, expected, strict=True):
        assert own.shape == other.shape
        assert float((own - other).detach().norm()) <= TOLERANCE * max(1.0, float(other.detach().norm()))


def layers_of(space_name: str, stage: int) -> list[MixedOp]:
    """The first layer of a stage, and its second, which keeps the shape."""
    space = load_space(space_name)
    layers = [layer for layer in searchable_layers(space) if layer.stage == stage][:2]
    return [MixedOp(layer, space.candidates).double() for layer in layers]


def every_form(monkeypatch) -> Iterator[bool]:
    """The ways a layer is computed: joined or not, with the statistics of its input or not; yields `recompute`."""
    for joined, pixels, recompute in itertools.product((0, 10**9), (0, 10**9), (False, True)):
        monkeypatch.setattr(fused, "JOINED_VALUES", joined)
        monkeypatch.setattr(fused.expansion, "PIXELS_PER_COVARIANCE", pixels)
        yield recompute


@pytest.mark.parametrize("name", LAYERS)
def test_every_form_of_a_layer_equals_the_plain_one(name, monkeypatch) -> None:
    space_name, layer = LAYERS[name]
    torch.manual_seed(layer.stage)
    op = MixedOp(layer, load_space(space_name).candidates).double()
    draw_weights(op)
    weights = [op.operation(i).weights for i in range(len(op.operations))]
    x = torch.randn(2, op.layer.in_channels, 6, 5, dtype=torch.float64, requires_grad=True)
    u = torch.rand(len(weights), dtype=torch.float64, requires_grad=True)
    inputs = [x, u, *(tensor for own in weights for tensor in own.values())]
    expected = plain_sum(x, weights, u, op.layer)
    grad = torch.randn_like(expected)
    expected_grads = torch.autograd.grad(expected, inputs, grad)
    for recompute in every_form(monkeypatch):
        found = fused_sum(x, weights, u, op.layer, recompute=recompute)
        assert_close([found, *torch.autograd.grad(found, inputs, grad)], [expected, *expected_grads])
        frozen = [{name: tensor.detach() for name, tensor in own.items()} for own in weights]
        found = fused_sum(x, frozen, u, op.layer, recompute=recompute)
        assert_close(list(torch.autograd.grad(found, [x, u], grad)), list(expected_grads[:2]))


@pytest.mark.parametrize("space_name", SPACES)
def test_one_operation_alone_equals_the_plain_one(space_name) -> None:
    torch.manual_seed(0)
    for op in (layers[-1] for stage in STAGES if (layers := layers_of(space_name, stage))):
        draw_weights(op)
        for i in range(len(op.operations)):
            weights = op.operation(i).weights
            x = torch.randn(2, op.layer.in_channels, 4, 5, dtype=torch.float64, requires_grad=True)
            inputs = [x, *weights.values()]
            expected, found = plain_block(x, weights, op.layer), op.forward_path(x, i)
            grad = torch.randn_like(expected)
            found_grads, expected_grads = (torch.autograd.grad(out, inputs, grad) for out in (found, expected))
            assert_close([found, *found_grads], [expected, *expected_grads])


@pytest.mark.parametrize("size", [(1, 1), (1, 2), (2, 2), (3, 3), (1, 9), (8, 7)], ids=str)
@pytest.mark.parametrize("stride", get_args(Stride))
def test_every_kernel_of_the_schema_equals_the_plain_form(stride, size, monkeypatch, block_parameters) -> None:
    """Joined, one by one, recomputed, alone, and as the block that latencies are measured of."""
    torch.manual_seed(0)
    candidates = [Candidate(f"k{k}_{se}", k, 3.0, (2.0, 4.0), se) for k in get_args(Kernel) for se in (0.0, 1.0)]
    for out_channels, act in ((4, "swish"), (5, "relu6")):
        layer = Layer(3, 1, size[0], 4, out_channels, stride, act)
        op = MixedOp(layer, candidates).double()
        weights = [op.operation(i).weights for i in range(len(candidates))]
        x = torch.randn(3, 4, *size, dtype=torch.float64, requires_grad=True)
        u = torch.rand(len(weights), dtype=torch.float64, requires_grad=True)
        inputs = [x, u, *(tensor for own in weights for tensor in own.values())]
        expected = plain_sum(x, weights, u, op.layer)
        assert expected.shape[2:] == tuple(halve(pixels, stride) for pixels in size)
        grad = torch.randn_like(expected)
        expected_grads = torch.autograd.grad(expected, inputs, grad)
        for recompute in every_form(monkeypatch):
            found = fused_sum(x, weights, u, layer, recompute=recompute)
            assert_close([found, *torch.autograd.grad(found, inputs, grad)], [expected, *expected_grads])
        for i, candidate in enumerate(candidates):
            block = derived_block(op.operation(i), candidate, block_parameters)
            alone = [plain_block(x, weights[i], layer), op.forward_path(x, i)]
            assert_close(alone, [block(x)] * 2)


def plain_logits(net: Supernet, x: Tensor, u: Tensor) -> Tensor:
    x, layer, betas = net.stem(x), 0, iter(net.betas)
    for stage in net.stages:
        if not isinstance(stage, SinkConnectedStage):
            x = stage(x)
            continue
        outputs = []
        for op in stage.mixed_ops():
            x = plain_sum(x, [operation.weights for operation in op.all_operations()], u[layer], op.layer)
            outputs.append(x)
            layer += 1
        x = sum(v * out for v, out in zip(next(betas).softmax(-1), outputs, strict=True))
    return net.classifier(net.pool(net.head(x)).flatten(1))


@pytest.mark.parametrize("recompute", [False, True], ids=["kept", "recomputed"])
@pytest.mark.parametrize("weight_sharing", WEIGHT_SHARING)
@pytest.mark.parametrize("space_name", SPACES)
def test_gradients_of_alpha_and_beta_through_the_whole_supernet(space_name, weight_sharing, recompute) -> None:
    torch.manual_seed(0)
    net = Supernet(load_space(space_name), 5, weight_sharing=weight_sharing)
    draw_weights(net)
    net.double()
    for parameter in net.weight_parameters():
        parameter.requires_grad_(False)
    size = 16 if load_space(space_name).resolution <= 32 else 64  # the last maps are 2 x 2, or 4 x 4
    x, labels = torch.randn(2, 3, size, size, dtype=torch.float64), torch.tensor([1, 3])
    noise = torch.randn(net.alphas.shape, dtype=torch.float64)
    u = gumbel_softmax(net.alphas, 3.0, noise)
    expected, found = plain_logits(net, x, u), net.forward_mixed(x, u, recompute=recompute)
    inputs = net.architecture_parameters()[: 1 + sum(len(beta) > 1 for beta in net.betas)]
    grads = [
        torch.autograd.grad(functional.cross_entropy(logits, labels), inputs, retain_graph=True)
        for logits in (found, expected)
    ]
    assert_close([found], [expected])
    for own, other in zip(*grads, strict=True):
        assert float((own - other).norm()) <= 1e-5 * float(other.norm())


def test_paths_that_share_their_beginning_get_the_gradients_of_separate_ones(tiny_space) -> None:
    torch.manual_seed(0)
    net = Supernet(tiny_space, 3).double()
    x, paths = (
        torch.randn(4, 3, 16, 16, dtype=torch.float64),
        [torch.tensor([0, 1, 2, 3, 0]), torch.tensor([1, 2, 3, 0, 1])],
    )
    together = sum(logits.square().sum() for logits in net.forward_paths(x, paths))
    alone = sum(net.forward_path(x, path).square().sum() for path in paths)
    inputs = [net.stem.conv.weight, net.stages[0][0].depthwise.conv.weight, net.head.conv.weight, *net.betas]
    assert_close(list(torch.autograd.grad(together, inputs)), list(torch.autograd.grad(alone, inputs)))


def test_keeps_less_for_the_backward_pass_than_the_plain_form_and_least_with_recomputation() -> None:
    op = layers_of("tf-nas", 5)[-1]
    weights = [{n: w.detach() for n, w in op.operation(i).weights.items()} for i in range(len(op.operations))]
    x, u = (
        torch.randn(2, op.layer.in_channels, 14, 14, dtype=torch.float64, requires_grad=True),
        torch.rand(len(weights)),
    )

    def kept_bytes(run) -> int:
        known = {tensor.untyped_storage().data_ptr() for own in weights for tensor in own.values()}
        storages: dict[int, int] = {}

        def pack(tensor: Tensor) -> Tensor:
            if tensor.untyped_storage().data_ptr() not in known:
                storages[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            out = run()
        assert out.requires_grad
        return sum(storages.values())

    plain = kept_bytes(lambda: plain_sum(x, weights, u.double(), op.layer))
    kept, least = (kept_bytes(lambda r=r: op.forward_mixed(x, u.double(), recompute=r)) for r in (False, True))
    assert kept < 0.4 * plain
    assert least < 0.25 * kept


@pytest.mark.parametrize("precision", [torch.bfloat16])
def test_autocast_computes_in_half_precision_and_stays_near(precision) -> None:
    torch.manual_seed(0)
    op = layers_of("tf-nas", 4)[0].float()
    x, u = torch.randn(4, op.layer.in_channels, 8, 8, requires_grad=True), torch.rand(8, requires_grad=True)
    expected = op.forward_mixed(x, u)
    with torch.autocast("cpu", precision):
        found = op.forward_mixed(x, u)
    assert found.dtype == precision
    grad = torch.randn_like(expected)
    inputs = [x, u, *op.operation(3).weights.values()]
    found_grads = torch.autograd.grad(found, inputs, grad.to(precision))
    for own, other in zip([found, *found_grads], [expected, *torch.autograd.grad(expected, inputs, grad)], strict=True):
        assert float((own.float() - other).detach().norm()) < 0.05 * float(other.detach().norm())


@pytest.mark.parametrize("recompute", [False, True], ids=["kept", "recomputed"])
def test_single_pixels_are_computed_in_another_way_to_the_same_end(recompute) -> None:
    torch.manual_seed(0)
    op = layers_of("tf-nas", 7)[-1]
    weights = [op.operation(i).weights for i in range(len(op.operations))]
    x = torch.randn(16, op.layer.in_channels, 1, 1, dtype=torch.float64, requires_grad=True)
    u = torch.rand(len(weights), dtype=torch.float64, requires_grad=True)
    expected, found = plain_sum(x, weights, u, op.layer), op.forward_mixed(x, u, recompute=recompute)
    inputs = [x, u, *(tensor for own in weights for tensor in own.values())]
    grad = torch.randn_like(expected)
    assert_close(
        [found, *torch.autograd.grad(found, inputs, grad)], [expected, *torch.autograd.grad(expected, inputs, grad)]
    )
