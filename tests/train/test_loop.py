"""One step and one pass, against computation by hand."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from torch import nn

from tfnas.space import build_network
from tfnas.train.loop import CHECK_LOSS_EVERY, LossWatch, NonFiniteLossError, Stepper, evaluate, train_epoch
from tfnas.train.recipe import training_loss

CPU = torch.device("cpu")


class Table(nn.Module):
    """Logits looked up by the first pixel of an image."""

    def __init__(self, logits: torch.Tensor) -> None:
        super().__init__()
        self.logits = logits

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        assert not self.training
        return self.logits[x[:, 0, 0, 0].long()]


def test_evaluate_equals_numpy_with_a_partial_last_batch(numpy_metrics) -> None:
    logits, labels = torch.randn(11, 7), torch.randint(7, (11,))
    images = torch.arange(11.0)[:, None, None, None].expand(11, 3, 2, 2)
    batches = list(zip(images.split(4), labels.split(4), strict=True))
    found = evaluate(Table(logits), batches, device=CPU, precision="float32")
    loss, top1, top5 = numpy_metrics(logits.double().numpy(), labels.numpy())
    assert found.loss == pytest.approx(loss, rel=1e-5)
    assert (found.top1_percent, found.top5_percent) == pytest.approx((top1, top5))


def test_a_step_is_gradient_descent_by_hand(architecture, make_recipe, loaders) -> None:
    torch.manual_seed(3)
    network = build_network(architecture, 6)
    twin = copy.deepcopy(network)
    images, labels = next(iter(loaders[0]))
    recipe = make_recipe(momentum=0.0, weight_decay=0.01)
    Stepper(network.train(), recipe, device=CPU, precision="float32").step(images, labels, 0.3)
    training_loss(twin.train()(images), labels, 0.1).backward()
    for (name, after), before in zip(network.named_parameters(), twin.parameters(), strict=True):
        expected = before - 0.3 * (before.grad + 0.01 * before)
        torch.testing.assert_close(after, expected, rtol=1e-4, atol=1e-6, msg=name)


def test_an_epoch_takes_one_step_a_batch_and_sums_what_it_saw(architecture, make_recipe, loaders) -> None:
    network = build_network(architecture, 6)
    stepper, twin = (Stepper(copy.deepcopy(network), make_recipe(), device=CPU, precision="float32") for _ in range(2))
    found = train_epoch(stepper, loaders[0], [0.1, 0.05, 0.02])
    twin.network.train()
    seen = [(*twin.step(*batch, rate), batch[1]) for batch, rate in zip(loaders[0], [0.1, 0.05, 0.02], strict=True)]
    assert found.loss == pytest.approx(np.mean([loss.item() for _, loss, _ in seen]))
    hits = torch.cat([logits.argmax(1) == labels for logits, _, labels in seen])
    assert found.top1_percent == pytest.approx(100 * hits.double().mean().item())
    for key, value in stepper.network.state_dict().items():
        assert torch.equal(value, twin.network.state_dict()[key]), key


@pytest.mark.parametrize("bad_step", [1, 7, CHECK_LOSS_EVERY, CHECK_LOSS_EVERY + 1, CHECK_LOSS_EVERY + 4])
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_the_first_loss_that_is_not_finite_is_named(bad_step: int, value: float) -> None:
    watch = LossWatch()
    with pytest.raises(NonFiniteLossError) as caught:
        for step in range(1, CHECK_LOSS_EVERY + 5):
            watch.add(torch.tensor(value if step >= bad_step else 1.0))
        watch.check()
    assert caught.value.step == bad_step


@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
def test_autocast_trains_float32_weights(architecture, make_recipe, loaders, precision) -> None:
    torch.manual_seed(0)
    stepper = Stepper(build_network(architecture, 6), make_recipe(), device=CPU, precision=precision)
    losses = [train_epoch(stepper, loaders[0], [0.05] * 3).loss for _ in range(15)]
    assert losses[-1] < losses[0]
    assert all(p.dtype == torch.float32 for p in stepper.network.parameters())
