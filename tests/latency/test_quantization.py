"""Quantized blocks: close to float32 on their calibration inputs, really 8 bits, and measured as within a network."""

from __future__ import annotations

import logging

import numpy as np
import onnx
import pytest
import torch

from tests.helpers.networks import vary_batch_norm
from tests.helpers.runtimes import int8_param
from tests.helpers.tiny_spaces import K3_E3_SE, space_text
from tfnas.cli import main
from tfnas.jobs.errors import UserError
from tfnas.latency.backends import BackendOptions, known_backends, open_backend
from tfnas.latency.backends.onnx_runtime import export_static_onnx, open_session
from tfnas.latency.measuring import Measuring
from tfnas.latency.quantization import check_all_quantized, count_quantized, quantize_onnx, within_network
from tfnas.space import Block, load_space, zoo
from tfnas.space.network import MBInvRes, build_network
from tfnas.stages.profile_latency import is_of_this_device, profile

BLOCKS = {
    "residual": Block(3, 8, 24, 0, 8, "relu6", 1),
    "odd width, SE and Swish": Block(5, 8, 37, 8, 12, "swish", 2),
    "no expansion": Block(3, 8, 8, 4, 6, "relu", 1),
}
BACKENDS = [int8_param("onnx-runtime"), int8_param("openvino")]
BOUND = 0.05  # of the output's root mean square: five quantizations in a row, each of 1/256 of its tensor's range


@pytest.fixture(autouse=True)
def conditions(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    torch.manual_seed(0)
    with torch.inference_mode():
        yield


def module_and_inputs(kind: str) -> tuple[torch.nn.Module, list[torch.Tensor]]:
    module = vary_batch_norm(MBInvRes(BLOCKS[kind])).eval()
    return module, [torch.randn(1, 8, 10, 10) for _ in range(4)]


def quantized(module: torch.nn.Module, inputs: list[torch.Tensor]) -> bytes:
    return quantize_onnx(export_static_onnx(module, inputs[0]), [given.numpy() for given in inputs])


def error(found: np.ndarray, expected: np.ndarray) -> float:
    """Root mean square of the difference, relative to that of what is expected."""
    return float(np.sqrt(((found - expected) ** 2).mean() / (expected**2).mean()))


def convolutions(module: torch.nn.Module) -> int:
    return sum(isinstance(part, torch.nn.Conv2d | torch.nn.Linear) for part in module.modules())


@pytest.mark.parametrize("kind", BLOCKS)
def test_a_block_is_close_to_float32_on_its_calibration_inputs(kind) -> None:
    module, inputs = module_and_inputs(kind)
    session = open_session(quantized(module, inputs), threads=1)
    errors = [error(session.run(None, {"image": given.numpy()})[0], module(given).numpy()) for given in inputs]
    assert 1e-4 < max(errors) < BOUND


@pytest.mark.parametrize("kind", BLOCKS)
def test_the_graph_has_every_convolution_in_8_bits_and_so_has_the_one_that_runs(kind, tmp_path) -> None:
    import onnxruntime as ort

    module, inputs = module_and_inputs(kind)
    model = quantized(module, inputs)
    assert count_quantized(onnx.load_from_string(model)) == (convolutions(module),) * 2
    plain = export_static_onnx(module, inputs[0])
    assert count_quantized(onnx.load_from_string(plain)) == (0, convolutions(module))
    settings = ort.SessionOptions()
    settings.optimized_model_filepath, settings.log_severity_level = str(tmp_path / "runs.onnx"), 3
    ort.InferenceSession(within_network(model), settings, providers=["CPUExecutionProvider"])
    ops = [node.op_type for node in onnx.load(tmp_path / "runs.onnx").graph.node]
    assert ops.count("QLinearConv") == convolutions(module)
    assert not {"Conv", "FusedConv", "Transpose"} & {*ops}, "float32, or a transposition that a network does not have"


@pytest.mark.parametrize("kind", BLOCKS)
def test_within_a_network_a_block_computes_the_same_bytes(kind) -> None:
    """What it gives for the quantized input is the quantized output, channels last."""
    module, inputs = module_and_inputs(kind)
    model = quantized(module, inputs)
    graph = onnx.load_from_string(model).graph
    values = {init.name: onnx.numpy_helper.to_array(init) for init in graph.initializer}
    first = next(node for node in graph.node if node.op_type == "QuantizeLinear" and node.input[0] == "image")
    last = next(node for node in graph.node if "output" in node.output)
    scale, zero = (values[name] for name in first.input[1:])
    given = inputs[1].numpy()
    stored = np.clip(np.rint(given / scale) + zero, 0, 255).astype(np.uint8)
    (found,) = open_session(within_network(model), threads=1).run(None, {"image": stored.transpose(0, 2, 3, 1)})
    (expected,) = open_session(model, threads=1).run(None, {"image": given})
    scale, zero = (values[name] for name in last.input[1:])
    as_floats = (found.astype(np.float32) - zero) * scale
    np.testing.assert_allclose(as_floats.transpose(0, 3, 1, 2), expected, atol=1.01 * scale)


def test_a_whole_network_takes_its_image_and_gives_logits_in_float32() -> None:
    network = build_network(zoo.load("TF-NAS-CPU-B"), 10).eval()
    image = torch.randn(1, 3, 32, 32)
    model = quantize_onnx(export_static_onnx(network, image), [image.numpy()])
    assert within_network(model) == model
    assert count_quantized(onnx.load_from_string(model)) == (convolutions(network),) * 2
    (found,) = open_session(model, threads=1).run(None, {"image": image.numpy()})
    assert found.shape == (1, 10) and found.dtype == np.float32


@pytest.mark.parametrize("kind", BLOCKS)
@pytest.mark.parametrize("name", [int8_param("openvino")])
def test_openvino_runs_every_convolution_in_8_bits_close_to_float32(name, kind) -> None:
    module, inputs = module_and_inputs(kind)
    run = open_backend(name, BackendOptions(precision="int8")).prepare(module, inputs[0])
    assert 1e-4 < error(run().output(), module(inputs[0]).numpy()) < BOUND
    ran = run._request.get_compiled_model().get_runtime_model().get_ops()
    facts = [{key: node.get_rt_info()[key].astype(str) for key in ("layerType", "runtimePrecision")} for node in ran]
    precisions = [fact["runtimePrecision"] for fact in facts if fact["layerType"] == "Convolution"]
    left = 2 if kind == "no expansion" else 0  # NNCF leaves a squeeze-and-excitation with ReLU in float32
    assert len(precisions) == convolutions(module)
    assert len([name for name in precisions if name in ("u8", "i8")]) == convolutions(module) - left


@pytest.mark.parametrize("name", BACKENDS)
def test_quantizing_leaves_the_logging_of_others_as_it_was(name, caplog, monkeypatch) -> None:
    """Where the quantizer's loggers share a handler, which pytest's is for all that do not propagate."""
    backend = open_backend(name, BackendOptions(precision="int8"))
    for kind in ("residual", "no expansion"):
        module, inputs = module_and_inputs(kind)
        backend.prepare(module, inputs[0])
        monkeypatch.setattr(logging.getLogger("nncf"), "handlers", [caplog.handler])
    assert logging.getLoggerClass() is logging.Logger
    logging.getLogger("tfnas.latency").warning("heard")
    assert "heard" in caplog.text


def test_what_stays_in_float32_is_an_error() -> None:
    check_all_quantized(3, 3, what="the module")
    with pytest.raises(UserError, match=r"leaves 1 of 3 convolutions .* in float32; write float32"):
        check_all_quantized(2, 3, what="the module")


@pytest.mark.parametrize("name", [name for name in known_backends() if name not in ("onnx-runtime", "openvino")])
def test_other_backends_refuse_in_one_line(name) -> None:
    with pytest.raises(UserError) as refusal:
        open_backend(name, BackendOptions(precision="int8"))
    text = str(refusal.value)
    assert "\n" not in text
    says_where = "int8" in text and "onnx-runtime or openvino" in text
    assert says_where or "not installed" in text or "compiler" in text


def test_openvino_without_nncf_says_how_to_install_it(monkeypatch) -> None:
    pytest.importorskip("openvino")
    monkeypatch.setattr("tfnas.jobs.extras._is_there", lambda module: module != "nncf")
    with pytest.raises(UserError, match=r"needs nncf.*tfnas\[openvino-int8\]"):
        open_backend("openvino", BackendOptions(precision="int8"))
    open_backend("openvino")


@pytest.mark.parametrize("name", BACKENDS)
def test_a_table_of_quantized_blocks_says_int8_and_is_of_no_other_precision(
    name, make_profile_params, monkeypatch, tmp_path
) -> None:
    """Blocks and whole networks alike are quantized: nothing is measured in float32.

    A space of one candidate, since quantizing a block takes a second.
    """
    (tmp_path / "one.yaml").write_text(space_text(K3_E3_SE))
    space = load_space(tmp_path / "one.yaml")
    counted = []
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr("tfnas.latency.measuring.convert_ahead", lambda *_: None)  # so all is quantized in this process
    module = "tfnas.latency.quantization.check_all_quantized"
    monkeypatch.setattr(module, lambda quantized, total, *, what: counted.append((quantized, total)))
    changes = {"backend": name, "precision": "int8", "channels_last": False, "threads": 1, "validation_networks": 3}
    params = make_profile_params(**changes, repeats=1, warmup_runs=0, minutes=0.01, tolerance=0.9)
    measured = Measuring(params, space="tiny", resolution=16)
    prepared = set()
    keep = measured.backend.keep
    monkeypatch.setattr(measured.backend, "keep", lambda *args: prepared.add(path := keep(*args)) or path)
    table, rows = profile(space, measured, seed=0)
    assert table.details["precision"] == "int8" and len(rows) >= 3
    assert counted and all(quantized == total > 0 for quantized, total in counted)
    assert len(counted) == len(prepared)
    assert is_of_this_device(table, params)
    assert not is_of_this_device(table, params.model_copy(update={"precision": "float32"}))


def test_the_command_refuses_before_it_measures(tmp_path, capsys) -> None:
    out = tmp_path / "table.json"
    assert main(["profile", "--space", "tf-nas-tiny", "--out", str(out), "--precision", "int8"]) == 2
    message = capsys.readouterr().err
    assert message.count("\n") == 1 and "torch-eager" in message and "onnx-runtime or openvino" in message
    assert not out.exists()
