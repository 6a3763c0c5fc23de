"""`search.architecture.paths: one`: the value is a path's, the gradient of alpha comes through u (Sec. 3.1)."""

from __future__ import annotations

import itertools

import pytest
import torch
from torch.nn import functional

from tfnas.search.sampling import gumbel_softmax
from tfnas.search.supernet.depth_spaces import DEPTH_SPACES
from tfnas.search.supernet.mixed_op import SearchableLayer, plain_block
from tfnas.search.supernet.supernet import WEIGHT_SHARING, Supernet

SKIP, TAU, STEP = 4, 3.0, 1e-5  # of the tiny space's four candidates; Eq. 3; of differences
ALL = list(itertools.product(DEPTH_SPACES, WEIGHT_SHARING))
LABELS = torch.tensor([0, 1, 2, 1])


def make_supernet(space, depth_space, weight_sharing):
    torch.manual_seed(0)
    supernet = Supernet(space, 3, depth_space, weight_sharing).double()
    with torch.no_grad():
        supernet.alphas.normal_()
        for beta in supernet.betas:
            beta.normal_()
    return supernet, torch.randn(4, 3, 16, 16, dtype=torch.float64)


def draw(supernet, seed=3):
    """u of Eq. 3 (L, K) and its noise; skip is drawn once where it can be."""
    noise = torch.randn(supernet.alphas.shape, generator=torch.Generator().manual_seed(seed)).double()
    if supernet.alphas.shape[1] > SKIP:
        noise[3, SKIP] = 20.0
    return gumbel_softmax(supernet.operation_logits(), TAU, noise)


def loss(supernet, x, path, scales):
    """Cross-entropy with each layer's output times a factor, written once more in plain operations."""
    layer, x = 0, supernet.stages[0](supernet.stem(x))
    for stage, beta in zip(supernet.stages[1:], supernet.betas, strict=True):
        outputs = []
        for position, op in enumerate(m for m in stage.modules() if isinstance(m, SearchableLayer)):
            skips = int(path[layer]) == SKIP
            out = scales[layer] * (x if skips else plain_block(x, op.operation(int(path[layer])).weights, op.layer))
            if supernet.depth_space == "skip_out" and position:
                stays, skipped = beta[position - 1].softmax(-1)
                out = stays * out + skipped * x
            outputs.append(x := out)
            layer += 1
        if supernet.depth_space == "sink":
            x = sum(v * out for v, out in zip(beta.softmax(-1), outputs, strict=True))
    return functional.cross_entropy(supernet.classifier(supernet.pool(supernet.head(x)).flatten(1)), LABELS)


@pytest.mark.parametrize(("depth_space", "weight_sharing"), ALL)
def test_the_value_is_that_of_the_path_with_the_largest_u(tiny_space, depth_space, weight_sharing) -> None:
    supernet, x = make_supernet(tiny_space, depth_space, weight_sharing)
    u = draw(supernet)
    path = u.argmax(-1)
    assert (depth_space == "skip_in") == (SKIP in path)
    torch.testing.assert_close(supernet.forward_sampled(x, u), supernet.forward_path(x, path), rtol=0, atol=1e-12)


@pytest.mark.parametrize("recompute", [False, True], ids=["kept", "recomputed"])
@pytest.mark.parametrize(("depth_space", "weight_sharing"), ALL)
def test_the_gradient_of_alpha_is_that_of_the_factors_through_the_softmax(
    tiny_space, depth_space, weight_sharing, recompute
) -> None:
    """dL/dalpha_j = dL/ds u_k (delta_jk - u_j) / tau, s the factor of the chosen operation k, by differences."""
    supernet, x = make_supernet(tiny_space, depth_space, weight_sharing)
    u = draw(supernet)
    path, betas = u.argmax(-1), [beta for beta in supernet.betas if beta.numel()]
    expected = torch.zeros_like(u)
    with torch.no_grad():
        for layer, chosen in enumerate(path):
            scales = torch.ones(2, len(path), dtype=torch.float64)
            scales[:, layer] += torch.tensor([STEP, -STEP])
            slope = (loss(supernet, x, path, scales[0]) - loss(supernet, x, path, scales[1])) / (2 * STEP)
            indicator = functional.one_hot(chosen, u.shape[1])
            expected[layer] = slope * u[layer, chosen] * (indicator - u[layer]) / TAU
    logits = supernet.forward_sampled(x, u, recompute=recompute)
    alpha_grad, *beta_grads = torch.autograd.grad(functional.cross_entropy(logits, LABELS), [supernet.alphas, *betas])
    torch.testing.assert_close(alpha_grad, expected, rtol=1e-5, atol=1e-9)
    assert (alpha_grad.abs().sum(-1) > 1e-6).sum() >= 3  # of five layers; zero where BatchNorm removes the scale
    whole = loss(supernet, x, path, torch.ones(len(path), dtype=torch.float64))
    plain = torch.autograd.grad(whole, betas) if betas else ()
    torch.testing.assert_close(beta_grads, list(plain))


def test_only_the_sampled_operations_are_computed(tiny_space, monkeypatch) -> None:
    supernet, x = make_supernet(tiny_space, "sink", "none")
    u = draw(supernet)
    monkeypatch.setattr(SearchableLayer, "forward_mixed", None)
    for operation, sampled in zip(supernet.operations(), functional.one_hot(u.argmax(-1), 4).flatten(), strict=True):
        if not sampled:
            operation.weights["expand"].data.fill_(torch.nan)
    assert torch.isfinite(supernet.forward_sampled(x, u)).all()
