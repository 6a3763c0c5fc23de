"""The fused form of a layer with entangled weights against the plain one: values and gradients, in float64."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import get_args

import pytest
import torch
from torch import Tensor

from tests.helpers.shipped_layers import distinct_layers
from tfnas.search import fused
from tfnas.search.derivation.strongest import searchable_layers
from tfnas.search.fused import fused_entangled_sum
from tfnas.search.supernet.mixed_op import initial_weights, plain_sum
from tfnas.search.supernet.weight_entanglement import Share, entangled_weights
from tfnas.space import Layer, load_space
from tfnas.space.space import Kernel, Stride

LAYERS = distinct_layers()
TOLERANCE = 1e-9  # relative, of a tensor's norm

Bank = dict[str, Tensor]


def draw_bank(layer: Layer, shares: list[Share], *, spare: int = 0) -> Bank:
    """A bank with biases that are not zero, and `spare` channels that no operation uses."""
    width, se_channels = (max(values) for values in zip(*((s.width, s.se_channels) for s in shares), strict=True))
    kernel = max(share.kernel for share in shares)
    weights = initial_weights(layer, width + spare, kernel, se_channels + spare if se_channels else 0)
    bank = {name: tensor.double() for name, tensor in weights.items()}
    return {n: t.normal_().requires_grad_() if n.endswith("bias") else t.requires_grad_() for n, t in bank.items()}


def every_form(monkeypatch) -> Iterator[bool]:
    """The ways a layer is computed: with the statistics of its input or not, a matrix for each image or not, narrower
    kernel sizes at the largest width or not; yields `recompute`."""
    for pixels, channels, nearly, recompute in itertools.product((0, 10**9), (0, 10**9), (0.0, 2.0), (False, True)):
        monkeypatch.setattr(fused.expansion, "PIXELS_PER_COVARIANCE", pixels)
        monkeypatch.setattr(fused.projections, "PIXELS_PER_CHANNEL", channels)
        monkeypatch.setattr(fused.entangled, "NEARLY_ALL", nearly)
        yield recompute


def assert_close(found: list[Tensor], expected: list[Tensor]) -> None:
    for own, other in zip(found, expected, strict=True):
        assert own.shape == other.shape
        assert float((own - other).detach().norm()) <= TOLERANCE * max(1.0, float(other.detach().norm()))


def check(layer: Layer, shares: list[Share], size: tuple[int, int], monkeypatch, *, spare: int = 0) -> None:
    """Values and all gradients in every form, with and without gradients of the bank."""
    bank = draw_bank(layer, shares, spare=spare)
    x = torch.randn(2, layer.in_channels, *size, dtype=torch.float64, requires_grad=True)
    u = torch.rand(len(shares), dtype=torch.float64, requires_grad=True)
    inputs = [x, u, *bank.values()]
    expected = plain_sum(x, [entangled_weights(bank, *share) for share in shares], u, layer)
    grad = torch.randn_like(expected)
    expected_grads = torch.autograd.grad(expected, inputs, grad)
    frozen = {name: tensor.detach() for name, tensor in bank.items()}
    for recompute in every_form(monkeypatch):
        found = fused_entangled_sum(x, bank, shares, u, layer, recompute=recompute)
        assert_close([found, *torch.autograd.grad(found, inputs, grad)], [expected, *expected_grads])
        found = fused_entangled_sum(x, frozen, shares, u, layer, recompute=recompute)
        assert_close([found, *torch.autograd.grad(found, [x, u], grad)], [expected, *expected_grads[:2]])


@pytest.mark.parametrize("name", LAYERS)
def test_every_layer_at_random_widths_equals_the_plain_form(name, monkeypatch) -> None:
    space_name, layer = LAYERS[name]
    torch.manual_seed(layer.stage)
    shares = list[Share]()
    for candidate in load_space(space_name).candidates:
        low, high = candidate.width_range(layer.in_channels)
        width = int(torch.randint(low, high + 1, ()))
        shares.append(Share(candidate.kernel, width, candidate.se_channels(layer.in_channels)))
    check(layer, shares, (5, 4), monkeypatch)


SHARES = {
    "one operation": [Share(5, 9, 0)],
    "one operation with squeeze-and-excitation": [Share(3, 9, 4)],
    "equal operations": [Share(3, 9, 0), Share(3, 9, 0), Share(5, 9, 3), Share(5, 9, 3)],
    "one width": [Share(3, 7, 0), Share(5, 7, 0), Share(3, 7, 2), Share(5, 7, 2)],
    "odd widths": [Share(3, 5, 0), Share(3, 11, 0), Share(5, 7, 3), Share(5, 13, 0), Share(3, 9, 1)],
    "the larger kernel first": [Share(5, 12, 4), Share(5, 6, 0), Share(3, 12, 4), Share(3, 6, 0)],
    "the widest first": [Share(3, 16, 2), Share(3, 12, 0), Share(3, 8, 2), Share(3, 4, 0)],
    "squeeze-and-excitation in the widest only": [Share(3, 4, 0), Share(3, 12, 3), Share(5, 4, 0)],
    "squeeze-and-excitation in the narrowest only": [Share(3, 4, 3), Share(3, 12, 0), Share(5, 12, 0)],
    "a kernel size of its own width": [Share(3, 4, 0), Share(5, 12, 2)],
}


@pytest.mark.parametrize("shares", SHARES.values(), ids=list(SHARES))
@pytest.mark.parametrize("stride", get_args(Stride))
def test_every_set_of_operations_equals_the_plain_form(stride, shares, monkeypatch) -> None:
    """With and without a residual; channels of the bank that no operation uses get no gradient."""
    torch.manual_seed(0)
    for out_channels, act in ((4, "swish"), (5, "relu6"), (4, "relu")):
        check(Layer(3, 1, 6, 4, out_channels, stride, act), shares, (6, 5), monkeypatch, spare=2)


@pytest.mark.parametrize("size", [(1, 1), (1, 2), (2, 2), (1, 9), (8, 7)], ids=str)
@pytest.mark.parametrize("stride", get_args(Stride))
def test_every_kernel_of_the_schema_equals_the_plain_form(stride, size, monkeypatch) -> None:
    torch.manual_seed(0)
    shares = [Share(kernel, width, se) for kernel in get_args(Kernel) for width, se in ((6, 0), (9, 3))]
    check(Layer(3, 1, 8, 4, 4, stride, "swish"), shares, size, monkeypatch)


def test_frozen_banks_and_recomputation_keep_less() -> None:
    layer = next(layer for layer in searchable_layers(load_space("tf-nas")) if layer.stage == 5 and layer.position == 2)
    shares = [Share(k, ratio * 80, se) for k in (3, 5) for ratio, se in ((3, 0), (6, 0), (3, 80), (6, 160))]
    bank = {name: tensor.detach() for name, tensor in draw_bank(layer, shares).items()}
    x = torch.randn(2, 80, 14, 14, dtype=torch.float64, requires_grad=True)
    u = torch.rand(len(shares), dtype=torch.float64)
    owned = {tensor.untyped_storage().data_ptr() for tensor in bank.values()}

    def kept_bytes(run) -> int:
        storages: dict[int, int] = {}

        def pack(tensor: Tensor) -> Tensor:
            if tensor.untyped_storage().data_ptr() not in owned:
                storages[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            assert run().requires_grad
        return sum(storages.values())

    weights = [entangled_weights(bank, *share) for share in shares]
    separate = kept_bytes(lambda: fused.fused_sum(x, weights, u, layer))
    kept, least = (kept_bytes(lambda r=r: fused_entangled_sum(x, bank, shares, u, layer, recompute=r)) for r in (0, 1))
    assert kept < 0.4 * separate
    assert least < 0.1 * kept


def test_autocast_computes_in_half_precision_and_stays_near(monkeypatch) -> None:
    torch.manual_seed(0)
    layer = next(layer for layer in searchable_layers(load_space("tf-nas")) if layer.stage == 4)
    shares = [Share(k, ratio * 24, se) for k in (3, 5) for ratio, se in ((3, 0), (6, 0), (3, 24), (6, 48))]
    bank = {name: tensor.detach().float().requires_grad_() for name, tensor in draw_bank(layer, shares).items()}
    x, u = torch.randn(4, 24, 8, 8, requires_grad=True), torch.rand(8, requires_grad=True)
    inputs = [x, u, *bank.values()]
    expected = fused_entangled_sum(x, bank, shares, u, layer)
    grad = torch.randn_like(expected)
    expected_grads = torch.autograd.grad(expected, inputs, grad)
    for channels in (0, 10**9):
        monkeypatch.setattr(fused.projections, "PIXELS_PER_CHANNEL", channels)
        with torch.autocast("cpu", torch.bfloat16):
            found = fused_entangled_sum(x, bank, shares, u, layer)
        assert found.dtype == torch.bfloat16
        found_grads = torch.autograd.grad(found, inputs, grad.bfloat16())
        for own, other in zip([found, *found_grads], [expected, *expected_grads], strict=True):
            assert float((own.float() - other).detach().norm()) < 0.05 * float(other.detach().norm())
