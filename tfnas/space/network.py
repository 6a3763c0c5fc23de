"""From an architecture to a trainable network."""

from __future__ import annotations

from collections import OrderedDict

from torch import Tensor, nn

from tfnas.runtime.errors import UserError
from tfnas.space.architecture import Architecture
from tfnas.space.blocks import MBInvRes, conv_unit


class Network(nn.Module):
    """Stem, MBInvRes blocks, 1x1 convolution, average pooling, dropout, classifier (Table 1)."""

    def __init__(self, architecture: Architecture, num_classes: int, dropout: float, drop_connect: float) -> None:
        super().__init__()
        self.architecture = architecture
        stem, head, blocks = architecture.stem, architecture.head, architecture.blocks
        self.stem = conv_unit(stem.in_channels, stem.out_channels, stem.kernel, stride=stem.stride, act=stem.act)
        # as the authors' code: drop-connect rises linearly with depth and reaches its full rate in the last block
        rates = [drop_connect * (i + 1) / len(blocks) for i in range(len(blocks))]
        self.blocks = nn.Sequential(*(MBInvRes(block, rate) for block, rate in zip(blocks, rates, strict=True)))
        self.head = conv_unit(blocks[-1].out_channels, head.out_channels, 1, act=head.act)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.classifier = nn.Sequential(
            OrderedDict(dropout=nn.Dropout(dropout), linear=nn.Linear(head.out_channels, num_classes))
        )
        _initialise(self)

    def forward(self, x: Tensor) -> Tensor:
        """(N, 3, H, W) images to (N, num_classes) logits."""
        x = self.head(self.blocks(self.stem(x)))
        return self.classifier(self.pool(x).flatten(1))


def _initialise(network: nn.Module) -> None:
    """PyTorch's own initialisation, with biases at zero (as the authors' code)."""
    for module in network.modules():
        if isinstance(module, (nn.Conv2d, nn.Linear)) and module.bias is not None:
            nn.init.zeros_(module.bias)


def build_network(
    architecture: Architecture, num_classes: int = 1000, dropout: float = 0.0, drop_connect: float = 0.0
) -> nn.Module:
    """The network of an architecture with fresh weights.

    Args:
        dropout: before the classifier (Appendix B: 0.2, 0.2, 0.2, 0.1 for A to D).
        drop_connect: rate in the last block, rising linearly from the first (authors' code: 0.2).

    Raises:
        UserError: fewer classes than one.
    """
    if num_classes < 1:
        raise UserError(f"network: num_classes is {num_classes}; expected 1 or more")
    return Network(architecture, num_classes, dropout, drop_connect)
