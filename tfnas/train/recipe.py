"""The training recipe of Appendix B: SGD, linear warm-up, cosine to zero, label smoothing."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from tfnas.train.params import RecipeParams


def step_learning_rate(step: int, steps_per_epoch: int, recipe: RecipeParams) -> float:
    """Learning rate of a step, counted from 0 over the whole training.

    Linear over `warmup_epochs` up to `recipe.learning_rate`, which the last warm-up step has, then half a
    cosine that would reach 0 one step after the last. The authors' code keeps the rate constant within an epoch
    and lets the cosine run during the warm-up too.
    """
    assert step >= 0, step
    warmup_steps = recipe.warmup_epochs * steps_per_epoch
    if step < warmup_steps:
        return recipe.learning_rate * (step + 1) / warmup_steps
    cosine_steps = recipe.epochs * steps_per_epoch - warmup_steps
    progress = min((step - warmup_steps) / max(cosine_steps, 1), 1.0)
    return recipe.learning_rate * 0.5 * (1.0 + math.cos(math.pi * progress))


def make_optimizer(network: nn.Module, recipe: RecipeParams) -> torch.optim.SGD:
    """SGD with momentum on every trained parameter; its learning rate is set before each step.

    Weight decay applies to all of them (Appendix B and the authors' code), or only to the kernels of convolutions and
    the classifier's matrix where `extras.decay_norm_and_bias` is false.
    """
    trained = [parameter for parameter in network.parameters() if parameter.requires_grad]
    decayed = [p for p in trained if recipe.extras.decay_norm_and_bias or p.ndim > 1]
    others = [p for p in trained if not recipe.extras.decay_norm_and_bias and p.ndim <= 1]
    groups = [{"params": decayed, "weight_decay": recipe.weight_decay}, {"params": others, "weight_decay": 0.0}]
    return torch.optim.SGD(
        [group for group in groups if group["params"]],
        lr=recipe.learning_rate,
        momentum=recipe.momentum,
        nesterov=recipe.nesterov,
    )


def training_loss(logits: Tensor, labels: Tensor, label_smoothing: float) -> Tensor:
    """Mean cross-entropy of (N, K) logits against (N,) labels, or (N, K) mixed ones, that are smoothed to
    `(1 - label_smoothing) * onehot + label_smoothing / K`.
    """
    return functional.cross_entropy(logits, labels, label_smoothing=label_smoothing)
