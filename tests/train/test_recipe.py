"""Laws of the learning rate and the loss."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tfnas.train.params import RecipeParams
from tfnas.train.recipe import make_optimizer, step_learning_rate, training_loss

OFF = {"ema_decay": 0, "mixup": 0, "cutmix": 0, "rand_augment": 0, "decay_norm_and_bias": True}
AUGMENTATION = {"crop_scale": (0.7, 1.0), "flip": False, "color_jitter": (0, 0, 0, 0)}


def recipe(epochs: int, warmup_epochs: int, peak: float = 0.2) -> RecipeParams:
    return RecipeParams(
        epochs=epochs,
        batch_size=8,
        learning_rate=peak,
        warmup_epochs=warmup_epochs,
        momentum=0.9,
        weight_decay=1e-5,
        label_smoothing=0.1,
        drop_connect=0.0,
        augmentation=AUGMENTATION,
        nesterov=False,
        extras=OFF,
        accumulate=1,
        channels_last=True,
        compile=False,
        sync_batchnorm=False,
        checkpoint_every_steps=0,
    )


def rates(epochs: int, warmup_epochs: int, steps: int, peak: float) -> list[float]:
    chosen = recipe(epochs, warmup_epochs, peak)
    return [step_learning_rate(step, steps, chosen) for step in range(epochs * steps + 1)]


plans = st.tuples(st.integers(0, 6), st.integers(1, 20), st.integers(1, 30), st.floats(1e-4, 10.0)).map(
    lambda plan: {"warmup_epochs": plan[0], "epochs": plan[0] + plan[1], "steps": plan[2], "peak": plan[3]}
)


@given(plans)
def test_warm_up_is_linear_in_steps_and_ends_at_the_peak(plan: dict) -> None:
    warmup = plan["warmup_epochs"] * plan["steps"]
    found = rates(**plan)[:warmup]
    assert found == pytest.approx([plan["peak"] * (i + 1) / warmup for i in range(warmup)])
    assert warmup == 0 or found[-1] == pytest.approx(plan["peak"])


@given(plans)
def test_cosine_starts_at_the_peak_falls_every_step_and_ends_at_zero(plan: dict) -> None:
    found = rates(**plan)[plan["warmup_epochs"] * plan["steps"] :]
    assert found[0] == pytest.approx(plan["peak"])
    assert all(later < earlier for earlier, later in pairwise(found))
    assert found[-1] == pytest.approx(0.0, abs=1e-12)


@given(plans)
def test_cosine_is_half_way_down_in_the_middle(plan: dict) -> None:
    chosen = recipe(plan["epochs"], plan["warmup_epochs"], plan["peak"])
    steps = 2 * plan["steps"]
    middle = (plan["warmup_epochs"] * steps + plan["epochs"] * steps) // 2
    assert step_learning_rate(middle, steps, chosen) == pytest.approx(plan["peak"] / 2)


def test_the_paper_s_schedule() -> None:
    """250 epochs, 0.2, 5 epochs of warm-up (Appendix B)."""
    chosen, steps = recipe(250, 5), 2502
    assert step_learning_rate(5 * steps - 1, steps, chosen) == pytest.approx(0.2)
    assert step_learning_rate(int(2.5 * steps) - 1, steps, chosen) == pytest.approx(0.1)
    assert step_learning_rate(250 * steps, steps, chosen) == pytest.approx(0.0, abs=1e-12)


@given(
    st.integers(2, 12),
    st.integers(1, 9),
    st.floats(0.0, 0.9),
    st.integers(0, 2**31 - 1),
)
def test_label_smoothing_is_cross_entropy_against_the_mixed_distribution(k: int, n: int, e: float, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(n, k, generator=generator, dtype=torch.float64)
    labels = torch.randint(k, (n,), generator=generator)
    manual = 0.0
    for row, label in zip(logits.tolist(), labels.tolist(), strict=True):
        log_sum = math.log(sum(math.exp(value) for value in row))
        smoothed = [(1 - e) * (i == label) + e / k for i in range(k)]
        manual -= sum(weight * (value - log_sum) for weight, value in zip(smoothed, row, strict=True)) / n
    assert training_loss(logits, labels, e).item() == pytest.approx(manual)


def test_two_optimizer_steps_equal_sgd_by_hand() -> None:
    """v <- m v + (g + d w), w <- w - r v, with a rate of its own for each step."""
    layer = torch.nn.Linear(3, 2, bias=False).double()
    chosen = recipe(5, 0).model_copy(update={"momentum": 0.8, "weight_decay": 0.01})
    optimizer = make_optimizer(layer, chosen)
    weight = layer.weight.detach().clone()
    velocity = torch.zeros_like(weight)
    for rate in (0.3, 0.05):
        gradient = torch.randn(2, 3, dtype=torch.float64)
        layer.weight.grad = gradient.clone()
        optimizer.param_groups[0]["lr"] = rate
        optimizer.step()
        velocity = 0.8 * velocity + gradient + 0.01 * weight
        weight = weight - rate * velocity
        torch.testing.assert_close(layer.weight.detach(), weight)
