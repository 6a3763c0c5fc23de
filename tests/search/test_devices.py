"""What a search computes on a GPU is what it computes on a CPU; each law is checked on both."""

from __future__ import annotations

import pytest
import torch

from tfnas.search import Loaders, Setting, latency_constraint, search
from tfnas.search.derivation.strongest import searchable_layers
from tfnas.search.fused import fused_sum
from tfnas.search.sampling import gumbel_path
from tfnas.search.state import SearchState
from tfnas.search.supernet.mixed_op import MixedOp, plain_sum

CUDA = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
DEVICES = pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=[pytest.mark.gpu, CUDA])])
TOLERANCE = 1e-9  # relative, of a tensor's norm, in float64


@DEVICES
@pytest.mark.parametrize("recompute", [False, True])
def test_a_layer_equals_the_plain_form(table1, device, recompute) -> None:
    torch.manual_seed(0)
    for layer in searchable_layers(table1)[1:5]:
        op = MixedOp(layer, table1.candidates).double().to(device)
        weights = [op.operation(i).weights for i in range(len(op.operations))]
        x = torch.randn(2, layer.in_channels, 6, 5, dtype=torch.float64, device=device, requires_grad=True)
        u = torch.rand(len(weights), dtype=torch.float64, device=device, requires_grad=True)
        inputs = [x, u, *(tensor for own in weights for tensor in own.values())]
        expected = plain_sum(x, weights, u, layer)
        found = fused_sum(x, weights, u, layer, recompute=recompute)
        grad = torch.randn_like(expected)
        grads, expected_grads = (torch.autograd.grad(out, inputs, grad) for out in (found, expected))
        for own, other in zip([found, *grads], [expected, *expected_grads], strict=True):
            assert own.device.type == device
            assert float((own - other).detach().norm()) <= TOLERANCE * max(1.0, float(other.detach().norm()))


@DEVICES
@pytest.mark.parametrize("weight_sharing", ["none", "entangled"])
def test_logits_are_those_of_the_cpu(tiny_space, make_params, device, weight_sharing) -> None:
    images = torch.randn(4, 3, 16, 16, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    params = make_params(weight_sharing=weight_sharing)
    states = [SearchState.initial(tiny_space, 3, Setting(params, device=where)) for where in ("cpu", device)]
    logits = []
    for state in states:
        supernet = state.supernet.double()
        path = gumbel_path(supernet.operation_logits(), 5.0, torch.Generator().manual_seed(2))
        logits.append(supernet.forward_path(images.to(supernet.alphas.device), path))
    torch.testing.assert_close(logits[1].cpu(), logits[0], rtol=1e-9, atol=1e-9)


@DEVICES
@pytest.mark.parametrize("weight_sharing", ["none", "entangled"])
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_a_search_resumes_on_its_device(
    tiny_space, tiny_table, target_ms, loaders, make_params, device, precision, weight_sharing
) -> None:
    constraint = latency_constraint(tiny_space, tiny_table, target_ms)
    params = make_params(weight_sharing=weight_sharing)
    setting = Setting(params, device=torch.device(device), precision=precision)

    class Kept:
        state: dict | None = None

        def load(self) -> dict | None:
            return self.state

        def save(self, state: dict) -> None:
            self.state = state

        def newest(self) -> None:
            return None

    class Stopped(Exception):
        pass

    def stop(record) -> None:
        if record.epoch == 2:
            raise Stopped

    kept = Kept()
    with pytest.raises(Stopped):
        search(constraint, Loaders(*loaders), setting, checkpoints=kept, on_epoch=stop)
    result = search(constraint, Loaders(*loaders), setting, checkpoints=kept)
    assert [record.epoch for record in result.history] == [1, 2, 3, 4]
    assert result.history[-1].derived_latency_after_ms <= target_ms
