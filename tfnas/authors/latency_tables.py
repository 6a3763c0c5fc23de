"""Reading the authors' latency tables (`latency_gpu.pkl`, `latency_cpu.pkl`) without executing them.

A table is a dict: `base` to milliseconds, and for each operation a key like
`MBInvertedResBlock_112_16_0_24_k3_s2_relu` (input size, input channels, SE channels, output channels,
kernel, stride, activation) to a dict from width in expansion channels to milliseconds.

`open_external_table` reads the table that `profile_latency.table` names: our JSON or such a pickle.
"""

from __future__ import annotations

import math
import pickle
import re
from collections import OrderedDict
from dataclasses import replace
from pathlib import Path
from typing import Any, BinaryIO, NoReturn

from tfnas.jobs.artifacts import digest_file, short_repr
from tfnas.jobs.errors import UserError
from tfnas.latency.params import ProfileLatencyParams
from tfnas.latency.table import Curve, LatencyTable, OperationKey, reachable_range_ms
from tfnas.space import Space

_KEY = re.compile(r"MBInvertedResBlock_(\d+)_(\d+)_(\d+)_(\d+)_k(\d+)_s(\d+)_(relu|relu6|swish)")
_EXAMPLE = "MBInvertedResBlock_112_16_0_24_k3_s2_relu"
SOURCE = "params.yaml: profile_latency.table"


def open_external_table(profile: ProfileLatencyParams, space: Space, resolution: int) -> LatencyTable | None:
    """The table that `profile_latency.table` names, checked; None where it is null.

    Its details name the file that it came from, with its SHA-256.

    Raises:
        UserError: missing or damaged, or made for another space, resolution or batch size.
    """
    if profile.table is None:
        return None
    path = Path(profile.table)
    if not path.is_file():
        raise UserError(f"{SOURCE}: {path}: no such file; write the path of a table, or null to measure here")
    table = _read(path, space, resolution)
    _check(table, path, space, resolution, profile.batch_size)
    return replace(table, details={**table.details, "copied_from": {"file": path.name, "sha256": digest_file(path)}})


def _read(path: Path, space: Space, resolution: int) -> LatencyTable:
    """By its first character: JSON begins with a brace, a pickle does not."""
    with path.open("rb") as file:
        is_json = file.read(64).lstrip()[:1] == b"{"
    return LatencyTable.load(path) if is_json else read_latency_table(path, space=space.name, resolution=resolution)


def _check(table: LatencyTable, path: Path, space: Space, resolution: int, batch_size: int) -> None:
    pairs = (
        ("space", table.space, space.name),
        ("resolution", table.resolution, resolution),
        ("profile_latency.batch_size", table.batch_size, batch_size),
    )
    for key, made_for, asked in pairs:
        if made_for != asked:
            raise UserError(
                f"{SOURCE}: {path} was made for {key}: {made_for}, params.yaml has {asked}; change one of them"
            )
    table.check_fits(space, resolution, source=f"{SOURCE}: {path}")
    reachable_range_ms(space, table)  # raises where a candidate's smallest or largest width is missing


def read_latency_table(
    path: str | Path,
    *,
    space: str = "tf-nas",
    resolution: int = 224,
    batch_size: int | None = None,
    device: str | None = None,
) -> LatencyTable:
    """A latency table in the authors' format.

    The pickle is not executed: only dicts, numbers and strings are admitted. Every width of the file
    becomes a knot of its operation's curve; the authors' own two tables bend at multiples of 8 channels
    only, and are slightly negative for the narrowest widths, far below the widths of Table 1.

    Args:
        space, resolution: what the table was made for; the file does not say.
        batch_size: of the measurements; the file does not say. Default, as the authors' two tables:
            1 where the file's name contains `cpu`, else 32.
        device: the name shown in errors and reports; default `authors' <file name>`.

    Raises:
        UserError: missing, truncated, not such a pickle, anything but dicts, numbers and strings inside,
            no `base`, or a malformed key, width or latency.
    """
    path = Path(path)
    payload = _unpickle(path)
    if not isinstance(payload, dict):
        _fail(path, f"holds a {type(payload).__name__}, expected a dict from operation to latencies")
    if "base" not in payload:
        _fail(path, "has no key 'base' (latency of the fixed parts in ms)")
    curves = {}
    for name, latencies in payload.items():
        if name != "base":
            key = _operation_key(path, name)
            curves[key] = _curve(path, name, latencies)
    if not curves:
        _fail(path, "holds no operation, only 'base'")
    return LatencyTable(
        space=space,
        resolution=resolution,
        batch_size=batch_size or (1 if "cpu" in path.name.lower() else 32),
        device=device or f"authors' {path.name}",
        base_ms=_milliseconds(path, "base", payload["base"]),
        curves=curves,
        details={"source": path.name, "sha256": digest_file(path)},
    )


class _DictUnpickler(pickle.Unpickler):
    """Admits dicts, numbers and strings; refuses every global but OrderedDict."""

    def __init__(self, file: BinaryIO, path: Path) -> None:
        super().__init__(file)
        self._path = path

    def find_class(self, module: str, name: str) -> type[Any]:
        if (module, name) == ("collections", "OrderedDict"):
            return OrderedDict
        _fail(self._path, f"refers to {module}.{name}; a latency table holds dicts, numbers and strings only: refused")


def _unpickle(path: Path) -> Any:
    try:
        with path.open("rb") as file:
            return _DictUnpickler(file, path).load()
    except UserError:
        raise
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}); pass the authors' latency pickle") from None
    except Exception as error:  # a broken pickle raises almost anything, as the pickle module documents
        _fail(path, f"is not a complete pickle ({type(error).__name__}: {error}); download it again")


def _operation_key(path: Path, name: object) -> OperationKey:
    match = _KEY.fullmatch(name) if isinstance(name, str) else None
    if match is None:
        _fail(path, f"key {short_repr(name)} is no operation; expected one like {_EXAMPLE}")
    size, in_channels, se_channels, out_channels, kernel, stride = (int(text) for text in match.groups()[:6])
    return OperationKey(size, in_channels, out_channels, kernel, stride, se_channels, match[7])


def _curve(path: Path, name: str, latencies: object) -> Curve:
    if not isinstance(latencies, dict) or not latencies:
        _fail(path, f"key {name!r} holds {short_repr(latencies)}, expected a dict from width to milliseconds")
    for width in latencies:
        if isinstance(width, bool) or not isinstance(width, int) or width < 1:
            _fail(path, f"key {name!r}: width {short_repr(width)} is not a positive whole number")
    widths = tuple(sorted(latencies))
    return Curve(widths, tuple(_milliseconds(path, f"{name}, width {w}", latencies[w]) for w in widths))


def _milliseconds(path: Path, where: str, value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
        _fail(path, f"{where}: latency is {short_repr(value)}, expected milliseconds")
    return float(value)


def _fail(path: Path, what: str) -> NoReturn:
    raise UserError(f"{path}: {what}")
