"""The example backends for devices that we do not have, against fakes that compute what they are given."""

from __future__ import annotations

import ctypes
import sys
from types import SimpleNamespace

import numpy as np
import onnx
import onnxruntime
import pytest
import torch

from tests.helpers.examples import EXAMPLES, load_backend
from tests.helpers.networks import vary_batch_norm
from tfnas.jobs.errors import UserError
from tfnas.latency.backends import BackendOptions, OwnClock
from tfnas.space import Block
from tfnas.space.network import MBInvRes


class Context:
    """A TensorRT execution context that computes with ONNX Runtime, from and to the addresses it was given."""

    def __init__(self, plan: bytes) -> None:
        self.session = onnxruntime.InferenceSession(plan, providers=["CPUExecutionProvider"])
        self.addresses: dict[str, int] = {}

    def set_tensor_address(self, name: str, address: int) -> None:
        self.addresses[name] = address

    def execute_async_v3(self, stream: int) -> bool:
        assert stream == 42
        (given,), (wanted,) = self.session.get_inputs(), self.session.get_outputs()
        (found,) = self.session.run(None, {given.name: self._at(given)})
        self._at(wanted)[...] = found
        return True

    def _at(self, tensor) -> np.ndarray:
        pointer = ctypes.cast(self.addresses[tensor.name], ctypes.POINTER(ctypes.c_float))
        return np.ctypeslib.as_array(pointer, tuple(tensor.shape))


class FakeTensorRt(SimpleNamespace):
    """As much of `tensorrt` as the example uses; `parsed` keeps the models."""

    def __init__(self) -> None:
        self.parsed: list[bytes] = []
        self.flags: list[int] = []
        self.valid = True
        logger = lambda level: None  # noqa: E731
        logger.ERROR = 1  # type: ignore[attr-defined]
        super().__init__(
            __version__="11.0",
            Logger=logger,
            NetworkDefinitionCreationFlag=SimpleNamespace(STRONGLY_TYPED=1),
            BuilderFlag=SimpleNamespace(TF32="TF32"),
            Builder=lambda logger: SimpleNamespace(
                create_network=lambda flags: self.flags.append(flags),
                create_builder_config=lambda: SimpleNamespace(clear_flag=lambda flag: self.flags.append(flag)),
                build_serialized_network=lambda network, config: self.parsed[-1],
            ),
            OnnxParser=lambda network, logger: SimpleNamespace(
                parse=lambda model: self.parsed.append(model) or self.valid, get_error=lambda number: "no such operator"
            ),
            Runtime=lambda logger: SimpleNamespace(
                deserialize_cuda_engine=lambda plan: SimpleNamespace(create_execution_context=lambda: Context(plan))
            ),
        )


@pytest.fixture
def tensorrt(monkeypatch) -> FakeTensorRt:
    fake = FakeTensorRt()
    monkeypatch.setitem(sys.modules, "tensorrt", fake)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: SimpleNamespace(cuda_stream=42))
    return fake


@pytest.fixture
def case():
    torch.manual_seed(0)
    module = vary_batch_norm(MBInvRes(Block(5, 8, 37, 8, 12, "swish", 2)))
    example = torch.randn(2, 8, 9, 9)
    with torch.inference_mode():
        return module, example, module(example).numpy()


def test_tensorrt_runs_the_block_from_and_to_torchs_memory(tensorrt, case) -> None:
    module, example, expected = case
    backend = load_backend("tensorrt")(BackendOptions(device="cuda"))
    output, *_ = backend.prepare(module, example)()
    np.testing.assert_allclose(output.numpy(), expected, atol=1e-4)
    assert backend.version == "11.0" and tensorrt.flags == [2, "TF32"]


def test_tensorrt_gets_a_model_in_the_asked_precision(tensorrt, case, monkeypatch) -> None:
    monkeypatch.setattr(sys.modules[__name__], "Context", lambda plan: SimpleNamespace(set_tensor_address=print))
    load_backend("tensorrt")(BackendOptions(device="cuda", precision="float16")).prepare(*case[:2])
    graph = onnx.load_from_string(tensorrt.parsed[0]).graph
    types = {tensor.type.tensor_type.elem_type for tensor in (*graph.input, *graph.output)}
    assert types | {weight.data_type for weight in graph.initializer} == {onnx.TensorProto.FLOAT16}


def test_a_model_that_tensorrt_does_not_take_is_one_line(tensorrt, case) -> None:
    tensorrt.valid = False
    with pytest.raises(UserError, match="no such operator"):
        load_backend("tensorrt")(BackendOptions(device="cuda")).prepare(*case[:2])


class FakeCoreMl(SimpleNamespace):
    """As much of `coremltools` as the example uses; a prediction runs the traced module."""

    def __init__(self) -> None:
        super().__init__(
            __version__="9.0",
            precision=SimpleNamespace(FLOAT32="f32", FLOAT16="f16"),
            ComputeUnit=SimpleNamespace(CPU_ONLY="cpu", CPU_AND_NE="ne"),
            TensorType=SimpleNamespace,
        )

    def convert(self, traced, *, inputs, convert_to, **settings):
        ((name, shape),) = [(tensor.name, tensor.shape) for tensor in inputs]
        assert convert_to == "mlprogram"
        self.settings = settings

        def predict(given):
            assert given[name].shape == shape
            return {"out": traced(torch.from_numpy(given[name])).detach().numpy()}

        return SimpleNamespace(predict=predict)


@pytest.fixture
def coreml(monkeypatch) -> FakeCoreMl:
    fake = FakeCoreMl()
    monkeypatch.setitem(sys.modules, "coremltools", fake)
    return fake


def test_core_ml_predicts_the_block_on_the_units_of_the_environment(coreml, case, monkeypatch) -> None:
    monkeypatch.setenv("TFNAS_COREML_UNITS", "CPU_ONLY")
    module, example, expected = case
    backend = load_backend("coreml")(BackendOptions(precision="float16"))
    run = backend.prepare(module, example)
    np.testing.assert_allclose(run()["out"], expected, atol=1e-4)
    assert coreml.settings == {"compute_precision": "f16", "compute_units": "cpu"}
    assert isinstance(backend, OwnClock) and backend.device.endswith("Core ML CPU_ONLY")
    times = backend.time_runs(run, 3)
    assert len(times) == 3 and all(ms > 0 for ms in times)


@pytest.mark.parametrize(
    ("name", "options", "words"),
    [
        ("tensorrt", {"device": "cpu"}, "write cuda"),
        ("tensorrt", {"device": "cuda", "precision": "bfloat16"}, "float32, float16"),
        ("tensorrt", {"device": "cuda", "channels_last": True}, "write false"),
        ("tensorrt", {"device": "cuda"}, "pip install tensorrt"),
        ("coreml", {"precision": "bfloat16"}, "float32, float16"),
        ("coreml", {"channels_last": True}, "write false"),
        ("coreml", {}, "pip install coremltools"),
    ],
)
def test_refusals_are_one_line_with_the_fix(name, options, words, monkeypatch) -> None:
    for module in ("tensorrt", "coremltools"):
        monkeypatch.setitem(sys.modules, module, None)  # not installed
    with pytest.raises(UserError) as error:
        load_backend(name)(BackendOptions(**options))
    assert words in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize("name", ["tensorrt", "coreml"])
def test_what_has_not_been_run_says_so(name) -> None:
    assert "NOT RUN" in (EXAMPLES / f"{name}_backend" / f"{name}_backend.py").read_text().split('"""')[1]
