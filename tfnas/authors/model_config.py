"""Reading the authors' `model.config`: the JSON of a derived network that their training script takes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any, NoReturn

from tfnas.jobs.artifacts import read_json
from tfnas.jobs.errors import UserError
from tfnas.space import Architecture, Block, Head, Stem, load_space
from tfnas.space.architecture import first_violation
from tfnas.space.membership import violations
from tfnas.space.space import shipped_spaces

STAGES = tuple(f"stage{number}" for number in range(1, 7))  # stages 3 to 8 of Table 1
_PLAIN = {"bias": False, "use_bn": True, "affine": True, "groups": 1}  # the only kind of layers that tfnas has
_ORDER = {"ops_order": "weight_bn_act"}
_CONVOLUTION = ("kernel_size", "stride", "in_channels", "out_channels", "act_func")
_BLOCK = ("in_channels", "mid_channels", "se_channels", "out_channels", "kernel_size", "stride", "act_func")


def read_config(path: str | Path, *, name: str | None = None, space: str | None = None) -> Architecture:
    """The network in one of the authors' `model.config` files.

    Args:
        name: of the architecture; default the file's name.
        space: the search space it belongs to; default the first shipped space that it lies in, else `custom`.

    Raises:
        UserError: missing, not JSON, a layer or key missing, a layer that tfnas does not have (grouped
            convolutions, h-swish, ...), or channels that do not follow from each other.
    """
    path = Path(path)
    config = read_json(path)
    blocks = [_block(path, "second_stem", config.get("second_stem"), stage=2)]
    for number, stage in enumerate(STAGES, start=3):
        layers = config.get(stage)
        if not isinstance(layers, list) or not layers:
            _fail(path, f"{stage}: expected a list of at least one layer")
        blocks += [_block(path, f"{stage}.{i}", layer, stage=number) for i, layer in enumerate(layers)]
    head = _head(path, config.get("feature_mix_layer"), blocks[-1].out_channels)
    classifier = {"in_features": head.out_channels, "bias": True, "use_bn": False}
    _check_layer(path, "classifier", config.get("classifier"), "LinearLayer", classifier)
    architecture = Architecture(
        name=name or path.name,
        space=space or "custom",
        stem=_stem(path, config.get("first_stem")),
        blocks=tuple(blocks),
        head=head,
    )
    fault = first_violation(architecture)
    if fault is not None:
        _fail(path, fault)
    return architecture if space else replace(architecture, space=_space_of(architecture))


def _space_of(architecture: Architecture) -> str:
    """The first shipped space that the network lies in, else `custom`."""
    fitting = (name for name in shipped_spaces() if not any(violations(architecture, load_space(name))))
    return next(fitting, "custom")


def _stem(path: Path, layer: object) -> Stem:
    checked = _check_layer(path, "first_stem", layer, "ConvLayer", {**_PLAIN, **_ORDER})
    kernel, stride, in_channels, out_channels, act = _values(path, "first_stem", checked, _CONVOLUTION)
    return Stem(kernel, in_channels, out_channels, stride, act)


def _block(path: Path, where: str, layer: object, *, stage: int) -> Block:
    checked = _check_layer(path, where, layer, "MBInvertedResBlock", _PLAIN)
    in_channels, width, se_channels, out_channels, kernel, stride, act = _values(path, where, checked, _BLOCK)
    return Block(kernel, in_channels, width, se_channels, out_channels, act, stride, stage)


def _head(path: Path, layer: object, in_channels: int) -> Head:
    expected = {**_PLAIN, **_ORDER, "kernel_size": 1, "stride": 1, "in_channels": in_channels}
    checked = _check_layer(path, "feature_mix_layer", layer, "ConvLayer", expected)
    out_channels, act = _values(path, "feature_mix_layer", checked, ("out_channels", "act_func"))
    return Head(out_channels, act)


def _check_layer(path: Path, where: str, layer: object, kind: str, expected: dict[str, Any]) -> dict[str, Any]:
    """The layer, which must be of that kind and have the expected value wherever it has the key."""
    if not isinstance(layer, dict):
        _fail(path, f"{where}: is missing; expected a {kind}")
    for key, value in {"name": kind, **expected}.items():
        if layer.get(key, value) != value:
            _fail(path, f"{where}.{key}: is {layer[key]!r}, expected {value!r}")
    return layer


def _values(path: Path, where: str, layer: dict[str, Any], keys: tuple[str, ...]) -> list[Any]:
    for key in keys:
        if key not in layer:
            _fail(path, f"{where}.{key}: is missing")
    return [layer[key] for key in keys]


def _fail(path: Path, what: str) -> NoReturn:
    raise UserError(f"{path}: {what}; pass a model.config that the authors' code wrote")
