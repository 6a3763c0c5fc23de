"""Every backend computes what eager PyTorch computes, so that what is timed is the right function."""

from __future__ import annotations

import shutil
from importlib.metadata import EntryPoint

import numpy as np
import pytest
import torch

from tests.helpers.networks import vary_batch_norm
from tfnas.compute.devices import device_name, time_calls
from tfnas.jobs.errors import UserError
from tfnas.latency.backends import BackendOptions, TorchEager, device_of, known_backends, open_backend, stopwatch_of
from tfnas.latency.measuring import Measuring
from tfnas.latency.profiler import profile_space
from tfnas.latency.validation import random_architecture
from tfnas.space import Block, build_network
from tfnas.space.network import MBInvRes

needs_compiler = pytest.mark.skipif(shutil.which("g++") is None, reason="no C++ compiler")
BLOCKS = [
    Block(3, 8, 24, 0, 8, "relu", 1),  # residual
    Block(5, 8, 37, 8, 12, "swish", 2),  # odd width, SE
    Block(3, 8, 8, 4, 6, "relu6", 1),  # no expansion
]


def result(backend, module, example):
    """The output of a prepared module as an array."""
    output = backend.prepare(module, example)()
    if isinstance(output, torch.Tensor):
        return output.float().numpy()
    (array,) = output.copy_outputs_to_cpu()
    return array


@pytest.fixture(autouse=True)
def inference():
    torch.manual_seed(0)
    with torch.inference_mode():
        yield


@pytest.mark.parametrize("channels_last", [False, True])
@pytest.mark.parametrize("block", BLOCKS, ids=str)
def test_eager_in_either_layout_is_the_module_itself(block, channels_last) -> None:
    module, example = vary_batch_norm(MBInvRes(block)), torch.randn(2, 8, 9, 9)
    expected = module(example).numpy()
    backend = open_backend("torch-eager", BackendOptions(channels_last=channels_last))
    assert np.allclose(result(backend, module, example), expected, atol=1e-5)


@pytest.mark.parametrize("block", BLOCKS, ids=str)
def test_onnx_runtime_computes_the_same_block(block) -> None:
    module, example = vary_batch_norm(MBInvRes(block)), torch.randn(2, 8, 9, 9)
    assert np.allclose(result(open_backend("onnx-runtime"), module, example), module(example), atol=1e-4)


@pytest.mark.slow  # inductor compiles C++
@needs_compiler
def test_torch_compile_computes_the_same_block() -> None:
    module, example = vary_batch_norm(MBInvRes(BLOCKS[0])), torch.randn(1, 8, 9, 9)
    assert np.allclose(result(open_backend("torch-compile"), module, example), module(example), atol=1e-4)


@needs_compiler
def test_torch_compile_compiles_a_shape_of_a_class_however_many_it_has_seen(monkeypatch) -> None:
    backend, compiled = open_backend("torch-compile"), []

    def count(graph, inputs):
        compiled.append(inputs)
        return graph.forward

    original = torch.compile
    monkeypatch.setattr(torch, "compile", lambda module, dynamic: original(module, dynamic=dynamic, backend=count))
    for width in range(1, 13):
        backend.prepare(MBInvRes(Block(3, 2, 2 + width, 0, 2, "relu", 1)).eval(), torch.randn(1, 2, 4, 4))
    assert len(compiled) == 12


def test_whole_network_is_the_same_in_onnx_runtime(space) -> None:
    network = vary_batch_norm(build_network(random_architecture(space, "n", np.random.default_rng(1)), 5))
    example = torch.randn(2, 3, 16, 16)
    expected = network(example).numpy()
    assert np.abs(expected).max() > 1e-3
    assert np.allclose(result(open_backend("onnx-runtime"), network, example), expected, atol=1e-4)


def test_autocast_is_in_force_in_each_run() -> None:
    module, example = vary_batch_norm(MBInvRes(BLOCKS[1])), torch.randn(1, 8, 9, 9)
    run = TorchEager(BackendOptions(precision="bfloat16")).prepare(module, example)
    assert run().dtype == torch.bfloat16 and run().dtype == torch.bfloat16
    assert not torch.is_autocast_enabled("cpu")
    assert torch.allclose(run().float(), module(example), rtol=0.1, atol=0.2)


def test_channels_last_reaches_weights_and_input() -> None:
    seen = []
    module = torch.nn.Conv2d(4, 6, 3)
    module.register_forward_hook(lambda layer, inputs, output: seen.extend([layer.weight, inputs[0]]))
    TorchEager(BackendOptions(channels_last=True)).prepare(module, torch.randn(2, 4, 5, 5))()
    assert all(tensor.is_contiguous(memory_format=torch.channels_last) for tensor in seen) and len(seen) == 2


@pytest.mark.parametrize(
    ("name", "options", "words"),
    [
        ("torch-eagre", {}, ("'torch-eagre'", "did you mean 'torch-eager'", "onnx-runtime", "tfnas.latency_backends")),
        ("onnx-runtime", {"device": "cuda"}, ("device", "write cpu")),
        ("onnx-runtime", {"precision": "bfloat16"}, ("precision", "write float32")),
        ("onnx-runtime", {"channels_last": True}, ("channels_last", "write false")),
    ],
)
def test_refusals_are_one_line_with_the_fix(name, options, words) -> None:
    with pytest.raises(UserError) as error:
        open_backend(name, BackendOptions(**options))
    assert "\n" not in str(error.value) and all(word in str(error.value) for word in words)


def test_torch_compile_says_that_it_needs_a_compiler(monkeypatch) -> None:
    monkeypatch.setattr("tfnas.latency.backends.torch.shutil.which", lambda name: None)
    with pytest.raises(UserError, match=r"C\+\+ compiler.*install g\+\+"):
        open_backend("torch-compile")


class Phone:
    """A backend on another device: a run takes 2 ms by its own clock."""

    name, version, device = "phone", "7", "Some Phone"

    def __init__(self, options):
        self.options = options

    def prepare(self, module, example):
        return lambda: None

    def time_runs(self, run, repeats):
        return [2.0] * repeats


@pytest.fixture
def installed(monkeypatch):
    """Entry points as an installed package would bring them."""
    values = {"phone": f"{__name__}:Phone", "broken": "no_such_module:X", "torch-eager": "no_such_module:Y"}
    points = [EntryPoint(name, value, "tfnas.latency_backends") for name, value in values.items()]
    monkeypatch.setattr("tfnas.latency.backends.registry.entry_points", lambda group: points)


def test_an_installed_backend_is_opened_with_the_options_and_measures_with_its_own_clock(
    installed, space, make_profile_params
) -> None:
    assert known_backends()[-2:] == ["broken", "phone"]
    params = make_profile_params(backend="phone", threads=3, validation_networks=0)
    backend = open_backend("phone", BackendOptions.of(params))
    assert backend.options.threads == 3 and device_of(backend, "cpu") == "Some Phone"
    table = profile_space(space, Measuring(params, space="tiny", resolution=16)).table
    assert (table.device, table.details["backend"]) == ("Some Phone", "phone")
    assert {ms for curve in table.curves.values() for ms in curve.latencies_ms} == {2.0}


def test_shipped_names_are_not_replaced_and_a_broken_package_is_one_line(installed) -> None:
    assert isinstance(open_backend("torch-eager"), TorchEager)
    with pytest.raises(UserError, match="no_such_module:X cannot be loaded"):
        open_backend("broken")


def test_backends_on_this_machine_use_its_clock_and_name() -> None:
    backend = open_backend("onnx-runtime")
    assert stopwatch_of(backend) is time_calls
    assert device_of(backend, "cpu") == device_name("cpu")


def test_the_table_says_how_it_was_measured(space, make_profile_params) -> None:
    changes = {"backend": "torch-eager", "precision": "bfloat16", "channels_last": True, "threads": 1}
    params = make_profile_params(**changes, repeats=1, warmup_runs=0, minutes=0.01)
    details = profile_space(space, Measuring(params, space="tiny", resolution=16)).table.details
    assert {name: details[name] for name in changes} == changes
