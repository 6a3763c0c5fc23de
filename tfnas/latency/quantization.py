"""8 bits: post-training quantization of weights and activations, by ONNX Runtime or, for OpenVINO, by NNCF.

Weights are quantized per output channel; activations per tensor, by the range that they have on calibration inputs.
A latency table needs no images: latency does not depend on the values, so blocks are calibrated on noise. An exported
network is calibrated on images of its training (`tfnas.deploy.quantization`).

Weights have 7 of the 8 bits in ONNX files: CPUs without VNNI instructions add two products of 8 bits in 16, which would
overflow, and a file that is right on one CPU has to be right on another.

C channels, H W size, K classes, N batch.
"""

from __future__ import annotations

import contextlib
import io
import logging
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tfnas.jobs.errors import UserError

if TYPE_CHECKING:
    from onnx import ModelProto, NodeProto

INT8 = "int8"  # as a precision
IMAGE_CHANNELS = 4  # at most: a module whose input has more is inside of a network
WEIGHTED = ("Conv", "Gemm", "MatMul")  # operators of ONNX that hold weights
OPENVINO_WEIGHTED = ("Convolution", "GroupConvolution", "MatMul")
EIGHT_BITS = ("i8", "u8")  # as OpenVINO calls them
_BETWEEN = ("Reshape", "Transpose", "Multiply", "Subtract", "Convert")  # of 8-bit weights and their convolution


def quantize_onnx(model: bytes, batches: Iterable[np.ndarray], *, what: str = "the module") -> bytes:
    """An ONNX model in 8 bits, with QuantizeLinear and DequantizeLinear around every operator that has them.

    Args:
        model: with one input, float32, and its weights inside.
        batches: calibration inputs, each (N, C, H, W) float32.
        what: is quantized, for the error.

    Raises:
        UserError: a convolution or matrix product would stay in float32.
    """
    import onnx
    from onnxruntime.quantization import CalibrationMethod, QuantFormat, QuantType, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    name = onnx.load_from_string(model).graph.input[0].name
    with tempfile.TemporaryDirectory() as folder, _silently():
        given, prepared, quantized = (Path(folder) / f"{name}.onnx" for name in ("given", "prepared", "quantized"))
        given.write_bytes(model)  # a ModelProto would be taken apart: its weights go into a file that is then missed
        quant_pre_process(given, prepared, skip_symbolic_shape=True)
        quantize_static(
            prepared,
            quantized,
            _reader(name, batches),
            quant_format=QuantFormat.QDQ,
            per_channel=True,
            reduce_range=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            calibrate_method=CalibrationMethod.MinMax,
        )
        made = onnx.load(quantized)
    _leave_used_domains(made)
    check_all_quantized(*count_quantized(made), what=what)
    return made.SerializeToString()


def _reader(name: str, batches: Iterable[np.ndarray]) -> Any:
    from onnxruntime.quantization import CalibrationDataReader

    class Reader(CalibrationDataReader):  # type: ignore[misc]  # has no types
        def __init__(self) -> None:
            self._batches = iter(batches)

        def get_next(self) -> dict[str, np.ndarray] | None:
            images = next(self._batches, None)
            return None if images is None else {name: images}

    return Reader()


def _leave_used_domains(model: ModelProto) -> None:
    """Drop the operator sets that the optimizer names and nothing uses; other tools ask for each that is named."""
    used = {node.domain for node in model.graph.node} | {""}
    kept = [entry for entry in model.opset_import if entry.domain in used]
    del model.opset_import[:]
    model.opset_import.extend(kept)


def count_quantized(model: ModelProto) -> tuple[int, int]:
    """Convolutions and matrix products with 8-bit weights and 8-bit input, and how many there are in all."""
    dequantized = {name for node in model.graph.node if node.op_type == "DequantizeLinear" for name in node.output}
    weighted = [node for node in model.graph.node if node.op_type in WEIGHTED]
    return sum({*node.input[:2]} <= dequantized for node in weighted), len(weighted)


def check_all_quantized(quantized: int, total: int, *, what: str) -> None:
    """Check that "int8" is not float32 in disguise.

    Raises:
        UserError: an operator with weights is left in float32.
    """
    if quantized < total:
        raise UserError(
            f"precision: int8: quantization leaves {total - quantized} of {total} convolutions and matrix products of"
            f" {what} in float32; write float32"
        )


def within_network(model: bytes) -> bytes:
    """A quantized module as it is inside of a network: feature maps come and go in 8 bits, (N, H, W, C).

    A whole network is quantized once, at its image, and transposed once, because ONNX Runtime computes 8-bit
    convolutions channels-last. A table that counted both per block would add them up. Images and logits stay float32,
    (N, C, H, W) and (N, K).
    """
    import onnx

    made = onnx.load_from_string(model)
    _take_bytes(made)
    _give_bytes(made)
    onnx.checker.check_model(made)
    return made.SerializeToString()


def _take_bytes(model: ModelProto) -> None:
    from onnx import helper

    given, nodes = model.graph.input[0], model.graph.node
    readers = [node for node in nodes if given.name in node.input]
    shape = [size.dim_value for size in given.type.tensor_type.shape.dim]
    if len(shape) != 4 or shape[1] <= IMAGE_CHANNELS or [node.op_type for node in readers] != ["QuantizeLinear"]:
        return
    turned = helper.make_node("Transpose", [given.name], readers[0].output, perm=[0, 3, 1, 2])
    _replace(model, readers[0], turned)
    given.CopyFrom(_bytes_info(given.name, shape))


def _give_bytes(model: ModelProto) -> None:
    from onnx import helper

    result = model.graph.output[0]
    shape = [size.dim_value for size in result.type.tensor_type.shape.dim]
    last = next(node for node in model.graph.node if result.name in node.output)
    if len(shape) != 4 or last.op_type != "DequantizeLinear":
        return
    _replace(model, last, helper.make_node("Transpose", [last.input[0]], [result.name], perm=[0, 2, 3, 1]))
    result.CopyFrom(_bytes_info(result.name, shape))


def _bytes_info(name: str, shape: Sequence[int]) -> Any:
    from onnx import TensorProto, helper

    batch, channels, height, width = shape
    return helper.make_tensor_value_info(name, TensorProto.UINT8, [batch, height, width, channels])


def _replace(model: ModelProto, old: NodeProto, new: NodeProto) -> None:
    index = next(number for number, node in enumerate(model.graph.node) if node == old)
    model.graph.node[index].CopyFrom(new)


def quantize_openvino(model: Any, batches: Iterable[np.ndarray], *, what: str = "the module") -> Any:
    """An OpenVINO model in 8 bits, by NNCF: symmetric weights, asymmetric activations, corrected biases.

    Args:
        model: `openvino.Model` with one float32 input.
        batches: calibration inputs, each of the shape that the model takes.
        what: is quantized, for the error.

    Raises:
        UserError: a convolution or matrix product would stay in float32.
    """
    inputs = list(batches)
    with _silently():
        import nncf
        from openvino.passes import ConstantFolding, Manager

        folding = Manager()  # ONNX reshapes the weights of depthwise convolutions, and OpenVINO would compute those in
        folding.register_pass(ConstantFolding())  # float32, because it looks for 8 bits right in front of them
        folding.run_passes(model)
        made = nncf.quantize(
            model,
            nncf.Dataset(inputs),
            preset=nncf.QuantizationPreset.MIXED,
            target_device=nncf.TargetDevice.CPU,
            subset_size=len(inputs),
        )
    check_all_quantized(*count_quantized_openvino(made), what=what)
    return made


def count_quantized_openvino(model: Any) -> tuple[int, int]:
    """As `count_quantized`, of an `openvino.Model`.

    NNCF leaves a squeeze-and-excitation with ReLU in float32, by a rule that cannot be switched off; its convolutions,
    of maps of 1 x 1, are not counted then.
    """
    weighted = [node for node in model.get_ops() if node.get_type_name() in OPENVINO_WEIGHTED]
    quantized = [node for node in weighted if all(_is_quantized(node, port) for port in (0, 1))]
    left = [node for node in weighted if node not in quantized and list(node.get_output_shape(0))[2:] == [1, 1]]
    return len(quantized), len(weighted) - len(left)


def _is_quantized(node: Any, port: int) -> bool:
    """Whether an input comes from a FakeQuantize or, weights, from 8 bits kept in the file."""
    source = node.input_value(port).get_node()
    while source.get_type_name() in _BETWEEN:
        source = source.input_value(0).get_node()
    if source.get_type_name() == "FakeQuantize":
        return True
    return bool(source.get_type_name() == "Constant" and source.get_element_type().get_type_name() in EIGHT_BITS)


@contextlib.contextmanager
def _silently() -> Iterator[None]:
    """Suppress progress bars and advice of the quantizers; errors are still raised.

    NNCF, imported in here, makes all later loggers its own. That is undone; its `set_log_level` is not called, because
    it sets the level of handlers that other loggers may share.
    """
    before, logger_class = logging.root.manager.disable, logging.getLoggerClass()
    logging.disable(logging.WARNING)
    try:
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            yield
    finally:
        logging.disable(before)
        logging.setLoggerClass(logger_class)
