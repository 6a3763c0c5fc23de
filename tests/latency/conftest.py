"""A tiny space, and a device whose latencies are a known function, with a clock of its own."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
from torch import Tensor, nn

from tests.helpers.tiny_spaces import K3_E3, K3_E3_SE, K3_E6, K5_E6_SE, space_text
from tfnas.latency.measuring import Measuring
from tfnas.latency.params import ProfileLatencyParams
from tfnas.space import Block, Space, load_space
from tfnas.space.network import MBInvRes

TINY = space_text(K3_E3, K3_E6, K3_E3_SE, K5_E6_SE)


@pytest.fixture(scope="session")
def space_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("space") / "tiny.yaml"
    path.write_text(TINY)
    return path


@pytest.fixture(scope="session")
def space(space_file: Path) -> Space:
    return load_space(space_file)


def block_cost_ms(block: Block, size: int) -> float:
    """A latency that bends with the width, and differs for everything that an operation's key holds."""
    width = block.expand_channels
    per_channel = block.in_channels + block.out_channels / block.stride + block.kernel**2 + 3 * block.se_channels
    return 0.1 + 1e-4 * size * per_channel * width**1.3 + (0.05 if block.act == "swish" else 0.0)


def module_cost_ms(module: nn.Module, example: Tensor) -> float:
    """A block by its own function; anything else by its number of weights, plus its blocks by theirs."""
    if isinstance(module, MBInvRes):
        return block_cost_ms(module.block, example.shape[2])
    return 1e-3 * sum(parameter.numel() for parameter in module.parameters())


class FakeDevice:
    """Backend and stopwatch in one: running a module advances the clock and computes nothing.

    `speed` says, of a run's cost and the time so far (both ms), what the run takes; default the cost.
    """

    name, version = "fake", "1"

    def __init__(self, speed: Callable[[float, float], float] | None = None) -> None:
        self.now_ms = 0.0
        self.speed = speed or (lambda cost_ms, now_ms: cost_ms)
        self.costs_ms: list[float] = []  # of each module prepared, in order

    def prepare(self, module: nn.Module, example: Tensor) -> Callable[[], object]:
        assert not module.training
        cost_ms = module_cost_ms(module, example)
        self.costs_ms.append(cost_ms)

        def run() -> None:
            self.now_ms += self.speed(cost_ms, self.now_ms)

        return run

    def stopwatch(self, device: object, run: Callable[[], object], repeats: int) -> list[float]:
        times = [self.now_ms]
        for _ in range(repeats):
            run()
            times.append(self.now_ms)
        return [end - start for start, end in itertools.pairwise(times)]

    def sequence(
        self, device: object, runs: Sequence[Callable[[], object]], repeats: int, *, here: bool = True
    ) -> np.ndarray:
        return np.array([[self.stopwatch(device, run, 1)[0] for run in runs] for _ in range(repeats)])


@pytest.fixture(scope="session")
def fake_device() -> type[FakeDevice]:
    return FakeDevice


@pytest.fixture(scope="session")
def cost_ms() -> Callable[[Block, int], float]:
    return block_cost_ms


@pytest.fixture(scope="session")
def make_profile_params() -> Callable[..., ProfileLatencyParams]:
    def make(**changes: object) -> ProfileLatencyParams:
        values: dict[str, object] = {
            "table": None,
            "device": "cpu",
            "backend": "torch-eager",
            "precision": "float32",
            "channels_last": False,
            "threads": 1,
            "batch_size": 2,
            "num_classes": 3,
            "minutes": 5.0,
            "tolerance": 0.01,
            "warmup_runs": 1,
            "repeats": 4,
            "validation_networks": 3,
            "calibrated": False,
            "on_busy": "warn",
        }
        return ProfileLatencyParams.model_validate({**values, **changes})

    return make


@pytest.fixture(scope="session")
def make_measuring(make_profile_params) -> Callable[..., Measuring]:
    def make(device: FakeDevice, *, journal: Path | None = None, resolution: int = 16, **changes: object) -> Measuring:
        """Measuring on a fake device."""
        params = make_profile_params(**changes)
        how = {"backend": device, "journal": journal, "time_calls": device.sequence}
        return Measuring(params, space="tiny", resolution=resolution, **how)

    return make
