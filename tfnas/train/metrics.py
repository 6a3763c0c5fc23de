"""Accuracies and mean loss over a pass through the data."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

MIN_CLASSES_FOR_TOP5 = 5


@dataclass(frozen=True)
class Metrics:
    """Means over images."""

    loss: float
    top1_percent: float
    top5_percent: float | None  # None with fewer than five classes


class MetricSums:
    """Sums over batches, kept on the device so that no step waits for it."""

    def __init__(self, device: torch.device) -> None:
        self.images = 0
        self.num_classes = 0
        self._loss = torch.zeros((), dtype=torch.float64, device=device)
        self._correct = torch.zeros(2, dtype=torch.int64, device=device)  # within the first 1, within the first 5

    def add(self, logits: Tensor, labels: Tensor, loss: Tensor) -> None:
        """Add a batch: (N, K) logits, (N,) labels, their mean loss."""
        images, self.num_classes = logits.shape
        self.images += images
        self._loss += loss.detach().double() * images
        ranked = logits.detach().float().topk(min(5, self.num_classes), dim=1).indices  # (N, 5), best first
        hits = ranked == labels[:, None]
        self._correct += torch.stack((hits[:, 0].sum(), hits.sum()))

    def result(self) -> Metrics:
        assert self.images > 0, "no batch was added"
        top1, top5 = (100.0 * correct / self.images for correct in self._correct.tolist())
        has_top5 = self.num_classes >= MIN_CLASSES_FOR_TOP5
        return Metrics(self._loss.item() / self.images, top1, top5 if has_top5 else None)
