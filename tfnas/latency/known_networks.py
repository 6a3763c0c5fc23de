"""Well-known networks brought to a latency by a width multiplier: torchvision's mobile networks, and the paper's.

The convention of MobileNetV2 (Sandler et al., CVPR 2018): all channels times a number, rounded to multiples of 8.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import NamedTuple

from torch import nn

from tfnas.jobs.errors import UserError
from tfnas.latency.params import known_names
from tfnas.space import Architecture, Block, build_network, zoo

COARSE = (0.25, 0.35, 0.5, 0.7, 1.0, 1.4, 2.0, 2.8)  # widths to measure first
FINE = 6  # widths to measure between the two of them around the limit
SHUFFLE_CHANNELS = (24, 116, 232, 464, 1024)  # of torchvision's shufflenet_v2_x1_0
SHUFFLE_REPEATS = [4, 8, 4]

BATCHNORM_MOMENTUM = 0.1  # PyTorch's default, as in all networks of a space

logger = logging.getLogger("tfnas.latency")

Build = Callable[[float, int, float], nn.Module]  # width, number of classes, dropout


class Scaled(NamedTuple):
    """A known network at a latency."""

    width: float  # multiplier
    latency_ms: float  # measured end to end


def check_known(name: str) -> None:
    """Raise UserError unless there is such a network."""
    if name not in known_names():
        raise UserError(f"no known network is called {name!r}; there are {', '.join(known_names())}")


def build_known(
    name: str, width: float, num_classes: int, *, dropout: float = 0.0, drop_connect: float = 0.0
) -> nn.Module:
    """A network with fresh weights, all channels times `width`.

    Args:
        dropout: before the classifier; ShuffleNetV2 has none.
        drop_connect: of the paper's networks and EfficientNet-B0; the others have none.

    Raises:
        UserError: unknown name.
    """
    check_known(name)
    if name not in _TORCHVISION:
        return build_network(widened(zoo.load(name), width), num_classes, dropout, drop_connect)
    network = _TORCHVISION[name](width, num_classes, dropout)
    _set_drop_connect(network, drop_connect)
    _set_momentum(network)
    return network


def _set_momentum(network: nn.Module) -> None:
    """BatchNorm's running statistics follow as fast as in all other networks that are compared.

    torchvision's MNASNet has 0.0003, its MobileNetV3 0.01. After a few thousand steps, the former's statistics are
    still those of its initialization, and it classifies at chance.
    """
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = BATCHNORM_MOMENTUM


def _set_drop_connect(network: nn.Module, rate: float) -> None:
    """Of torchvision's networks, as built with `EFFICIENTNET_DROP_CONNECT` in the last block."""
    from torchvision.ops import StochasticDepth

    for module in network.modules():
        if isinstance(module, StochasticDepth):
            module.p *= rate / EFFICIENTNET_DROP_CONNECT


def widened(architecture: Architecture, width: float) -> Architecture:
    """The network with all its channels times `width`, squeeze-and-excitation's as well; images keep their three."""
    if width == 1.0:
        return architecture
    stem, head = architecture.stem, architecture.head
    return replace(
        architecture,
        name=f"{architecture.name} x {width:g}",
        stem=replace(stem, out_channels=rounded(stem.out_channels * width)),
        blocks=tuple(_widened_block(block, width) for block in architecture.blocks),
        head=replace(head, out_channels=rounded(head.out_channels * width)),
    )


def _widened_block(block: Block, width: float) -> Block:
    return replace(
        block,
        in_channels=rounded(block.in_channels * width),
        expand_channels=rounded(block.expand_channels * width),
        se_channels=max(1, round(block.se_channels * width)) if block.se_channels else 0,
        out_channels=rounded(block.out_channels * width),
    )


def rounded(channels: float, divisor: int = 8) -> int:
    """The nearest multiple of 8, at least 8 and at most 10 % below."""
    nearest = max(divisor, int(channels + divisor / 2) // divisor * divisor)
    return nearest + divisor if nearest < 0.9 * channels else nearest


def fit_width(name: str, limit_ms: float, measure: Callable[[Sequence[float]], Sequence[float]]) -> Scaled:
    """The widest of a network's versions that keeps to a latency.

    Measures coarse steps of the multiplier, then finer ones between the two around the limit. Only widths that were
    measured are taken, so the outcome is above the limit only where even the narrowest version is: that one is taken
    then, and the report says that it is slower. It is below where the next step was above, and where the widest version
    is faster than the limit.

    Args:
        name: for the log.
        measure: latencies in ms of the network at several widths, measured in turn.
    """
    coarse = dict(zip(COARSE, measure(COARSE), strict=True))
    within = [width for width, ms in coarse.items() if ms <= limit_ms]
    if not within:
        narrowest = Scaled(COARSE[0], coarse[COARSE[0]])
        logger.warning(
            "%s takes %.4g ms at %g of its width, more than the %.4g ms of the target, and is compared as it is",
            *(name, narrowest.latency_ms, narrowest.width, limit_ms),
        )
        return narrowest
    best = max(within)
    wider = [width for width in COARSE if width > best]
    if not wider:
        return Scaled(best, coarse[best])
    step = (wider[0] - best) / (FINE + 1)
    fine = [round(best + step * number, 4) for number in range(1, FINE + 1)]
    measured = [(best, coarse[best]), *zip(fine, measure(fine), strict=True)]
    return Scaled(*max(pair for pair in measured if pair[1] <= limit_ms))


def _mobilenet_v2(width: float, num_classes: int, dropout: float) -> nn.Module:
    from torchvision.models import MobileNetV2

    return MobileNetV2(num_classes=num_classes, width_mult=width, dropout=dropout)


def _mobilenet_v3(name: str) -> Build:
    def build(width: float, num_classes: int, dropout: float) -> nn.Module:
        from torchvision.models.mobilenetv3 import MobileNetV3, _mobilenet_v3_conf  # its table, at a width

        blocks, last_channel = _mobilenet_v3_conf(name, width_mult=width)
        return MobileNetV3(blocks, last_channel, num_classes=num_classes, dropout=dropout)

    return build


def _mnasnet(width: float, num_classes: int, dropout: float) -> nn.Module:
    from torchvision.models import MNASNet

    return MNASNet(width, num_classes=num_classes, dropout=dropout)


def _efficientnet_b0(width: float, num_classes: int, dropout: float) -> nn.Module:
    from torchvision.models.efficientnet import EfficientNet, _efficientnet_conf

    blocks, last_channel = _efficientnet_conf("efficientnet_b0", width_mult=width, depth_mult=1.0)
    return EfficientNet(blocks, dropout, EFFICIENTNET_DROP_CONNECT, num_classes=num_classes, last_channel=last_channel)


def _shufflenet_v2(width: float, num_classes: int, dropout: float) -> nn.Module:
    from torchvision.models import ShuffleNetV2

    return ShuffleNetV2(SHUFFLE_REPEATS, [rounded(c * width) for c in SHUFFLE_CHANNELS], num_classes=num_classes)


EFFICIENTNET_DROP_CONNECT = 0.2  # as torchvision builds it
_TORCHVISION: dict[str, Build] = {
    "mobilenet_v2": _mobilenet_v2,
    "mobilenet_v3_small": _mobilenet_v3("mobilenet_v3_small"),
    "mobilenet_v3_large": _mobilenet_v3("mobilenet_v3_large"),
    "mnasnet": _mnasnet,
    "efficientnet_b0": _efficientnet_b0,
    "shufflenet_v2": _shufflenet_v2,
}
