"""One step and one pass, against computation by hand."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from tfnas.jobs.errors import NonFiniteLossError
from tfnas.train.loop import CHECK_LOSS_EVERY, LossWatch, evaluate

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


@pytest.mark.parametrize("bad_step", [1, 7, CHECK_LOSS_EVERY, CHECK_LOSS_EVERY + 1, CHECK_LOSS_EVERY + 4])
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_the_first_loss_that_is_not_finite_is_named(bad_step: int, value: float) -> None:
    watch = LossWatch()
    with pytest.raises(NonFiniteLossError) as caught:
        for step in range(1, CHECK_LOSS_EVERY + 5):
            watch.add(torch.tensor(value if step >= bad_step else 1.0))
        watch.check()
    assert caught.value.step == bad_step
