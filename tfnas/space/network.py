"""From an architecture to a trainable network: convolution units, MBInvRes blocks (Appendix A), the whole.

N batch, C channels, H W size.
"""

from __future__ import annotations

from collections import OrderedDict

import torch
from torch import Tensor, nn

from tfnas.jobs.errors import UserError
from tfnas.space.architecture import Architecture, Block

_ACTIVATIONS: dict[str, type[nn.Module]] = {"relu": nn.ReLU, "relu6": nn.ReLU6, "swish": nn.SiLU}


def activation(name: str) -> nn.Module:
    """ReLU, ReLU6 or Swish (SiLU), in place."""
    return _ACTIVATIONS[name](inplace=True)


def conv_unit(
    in_channels: int,
    out_channels: int,
    kernel: int,
    *,
    stride: int = 1,
    groups: int = 1,
    act: str | None = None,
) -> nn.Sequential:
    """Convolution without bias, BatchNorm, activation (none when `act` is None)."""
    convolution = nn.Conv2d(in_channels, out_channels, kernel, stride, padding=kernel // 2, groups=groups, bias=False)
    modules: list[tuple[str, nn.Module]] = [("conv", convolution), ("norm", nn.BatchNorm2d(out_channels))]
    if act is not None:
        modules.append(("act", activation(act)))
    return nn.Sequential(OrderedDict(modules))


class SqueezeExcite(nn.Module):
    """Channel attention: pooling, two 1x1 convolutions with bias, sigmoid (Fig. 6)."""

    def __init__(self, channels: int, se_channels: int, act: str) -> None:
        super().__init__()
        self.reduce = nn.Conv2d(channels, se_channels, 1)
        self.act = activation(act)
        self.expand = nn.Conv2d(se_channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        scale = x.mean((2, 3), keepdim=True)  # (N, C, 1, 1)
        return x * torch.sigmoid(self.expand(self.act(self.reduce(scale))))


class DropConnect(nn.Module):
    """Drop a sample's residual branch with probability `drop_rate` in training, else rescale it."""

    def __init__(self, drop_rate: float) -> None:
        super().__init__()
        self.drop_rate = drop_rate

    def forward(self, x: Tensor) -> Tensor:
        if not self.training or self.drop_rate == 0.0:
            return x
        keep_rate = 1.0 - self.drop_rate
        keep = x.new_empty((x.shape[0], 1, 1, 1)).bernoulli_(keep_rate)
        return x * (keep / keep_rate)


class MBInvRes(nn.Module):
    """Expansion, depthwise, optional squeeze-and-excitation, linear projection, optional residual.

    The expansion is left out when `expand_channels <= in_channels`; the width is `in_channels` then.
    """

    def __init__(self, block: Block, drop_connect: float = 0.0) -> None:
        super().__init__()
        self.block = block
        width = max(block.expand_channels, block.in_channels)
        expands = block.expand_channels > block.in_channels
        self.expand = conv_unit(block.in_channels, width, 1, act=block.act) if expands else nn.Identity()
        self.depthwise = conv_unit(width, width, block.kernel, stride=block.stride, groups=width, act=block.act)
        has_se = block.se_channels > 0
        self.squeeze_excite = SqueezeExcite(width, block.se_channels, block.act) if has_se else nn.Identity()
        self.project = conv_unit(width, block.out_channels, 1)
        self.has_residual = block.has_residual  # a plain value, for TorchScript
        self.drop_connect = DropConnect(drop_connect) if self.has_residual and drop_connect else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        out = self.project(self.squeeze_excite(self.depthwise(self.expand(x))))
        return x + self.drop_connect(out) if self.has_residual else out


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
        _initialize(self)

    def forward(self, x: Tensor) -> Tensor:
        """(N, 3, H, W) images to (N, num_classes) logits."""
        x = self.head(self.blocks(self.stem(x)))
        return self.classifier(self.pool(x).flatten(1))


def _initialize(network: nn.Module) -> None:
    """PyTorch's own initialization, with biases at zero (as the authors' code)."""
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
