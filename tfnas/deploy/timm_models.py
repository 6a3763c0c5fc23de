"""The published networks in timm: `timm.create_model("tf_nas_a")`.

N batch, C channels, H W size. No `from __future__ import annotations` here: torch.fx writes the annotations of
`forward` into the code that it makes, and as strings TorchScript does not know them.
"""

import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from tfnas.jobs.errors import UserError
from tfnas.space import Architecture, zoo
from tfnas.space.network import Network

OUTPUT_STRIDES = (8, 16, 32)

default_cfgs: dict[str, dict[str, Any]] = {}  # timm looks here; filled by `register_with_timm`


class TimmNetwork(Network):
    """A network with the methods of timm's own; the weights have the names of `build_network`.

    `feature_info` has an entry for the last block of each resolution.
    """

    def __init__(
        self,
        architecture: Architecture,
        num_classes: int = 1000,
        in_chans: int = 3,
        drop_rate: float = 0.0,
        drop_path_rate: float = 0.0,
        global_pool: str = "avg",
        output_stride: int = 32,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        """The arguments are timm's: `drop_rate` is the dropout, `drop_path_rate` the drop-connect of the last block.

        Raises:
            UserError: a value that no such network has.
        """
        _check("num_classes", num_classes, num_classes >= 0, "0 or more")
        _check("in_chans", in_chans, in_chans >= 1, "1 or more")
        _check("output_stride", output_stride, output_stride in OUTPUT_STRIDES, "8, 16 or 32")
        architecture = replace(architecture, stem=replace(architecture.stem, in_channels=in_chans))
        super().__init__(architecture, num_classes or 1, drop_rate, drop_path_rate)
        self.in_chans, self.drop_rate, self.grad_checkpointing = in_chans, drop_rate, False
        self.num_features = architecture.head.out_channels
        self.feature_info = _feature_info(architecture, output_stride)
        self._dilate(output_stride)
        self._set_head(num_classes, global_pool, fresh=num_classes == 0 or global_pool != "avg")
        self.to(device=device, dtype=dtype)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) images to (N, num_classes) logits; without a classifier to what the pooling gives."""
        return self.forward_head(self.forward_features(x))

    def forward_features(self, x: Tensor) -> Tensor:
        """(N, C, H, W) images to (N, num_features, H / output_stride, W / output_stride) features."""
        x = self.stem(x)
        if self.grad_checkpointing and not torch.jit.is_scripting():
            return self.head(self._checkpointed(x))
        return self.head(self.blocks(x))

    def forward_head(self, x: Tensor, pre_logits: bool = False) -> Tensor:
        """Features to (N, num_classes) logits, or to the (N, head_hidden_size) pooled features."""
        x = self.classifier.dropout(self.pool(x))
        return x if pre_logits else self.classifier.linear(x)

    @torch.jit.ignore
    def forward_intermediates(
        self,
        x: Tensor,
        indices: int | Sequence[int] | None = None,
        norm: bool = False,
        stop_early: bool = False,
        output_fmt: str = "NCHW",
        intermediates_only: bool = False,
    ) -> list[Tensor] | tuple[Tensor, list[Tensor]]:
        """The features of `feature_info` at `indices` (the last n for a number), after those of `forward_features`.

        With `stop_early`, the first are those of the last block that was needed. There is no further norm to apply.
        """
        if output_fmt != "NCHW":
            raise UserError(f"timm: output_fmt is {output_fmt!r}; this network gives NCHW")
        taken = self._feature_indices(indices)
        wanted = {self.feature_info[index]["block"] for index in taken}
        last = max(wanted) if stop_early else len(self.blocks) - 1
        intermediates = []
        x = self.stem(x)
        for index, block in enumerate(self.blocks[: last + 1]):
            x = checkpoint(block, x, use_reentrant=False) if self.grad_checkpointing else block(x)
            if index in wanted:
                intermediates.append(x)
        if intermediates_only:
            return intermediates
        return (self.head(x) if last + 1 == len(self.blocks) else x), intermediates

    @torch.jit.ignore
    def prune_intermediate_layers(
        self, indices: int | Sequence[int] = 1, prune_norm: bool = False, prune_head: bool = True
    ) -> list[int]:
        """Drop what the features at `indices` do not need; returns the indices, counted from the first."""
        taken = self._feature_indices(indices)
        deepest = self.feature_info[max(taken)]
        last = deepest["block"]
        ends = prune_norm or prune_head or last + 1 < len(self.blocks)
        self.blocks = self.blocks[: last + 1]
        if ends:
            self.head = nn.Sequential()
            self.num_features = deepest["num_chs"]
            self.reset_classifier(0, "")
        return taken

    @torch.jit.ignore
    def get_classifier(self) -> nn.Module:
        """The linear layer, or an identity without classes."""
        return self.get_submodule("classifier.linear")

    @torch.jit.ignore
    def reset_classifier(self, num_classes: int, global_pool: str | None = None) -> None:
        """A fresh classifier, none for 0 classes, and another pooling (`""` for none) if one is named."""
        self._set_head(num_classes, global_pool)

    @torch.jit.ignore
    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """Compute each block again in the backward pass instead of keeping its activations.

        BatchNorm's running statistics then see each batch twice, as with timm's own networks.
        """
        self.grad_checkpointing = enable

    @torch.jit.ignore
    def group_matcher(self, coarse: bool = False) -> dict[str, Any]:
        """The depth of each weight, for timm's layer-wise learning rates; `coarse` by resolution."""
        blocks: list[tuple[str, tuple[int, ...] | None]] = [(r"^blocks\.(\d+)", None)]
        if coarse:
            ends = [info["block"] for info in self.feature_info]
            starts = [0, *(end + 1 for end in ends[:-1])]
            groups = ["|".join(map(str, range(a, b + 1))) for a, b in zip(starts, ends, strict=True)]
            blocks = [(rf"^blocks\.(?:{group})\.", (level,)) for level, group in enumerate(groups)]
        return {"stem": r"^stem", "blocks": [*blocks, (r"^head", (99999,))]}

    @torch.jit.ignore
    def _checkpointed(self, x: Tensor) -> Tensor:
        for block in self.blocks:
            x = checkpoint(block, x, use_reentrant=False)
        return x

    def _feature_indices(self, indices: int | Sequence[int] | None) -> list[int]:
        """All for None, the last n for a number; negative ones count from the end."""
        known = range(len(self.feature_info))
        if isinstance(indices, int):
            indices = range(-indices, 0)
        try:
            taken = [known[index] for index in (known if indices is None else indices)]
        except IndexError:
            raise UserError(f"timm: feature indices {list(indices)}: this network has {len(known)} features") from None
        if not taken:
            raise UserError(f"timm: no feature indices; this network has {len(known)} features")
        return taken

    def _set_head(self, num_classes: int, global_pool: str | None, fresh: bool = True) -> None:
        from timm.layers import SelectAdaptivePool2d

        if global_pool is not None:
            self.pool = SelectAdaptivePool2d(pool_type=global_pool, flatten=bool(global_pool))
        if num_classes and self.pool.is_identity():
            raise UserError(f"timm: {num_classes} classes need pooled features; name a global_pool, or num_classes=0")
        self.num_classes = num_classes
        self.head_hidden_size = self.num_features * self.pool.feat_mult()
        if fresh:
            linear: nn.Module = nn.Identity()
            if num_classes:
                linear = nn.Linear(self.head_hidden_size, num_classes).to(self.stem.conv.weight)
                nn.init.zeros_(linear.bias)
            self.set_submodule("classifier.linear", linear.train(self.training))

    def _dilate(self, output_stride: int) -> None:
        """Keep the resolution from `output_stride` on: later kernels are spread instead, with the same weights."""
        reduction, dilation = self.architecture.stem.stride, 1
        for block, module in zip(self.architecture.blocks, self.blocks, strict=True):
            reduction *= block.stride
            convolution = module.depthwise.conv
            if reduction > output_stride:
                convolution.stride = (1, 1)
                convolution.dilation = (dilation, dilation)
                convolution.padding = (dilation * (block.kernel // 2),) * 2
                dilation *= block.stride


def _check(option: str, value: object, sound: bool, expected: str) -> None:
    if not sound:
        raise UserError(f"timm: {option} is {value!r}; expected {expected}")


def _feature_info(architecture: Architecture, output_stride: int) -> list[dict[str, Any]]:
    blocks, reduction, info = architecture.blocks, architecture.stem.stride, []
    for index, block in enumerate(blocks):
        reduction *= block.stride
        if index + 1 == len(blocks) or blocks[index + 1].stride > 1:
            info.append(
                {
                    "num_chs": block.out_channels,
                    "reduction": min(reduction, output_stride),
                    "module": f"blocks.{index}",
                    "block": index,
                }
            )
    return info


def register_with_timm() -> list[str]:
    """Make the twelve published networks known to timm; returns their names there. Calling it twice is harmless.

    timm finds no networks of other packages by itself, and importing tfnas has no effects, so this is a call.

    Raises:
        UserError: timm is not installed.
    """
    try:
        from timm.models import is_model, register_model
    except ImportError:
        raise UserError("timm is not installed; run: pip install timm") from None
    names = []
    for name in zoo.names():
        entrypoint = _entrypoint(name)
        names.append(entrypoint.__name__)
        if not is_model(entrypoint.__name__):
            setattr(sys.modules[__name__], entrypoint.__name__, entrypoint)
            default_cfgs[entrypoint.__name__] = _config()
            register_model(entrypoint)
    return names


def _entrypoint(name: str) -> Callable[..., nn.Module]:
    def build(pretrained: bool = False, **options: Any) -> nn.Module:
        return _build(name, pretrained, options)

    build.__name__ = build.__qualname__ = name.lower().replace("-", "_")
    build.__module__ = __name__
    build.__doc__ = f"{name} (ECCV 2020), without weights."
    return build


def _build(name: str, pretrained: bool, options: dict[str, Any]) -> nn.Module:
    """From timm's options, those of `TimmNetwork` among them; weights only from where the caller says."""
    from timm.models import build_model_with_cfg, resolve_pretrained_cfg

    variant = name.lower().replace("-", "_")
    config = resolve_pretrained_cfg(variant, options.get("pretrained_cfg"), options.get("pretrained_cfg_overlay"))
    if pretrained and not (config.has_weights or config.state_dict):
        raise UserError(
            f"timm: {name} has no weights to download; leave pretrained out and pass checkpoint_path=FILE, "
            "or pass pretrained_cfg_overlay={'file': FILE}"
        )
    return build_model_with_cfg(
        partial(TimmNetwork, zoo.load(name)), variant, pretrained, feature_cfg={"flatten_sequential": True}, **options
    )


def _config() -> dict[str, Any]:
    """What timm's data loading asks for: the paper's 224 x 224 images and the usual normalization."""
    from tfnas.data.images.transforms import CROP_FRACTION, MEAN, STD

    return {
        "num_classes": 1000,
        "input_size": (3, 224, 224),
        "pool_size": (7, 7),
        "crop_pct": CROP_FRACTION,
        "interpolation": "bilinear",
        "mean": MEAN,
        "std": STD,
        "first_conv": "stem.conv",
        "classifier": "classifier.linear",
    }


__all__ = ["TimmNetwork", "register_with_timm"]
