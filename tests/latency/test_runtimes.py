"""Every runtime that converts computes what eager PyTorch computes, on blocks and on whole networks."""

from __future__ import annotations

import sys
import time

import numpy as np
import pytest
import torch

from tests.helpers.networks import vary_batch_norm
from tests.helpers.runtimes import NEEDS, RUNTIME_PARAMS, SLOW, runtime_param
from tfnas.jobs.errors import UserError
from tfnas.latency.backends import BackendOptions, open_backend
from tfnas.latency.backends.kept import cache_folder
from tfnas.latency.timing import Probe, build
from tfnas.latency.validation import random_architecture
from tfnas.space import Block, build_network
from tfnas.space.network import MBInvRes

TOLERANCE = 1e-4  # of outputs of about 1 to 10
BLOCKS = {
    "residual": Block(3, 8, 24, 0, 8, "relu", 1),
    "odd width, SE": Block(5, 8, 37, 8, 12, "swish", 2),
    "no expansion": Block(3, 8, 8, 4, 6, "relu6", 1),
}


@pytest.fixture(autouse=True)
def conditions(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    torch.manual_seed(0)
    with torch.inference_mode():
        yield


def block(name: str) -> torch.nn.Module:
    return vary_batch_norm(MBInvRes(BLOCKS[name]))


@pytest.mark.parametrize("name", [p for p in RUNTIME_PARAMS if p.values[0] not in SLOW])
@pytest.mark.parametrize("kind", BLOCKS)
def test_a_block_is_the_same(name, kind) -> None:
    module, example = block(kind), torch.randn(1, 8, 9, 9)
    found = open_backend(name).prepare(module, example)().output()
    np.testing.assert_allclose(found, module(example), atol=TOLERANCE)


@pytest.mark.parametrize("name", RUNTIME_PARAMS)
def test_a_whole_network_is_the_same_in_each_run(name, space) -> None:
    network = vary_batch_norm(build_network(random_architecture(space, "n", np.random.default_rng(1)), 5))
    example = torch.randn(1, 3, 16, 16)
    expected = network(example).numpy()
    assert np.abs(expected).max() > 1e-3
    run = open_backend(name).prepare(network, example)
    for _ in range(3):
        np.testing.assert_allclose(run().output(), expected, atol=TOLERANCE)


@pytest.mark.parametrize("name", [p for p in RUNTIME_PARAMS if p.values[0] != "openvino"])
def test_a_module_is_converted_once_and_another_one_anew(name, monkeypatch) -> None:
    backend, written = open_backend(name), []
    write = type(backend).write
    monkeypatch.setattr(backend, "write", lambda *arguments: written.append(arguments) or write(*arguments))
    probe = Probe(lambda: MBInvRes(BLOCKS["odd width, SE"]), (1, 8, 9, 9))
    cpu = torch.device("cpu")
    first, again = (backend.prepare(*build(probe, cpu))().output() for _ in range(2))
    module, example = build(probe, cpu)
    other = vary_batch_norm(module)  # the same graph, other weights
    found = backend.prepare(other, example)().output()
    assert len(written) == 2 and np.array_equal(first, again)
    np.testing.assert_allclose(found, other(example), atol=TOLERANCE)
    assert not np.allclose(first, found, atol=TOLERANCE)
    assert not [path for path in cache_folder().rglob("*") if path.suffix == ".tmp"]


@pytest.mark.parametrize("name", RUNTIME_PARAMS)
@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"device": "cuda"}, "write cpu"),
        ({"precision": "float16"}, "write float32"),
        ({"channels_last": True}, "false"),
    ],
)
def test_refusals_are_one_line_with_the_fix(name, options, words) -> None:
    with pytest.raises(UserError) as error:
        open_backend(name, BackendOptions(**options))
    assert "\n" not in str(error.value) and words in str(error.value) and name in str(error.value)


@pytest.mark.parametrize("name", NEEDS)
def test_a_missing_package_is_one_line_that_says_how_to_install_it(name, monkeypatch) -> None:
    for where in ("tfnas.jobs.extras.find_spec", "tfnas.latency.backends.litert.find_spec"):
        monkeypatch.setattr(where, lambda module: None)
    for module in NEEDS[name]:
        monkeypatch.delitem(sys.modules, module, raising=False)
    with pytest.raises(UserError) as error:
        open_backend(name)
    fix = "docs/own-device.md" if name == "litert" else f"pip install 'tfnas[{name}]'"
    assert fix in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize("name", [runtime_param("ncnn")])
def test_ncnn_takes_one_image(name) -> None:
    with pytest.raises(UserError, match="batch_size: 2: ncnn runs one image at a time; write 1"):
        open_backend(name).prepare(block("residual"), torch.randn(2, 8, 9, 9))


@pytest.mark.parametrize("name", RUNTIME_PARAMS)
def test_one_thread_is_the_calling_one(name) -> None:
    """So that interruptions can be told from work (`here`), and one thread means one."""
    module, example = MBInvRes(Block(3, 24, 96, 0, 24, "relu", 1)).eval(), torch.randn(1, 24, 56, 56)
    run = open_backend(name).prepare(module, example)
    run()
    everywhere, in_this_thread = time.process_time(), time.thread_time()
    for _ in range(20):
        run()
    everywhere, in_this_thread = time.process_time() - everywhere, time.thread_time() - in_this_thread
    assert in_this_thread > 0.8 * everywhere
