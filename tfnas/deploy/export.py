"""A network as a file that runs without this package: ONNX, a program of torch.export, or the file of a runtime.

The runtimes' files take one image (N = 1), for which they are optimized; ONNX and torch.export take any N.

TorchScript is not among them: torch 2.14 calls torch.jit deprecated and names torch.export in its place.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from tfnas.jobs.artifacts import atomic_path
from tfnas.jobs.errors import UserError
from tfnas.latency.backends.converted import ConvertingBackend
from tfnas.latency.backends.executorch import ExecuTorch
from tfnas.latency.backends.litert import LiteRt
from tfnas.latency.backends.ncnn import Ncnn
from tfnas.latency.backends.onnx_runtime import open_session
from tfnas.latency.backends.openvino import OpenVino

CHECKED_BATCHES = (1, 7)  # sizes that an export must run with
INPUT, OUTPUT = "images", "logits"
Runner = Callable[[Tensor], Tensor]


def export_onnx(network: nn.Module, resolution: int, path: Path) -> None:
    """Write one ONNX file, weights included, that takes (N, 3, R, R) float32 `images` of any N and gives `logits`."""
    with atomic_path(path) as temporary, _quietly():
        torch.onnx.export(
            network.eval(),
            (_example(resolution),),
            temporary,
            input_names=[INPUT],
            output_names=[OUTPUT],
            dynamic_shapes=({0: "batch"},),
            external_data=False,
            dynamo=True,
            verbose=False,
        )


def export_program(network: nn.Module, resolution: int, path: Path) -> None:
    """Write a pt2 file for `torch.export.load`, which takes (N, 3, R, R) images of any N."""
    shapes = ({0: torch.export.Dim("batch", min=1)},)
    program = torch.export.export(network.eval(), (_example(resolution),), dynamic_shapes=shapes)
    with atomic_path(path) as temporary:
        named = temporary.with_suffix(".pt2")  # torch.export.save warns of another suffix
        try:
            torch.export.save(program, named)
            named.replace(temporary)
        finally:
            named.unlink(missing_ok=True)


def run_onnx(path: Path, *, threads: int) -> Runner:
    """The network in an ONNX file, on the CPU by ONNX Runtime."""
    session = open_session(str(path), threads=threads)
    return lambda images: torch.from_numpy(session.run([OUTPUT], {INPUT: images.numpy()})[0])


def run_program(path: Path, *, threads: int) -> Runner:
    """The network in a pt2 file, by torch; its threads are torch's."""
    return torch.export.load(path).module()


def export_for(runtime: type[ConvertingBackend], network: nn.Module, resolution: int, path: Path) -> None:
    """Write the runtime's file of the network, for one (1, 3, R, R) image; some need a second file (`files_of`)."""
    with torch.inference_mode():
        runtime.write(network.eval(), torch.zeros(1, 3, resolution, resolution), path)


def run_with(runtime: type[ConvertingBackend], path: Path, *, threads: int) -> Runner:
    """The network in a runtime's file; the images of a batch run one after another."""
    loaded = runtime.load(path, threads=threads)

    def run(images: Tensor) -> Tensor:
        logits = []
        for image in images.split(1):
            loaded.set_input(image.numpy())
            logits.append(torch.from_numpy(loaded().output()))
        return torch.cat(logits)

    return run


RUNTIMES: dict[str, type[ConvertingBackend]] = {
    runtime.suffix.rpartition(".")[2]: runtime for runtime in (OpenVino, ExecuTorch, LiteRt, Ncnn)
}
EXPORTS: dict[str, tuple[Callable[[nn.Module, int, Path], None], Callable[..., Runner]]] = {  # by the file's suffix
    "onnx": (export_onnx, run_onnx),
    "pt2": (export_program, run_program),
    **{suffix: (partial(export_for, runtime), partial(run_with, runtime)) for suffix, runtime in RUNTIMES.items()},
}


def files_of(path: Path) -> list[Path]:
    """All files of an export whose main file is `path`: the weights may be in a second one."""
    runtime = RUNTIMES.get(path.suffix.removeprefix("."))
    return [path] if runtime is None else runtime.files(path)


def max_difference(network: nn.Module, runner: Runner, resolution: int) -> float:
    """The largest difference between an export's logits and eager's, over random images in batches of several sizes."""
    generator = torch.Generator().manual_seed(0)
    worst = 0.0
    for size in CHECKED_BATCHES:
        images = torch.randn(size, 3, resolution, resolution, generator=generator)
        with torch.inference_mode():
            expected, found = network.eval()(images), runner(images)
        assert found.shape == expected.shape, (found.shape, expected.shape)
        worst = max(worst, float(np.abs(found.numpy() - expected.numpy()).max()))
    return worst


def export_checked(network: nn.Module, resolution: int, path: Path, *, threads: int, tolerance: float) -> Checked:
    """Export by the file's suffix, run the file, and compare; returns its runner with the `difference`.

    Raises:
        UserError: its logits are further from eager's than `tolerance`; its files are removed.
    """
    write, load = EXPORTS[path.suffix.removeprefix(".")]
    write(network, resolution, path)
    runner = load(path, threads=threads)
    difference = max_difference(network, runner, resolution)
    if not difference <= tolerance:
        for file in files_of(path):
            file.unlink()
        raise UserError(
            f"{path}: logits differ from eager's by {difference:.2g}, more than {tolerance:g}; the file was removed;"
            " raise --tolerance if that is good enough"
        )
    return Checked(runner, difference)


class Checked:
    """An export whose logits were compared with eager's."""

    def __init__(self, runner: Runner, difference: float) -> None:
        self._runner, self.difference = runner, difference

    def __call__(self, images: Tensor) -> Tensor:
        return self._runner(images)


def _example(resolution: int) -> Tensor:
    return torch.zeros(2, 3, resolution, resolution)  # torch.export makes a batch of 1 a constant


@contextmanager
def _quietly() -> Iterator[None]:
    """Suppress the exporter's own reports; errors are still raised."""
    loggers = [logging.getLogger(name) for name in ("onnxscript", "torch.onnx", "onnx_ir")]
    levels = [logger.level for logger in loggers]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for logger in loggers:
            logger.setLevel(logging.ERROR)
        try:
            yield
        finally:
            for logger, level in zip(loggers, levels, strict=True):
                logger.setLevel(level)
