"""What runtimes have in common that read a file of their own format: conversion, kept files, and one way to run them.

Each runtime is a class with `write` (module to file) and `load` (file to something that runs). The latency backend and
the format of `tfnas export` are the same code, so a table is about the files that are deployed.
"""

from __future__ import annotations

import copy
import inspect
import logging
import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import ClassVar, Protocol

import numpy as np
import torch
from torch import Tensor, nn

from tfnas.jobs.artifacts import atomic_path
from tfnas.jobs.extras import require
from tfnas.latency.backends.kept import kept_file
from tfnas.latency.backends.onnx_runtime import export_static_onnx
from tfnas.latency.backends.registry import BackendOptions, refuse_other_than_cpu


class Loaded(Protocol):
    """A file of a runtime, loaded: each call runs it once."""

    def set_input(self, images: np.ndarray) -> None:
        """Keep what the calls run on: (N, C, H, W) float32, of the shape that was converted."""
        ...

    def __call__(self) -> Loaded:
        """Run once, and return itself: `output` reads the result, which is not timed."""
        ...

    def output(self) -> np.ndarray:
        """A copy of the last call's result, laid out as PyTorch does."""
        ...


class ConvertingBackend(ABC):
    """A CPU runtime that runs files of its own format.

    Raises:
        UserError: an option that it does not take; its packages are not installed.
    """

    name: ClassVar[str]
    package: ClassVar[str]  # as pip names it: its version is the backend's
    converter: ClassVar[str | None] = None  # another package that writes its files
    suffix: ClassVar[str]  # of its files, without the first dot
    weights_apart: ClassVar[bool] = False  # in a second file, whose suffix is .bin
    precisions: ClassVar[tuple[str, ...]] = ("float32",)
    here = True  # runs in the calling thread, so interruptions can be detected

    def __init__(self, options: BackendOptions | None = None) -> None:
        self.options = options or BackendOptions()
        refuse_other_than_cpu(self.options, self.name, precisions=self.precisions)
        self.check_installed(by=f"profile_latency.backend: {self.name}")

    @classmethod
    def check_installed(cls, *, by: str) -> None:
        """Check that the packages are there.

        Raises:
            UserError: one is missing; the text says how to install it.
        """
        require(cls.name, by=by)

    @property
    def version(self) -> str:
        names = filter(None, (self.package, self.converter))
        return ", ".join(f"{name} {version(name)}" for name in names)

    @property
    def keeps(self) -> bool:
        return True

    def keep(self, module: nn.Module, example: Tensor) -> Path:
        """The converted file, from the cache if this very module was converted before."""
        of, model = f"{self.name} {self.version}", export_static_onnx(module, example)
        make = partial(self.convert, module, example)
        return kept_file(model, of=of, suffix=self.suffix, make=make, code=self.code())

    def code(self) -> list[str]:
        """Source files that convert."""
        return [__file__, inspect.getfile(type(self))]

    def prepare(self, module: nn.Module, example: Tensor) -> Callable[[], object]:
        loaded = self.load(self.keep(module, example), threads=self.options.threads)
        loaded.set_input(example.numpy())
        return loaded

    def convert(self, module: nn.Module, example: Tensor, path: Path) -> None:
        """`write`, in the precision of the options."""
        self.write(module, example, path)

    @classmethod
    @abstractmethod
    def write(cls, module: nn.Module, example: Tensor, path: Path) -> None:
        """Convert the module, for inputs of the example's shape, into a file; atomically."""

    @classmethod
    @abstractmethod
    def load(cls, path: Path, *, threads: int) -> Loaded:
        """Open a file that `write` wrote."""

    @classmethod
    def files(cls, path: Path) -> list[Path]:
        """All files of a model whose main file is `path`."""
        return [path, path.with_suffix(".bin")] if cls.weights_apart else [path]


def move_pair(model: Path, weights: Path, path: Path) -> None:
    """Put a model's two files at `path` and next to it; the model, which is looked for, comes last."""
    with atomic_path(path) as first, atomic_path(path.with_suffix(".bin")) as second:
        first.write_bytes(model.read_bytes())
        second.write_bytes(weights.read_bytes())


@contextmanager
def for_export(module: nn.Module, example: Tensor) -> Iterator[tuple[nn.Module, Tensor]]:
    """Copies that torch.export takes, although the originals were made under `inference_mode`, as in a profile."""
    with torch.inference_mode(False), torch.no_grad():
        yield copy.deepcopy(module).requires_grad_(False), example.clone()


@contextmanager
def quietly() -> Iterator[None]:
    """Suppress what a conversion says about itself; errors are still raised."""
    before = logging.root.manager.disable
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        logging.disable(logging.WARNING)
        try:
            yield
        finally:
            logging.disable(before)
