"""Distillation: a trained network, the teacher, whose predictions a network learns as well as the labels.

Hinton, Vinyals, Dean, Distilling the Knowledge in a Neural Network (arXiv 1503.02531).

N batch, H W size, K classes.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional


def distillation_loss(logits: Tensor, teacher_logits: Tensor, temperature: float) -> Tensor:
    """T^2 KL(softmax(teacher / T) || softmax(student / T)), mean over the batch; two (N, K) to ().

    Sec. 2 of the paper, with the divergence in place of the cross-entropy, which differs by a constant: T^2 keeps the
    size of the gradient when T changes. In float32 at least.
    """
    student, teacher = ((x.float() if x.dtype.itemsize < 4 else x) / temperature for x in (logits, teacher_logits))
    divergence = functional.kl_div(
        student.log_softmax(-1), teacher.log_softmax(-1), reduction="batchmean", log_target=True
    )
    return temperature**2 * divergence


@dataclass(frozen=True)
class Distillation:
    """How much of a training's loss is the teacher's.

    Attributes:
        teacher: (N, 3, H, W) images to (N, K) logits, in evaluation mode, on the network's device.
        weight: of the distillation loss, from 0 to 1.
    """

    teacher: Callable[[Tensor], Tensor]
    temperature: float
    weight: float

    def loss(self, cross_entropy: Tensor, logits: Tensor, images: Tensor) -> Tensor:
        """(1 - weight) cross-entropy + weight `distillation_loss`, ().

        Args:
            logits: (N, K) of the network that is trained.
            images: (N, 3, H, W) that it saw, augmented and mixed: the teacher sees the same.
        """
        with torch.no_grad():
            predicted = self.teacher(images)
        return (1.0 - self.weight) * cross_entropy + self.weight * distillation_loss(
            logits, predicted, self.temperature
        )
