"""The latency lookup table: operation and width to milliseconds (Sec. 3.1, Eq. 4); and what a space can reach by it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from tfnas.jobs.artifacts import read_json, write_json
from tfnas.jobs.errors import UserError
from tfnas.space import Architecture, Block, Candidate, Layer, Space
from tfnas.space.space import first_difference

KIND = "latency_table"
FORMAT_VERSION = 1
FIXED_PARTS = "fixed_parts_of"  # in the details: the parts of the space that `base_ms` holds
_LISTS = ("widths", "latencies_ms", "spreads_ms", "counts")  # of an operation in the file


class OperationKey(NamedTuple):
    """What the latency of a block depends on besides its width."""

    resolution: int  # height and width of the input
    in_channels: int
    out_channels: int
    kernel: int
    stride: int
    se_channels: int
    act: str

    @classmethod
    def of_block(cls, resolution: int, block: Block) -> OperationKey:
        return cls(
            resolution,
            block.in_channels,
            block.out_channels,
            block.kernel,
            block.stride,
            block.se_channels,
            block.act,
        )

    @classmethod
    def of_candidate(cls, layer: Layer, candidate: Candidate) -> OperationKey:
        return cls(
            layer.resolution,
            layer.in_channels,
            layer.out_channels,
            candidate.kernel,
            layer.stride,
            candidate.se_channels(layer.in_channels),
            layer.act,
        )

    def __str__(self) -> str:
        se = f" se{self.se_channels}" if self.se_channels else ""
        return (
            f"k{self.kernel} s{self.stride} {self.in_channels}->{self.out_channels}{se} {self.act}"
            f" at {self.resolution}x{self.resolution}"
        )


@dataclass(frozen=True)
class Curve:
    """Latency of one operation against its width: measured knots, linear between them.

    Widths that are multiples of `alignment` are interpolated between such knots only, the others between the
    others: a device may be much faster at multiples of 4, say.
    """

    widths: tuple[int, ...]  # expansion channels, ascending
    latencies_ms: tuple[float, ...]
    spreads_ms: tuple[float, ...] = ()  # interquartile range of the measurements at each knot
    counts: tuple[int, ...] = ()  # runs at each knot
    alignment: int = 1

    def latency_ms(self, width: int | np.ndarray) -> Any:
        """Latency at one width or an array of widths, which must lie within the knots."""
        if self.alignment == 1:
            return np.interp(width, self.widths, self.latencies_ms)
        aligned, others = self._classes
        return np.where(np.asarray(width) % self.alignment == 0, np.interp(width, *aligned), np.interp(width, *others))

    @cached_property
    def _classes(self) -> tuple[tuple[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]:
        """Knots at multiples of the alignment, and those between; where one class has none, the other's."""
        widths, latencies_ms = np.asarray(self.widths), np.asarray(self.latencies_ms)
        aligned = widths % self.alignment == 0
        if aligned.all() or not aligned.any():
            return (widths, latencies_ms), (widths, latencies_ms)
        return (widths[aligned], latencies_ms[aligned]), (widths[~aligned], latencies_ms[~aligned])

    @property
    def penalties(self) -> np.ndarray:
        """How many times as long as in line with the favored widths the others take, at each of their knots."""
        (aligned, favored_ms), (others, others_ms) = self._classes
        if len(aligned) + len(others) > len(self.widths):
            return np.ones(0)  # one class
        return np.asarray(others_ms / np.interp(others, aligned, favored_ms))

    def reclassed(self, alignment: int) -> Curve:
        """The curve of the same shape whose two classes of widths are by another alignment.

        The knots of each class move to the nearest width that is now of that class; without classes (1), the curve of
        the widths that were not favored is left. Nothing is known of spreads and counts any more.
        """
        if alignment == self.alignment:
            return replace(self, spreads_ms=(), counts=())
        aligned, others = self._classes
        low, high = self.widths[0], self.widths[-1]
        found: dict[int, float] = {}
        for width in self.widths:
            multiple = min(max(round(width / alignment), -(-low // alignment)), high // alignment) * alignment
            if alignment > 1 and low <= multiple:
                found[multiple] = float(np.interp(multiple, *aligned))
            beside = width if alignment == 1 or width % alignment else width + (1 if width < high else -1)
            found[beside] = float(np.interp(beside, *others))
        widths = tuple(sorted(found))
        return Curve(widths, tuple(found[width] for width in widths), alignment=alignment)

    def scaled(self, factor: float | np.ndarray) -> Curve:
        """Every latency and spread times a factor, one for all knots or one for each."""
        return replace(
            self,
            latencies_ms=tuple(np.multiply(self.latencies_ms, factor).tolist()),
            spreads_ms=tuple(np.multiply(self.spreads_ms, factor).tolist()) if self.spreads_ms else (),
        )

    @cached_property
    def dense_ms(self) -> np.ndarray:
        """Latency at every width from the first knot to the last."""
        return np.asarray(self.latency_ms(np.arange(self.widths[0], self.widths[-1] + 1)))


@dataclass(frozen=True)
class LatencyTable:
    """Latencies of every operation of a space on one device, and of the fixed rest of the network."""

    space: str
    resolution: int  # of the network input
    batch_size: int
    device: str
    base_ms: float  # stem, fixed blocks, 1x1 convolution, pooling, classifier
    curves: Mapping[OperationKey, Curve]
    fixed_stages: tuple[int, ...] = (2,)  # stages of Table 1 that `base_ms` holds
    details: dict[str, Any] = field(default_factory=dict, compare=False)  # how it was measured

    @classmethod
    def load(cls, path: str | Path) -> LatencyTable:
        """Read the JSON written by `save`.

        Raises:
            UserError: missing, truncated, of another kind, or with a key missing.
        """
        payload = read_json(path, kind=KIND, version=FORMAT_VERSION)
        try:
            return cls(
                space=payload["space"],
                resolution=payload["resolution"],
                batch_size=payload["batch_size"],
                device=payload["device"],
                base_ms=payload["base_ms"],
                curves=dict(_read_operation(row, payload.get("alignment", 1)) for row in payload["operations"]),
                fixed_stages=tuple(payload["fixed_stages"]),
                details=payload["details"],
            )
        except (KeyError, TypeError, AttributeError) as error:
            raise UserError(f"{path}: not a complete latency table ({error}); run profile_latency again") from None

    def save(self, path: str | Path) -> None:
        """Write JSON, atomically."""
        write_json(
            path,
            {
                "kind": KIND,
                "format_version": FORMAT_VERSION,
                "space": self.space,
                "resolution": self.resolution,
                "batch_size": self.batch_size,
                "device": self.device,
                "base_ms": self.base_ms,
                "fixed_stages": list(self.fixed_stages),
                "alignment": self.alignment,
                "details": self.details,
                "operations": [_write_operation(key, curve) for key, curve in self.curves.items()],
            },
        )

    def curve(self, key: OperationKey) -> Curve:
        """The curve of an operation.

        Raises:
            UserError: the table has no such operation; names it, the resolution and the device.
        """
        try:
            return self.curves[key]
        except KeyError:
            raise UserError(
                f"latency table of {self.device} (space {self.space}, input {self.resolution}x{self.resolution}) has no"
                f" operation {key}; profile the space it belongs to at this resolution"
            ) from None

    def operation_ms(self, key: OperationKey, width: int) -> float:
        """Latency of an operation at a width, interpolated between measured knots.

        Raises:
            UserError: unknown operation, or a width outside the measured ones.
        """
        curve = self.curve(key)
        if not curve.widths[0] <= width <= curve.widths[-1]:
            raise UserError(
                f"latency table of {self.device}: width {width} of operation {key} lies outside the measured"
                f" {curve.widths[0]} to {curve.widths[-1]}"
            )
        return float(curve.latency_ms(width))

    def blocks_ms(self, architecture: Architecture) -> Iterator[tuple[Block, float]]:
        """Every block that `base_ms` does not hold, with its latency."""
        for resolution, block in architecture.block_resolutions(self.resolution):
            if block.stage not in self.fixed_stages:
                yield block, self.operation_ms(OperationKey.of_block(resolution, block), block.expand_channels)

    @property
    def alignment(self) -> int:
        """Widths at multiples of it are a class of their own; 1 where there is one class."""
        return max((curve.alignment for curve in self.curves.values()), default=1)

    @property
    def width_penalty(self) -> float:
        """How many times as long as multiples of `alignment` other widths take: the median over all knots."""
        penalties = np.concatenate([np.ones(0), *(curve.penalties for curve in self.curves.values())])
        return float(np.median(penalties)) if len(penalties) else 1.0

    def latency_ms(self, architecture: Architecture) -> float:
        """Latency of a network: `base_ms` plus the sum over its blocks (Eq. 4)."""
        return self.base_ms + sum(ms for _, ms in self.blocks_ms(architecture))

    def check_fits(self, space: Space, resolution: int, *, source: str) -> None:
        """Raise UserError unless the table was made for this space and input resolution.

        The fixed parts can be compared only where the table says of which it is; the authors' tables do not.
        """
        if self.resolution != resolution:
            raise UserError(
                f"{source}: was measured at resolution {self.resolution}, params.yaml has resolution: {resolution};"
                " run profile_latency again"
            )
        if FIXED_PARTS in self.details:
            difference = first_difference(self.details[FIXED_PARTS], space.fixed_content())
            if difference is not None:
                raise UserError(
                    f"{source}: was measured before space {space.name} was edited: {difference}; run profile_latency"
                    " again"
                )
        for layer in space.layers(resolution):
            if layer.stage not in self.fixed_stages:
                for candidate in space.candidates:
                    self.curve(OperationKey.of_candidate(layer, candidate))


def _read_operation(row: dict[str, Any], alignment: int) -> tuple[OperationKey, Curve]:
    key = OperationKey(**{name: row[name] for name in OperationKey._fields})
    widths, latencies_ms, spreads_ms, counts = (tuple(row[name]) for name in _LISTS)
    return key, Curve(widths, latencies_ms, spreads_ms, counts, alignment)


def _write_operation(key: OperationKey, curve: Curve) -> dict[str, Any]:
    return {**key._asdict(), **{name: list(getattr(curve, name)) for name in _LISTS}}


def candidate_range_ms(space: Space, table: LatencyTable, layer: Layer) -> list[tuple[float, float]]:
    """(smallest, largest) latency of each candidate of a layer over its widths."""
    ranges = []
    for candidate in space.candidates:
        key = OperationKey.of_candidate(layer, candidate)
        curve = table.curve(key)
        widths = candidate.widths(layer.in_channels)
        table.operation_ms(key, widths[0]), table.operation_ms(key, widths[-1])  # raises where it has no such width
        latencies = curve.dense_ms[np.asarray(widths) - curve.widths[0]]
        ranges.append((float(latencies.min()), float(latencies.max())))
    return ranges


def reachable_range_ms(space: Space, table: LatencyTable) -> tuple[float, float]:
    """(smallest, largest) latency of any network of the space at the table's resolution.

    The largest is the widest, deepest network with the slowest candidate in each layer.
    """
    low = high = table.base_ms
    for layer in space.layers(table.resolution):
        if layer.stage in table.fixed_stages:
            continue
        ranges = candidate_range_ms(space, table, layer)
        low += min(smallest for smallest, _ in ranges) if layer.position == 1 else 0.0
        high += max(largest for _, largest in ranges)
    return low, high


def resolve_target_ms(
    name: str, latency_ms: float | None, relative: float | None, space: Space, table: LatencyTable
) -> float:
    """The latency in milliseconds that a target asks for.

    Args:
        latency_ms: the latency itself; or None, and
        relative: 0 for the fastest network of the space on the table's device, 1 for the slowest, in between in
            proportion. A share of the slowest alone may lie below the fastest: how far apart the two are differs by
            device.

    Raises:
        UserError: no network of the space can reach it; names the reachable range.
    """
    low, high = reachable_range_ms(space, table)
    if latency_ms is None:
        assert relative is not None
        return low + relative * (high - low)
    if not low <= latency_ms <= high:
        raise UserError(
            f"params.yaml: targets.{name}.constraint.latency_ms: {latency_ms} is a latency that no network of space"
            f" {space.name} reaches on {table.device}; choose {low:.3f} to {high:.3f}, or relative: 0 to 1 of that way"
        )
    return latency_ms
