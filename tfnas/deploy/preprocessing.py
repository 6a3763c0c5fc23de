"""What a picture goes through before the network, carried by the ONNX file: as metadata, and as part of the graph.

The most frequent fault of a deployed classifier is that it sees other pixels than in training. So each ONNX file says
in its `metadata_props` how pictures are to be resized, cut and normalized, and in which order its classes are. A file
with preprocessing does it all itself: `image`, (H, W, 3) uint8 of any size, gives `probabilities`, (K,).

K classes, R the network's resolution.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

import tfnas
from tfnas.data import eval_transform
from tfnas.data.images.decoding import BACKGROUND
from tfnas.data.images.transforms import CROP_FRACTION, MEAN, STD, THUMBNAIL
from tfnas.deploy.export import INPUT, OUTPUT, Runner
from tfnas.jobs.artifacts import atomic_path
from tfnas.jobs.errors import UserError
from tfnas.latency.backends.onnx_runtime import open_session

if TYPE_CHECKING:
    from onnx import ModelProto

IMAGE, PROBABILITIES = "image", "probabilities"
SUFFIX = "_with_preprocessing"  # of the file's name
PIXEL_TOLERANCE = 2.01  # of 255: rows, then columns are rounded, and each rounding of a half may differ by one
OPSET = 18  # at least: the first whose Resize has antialias
_GRAPH = """
<ir_version: {ir_version}, opset_import: ["" : {opset}]>
preprocessing (uint8[H, W, 3] {image}) => (float[1, 3, {size}, {size}] pre_images) {{
  pre_shape = Shape({image})
  pre_first = Constant<value_ints=[0]>()
  pre_last = Constant<value_ints=[2]>()
  pre_0 = Constant<value_int=0>()
  pre_1 = Constant<value_int=1>()
  pre_height = Gather(pre_shape, pre_0)
  pre_width = Gather(pre_shape, pre_1)
  pre_shorter = Min(pre_height, pre_width)
  pre_thumbnail = Constant<value_int={thumbnail}>()
  pre_size = Constant<value_int={size}>()
  pre_resized_side = Constant<value_int={resized}>()
  pre_is_thumbnail = LessOrEqual(pre_shorter, pre_thumbnail)
  pre_height_fits = Equal(pre_height, pre_size)
  pre_width_fits = Equal(pre_width, pre_size)
  pre_fits = And(pre_height_fits, pre_width_fits)
  pre_uncut = Or(pre_is_thumbnail, pre_fits)
  pre_side = Where(pre_uncut, pre_size, pre_resized_side)
  pre_hw = Slice(pre_shape, pre_first, pre_last)
  pre_times = Mul(pre_hw, pre_side)
  pre_new_hw = Div(pre_times, pre_shorter)
  pre_nc = Constant<value_ints=[1, 3]>()
  pre_sizes = Concat<axis=0>(pre_nc, pre_new_hw)
  pre_chw = Transpose<perm=[2, 0, 1]>({image})
  pre_nchw = Unsqueeze(pre_chw, pre_first)
  pre_resized = Resize<mode="linear", antialias=1, exclude_outside=1>(pre_nchw, , , pre_sizes)
  pre_margin = Sub(pre_new_hw, pre_size)
  pre_margin_float = Cast<to=1>(pre_margin)
  pre_half = Constant<value_float=0.5>()
  pre_start_float = Mul(pre_margin_float, pre_half)
  pre_start_even = Round(pre_start_float)
  pre_start = Cast<to=7>(pre_start_even)
  pre_end = Add(pre_start, pre_size)
  pre_axes = Constant<value_ints=[2, 3]>()
  pre_cut = Slice(pre_resized, pre_start, pre_end, pre_axes)
  pre_float = Cast<to=1>(pre_cut)
  pre_255 = Constant<value_float=255.0>()
  pre_unit = Div(pre_float, pre_255)
  pre_mean = Constant<value=float[1, 3, 1, 1] {{{mean}}}>()
  pre_std = Constant<value=float[1, 3, 1, 1] {{{std}}}>()
  pre_centered = Sub(pre_unit, pre_mean)
  pre_images = Div(pre_centered, pre_std)
}}
"""


@dataclass(frozen=True)
class Preprocessed:
    """A checked file with preprocessing.

    Attributes:
        levels: largest difference of a pixel to `tfnas.data.eval_transform`, of 255.
        difference: largest one of a probability to eager's, on the same pixels.
    """

    path: Path
    levels: float
    difference: float


def preprocessing_model(resolution: int, *, opset: int = OPSET, ir_version: int = 10) -> ModelProto:
    """An ONNX model of `tfnas.data.eval_transform`: (H, W, 3) uint8 `image` to (1, 3, R, R) float32 `pre_images`."""
    from onnx import parser

    mean, std = (", ".join(map(repr, row)) for row in (MEAN, STD))
    text = _GRAPH.format(
        ir_version=ir_version,
        opset=opset,
        image=IMAGE,
        size=resolution,
        resized=resized_side(resolution),
        thumbnail=THUMBNAIL,
        mean=mean,
        std=std,
    )
    return parser.parse_model(text)


def resized_side(resolution: int) -> int:
    """The shorter side of a picture before the center is cut out, unless it is a thumbnail."""
    return round(resolution / CROP_FRACTION)


def with_preprocessing(model: ModelProto, resolution: int) -> ModelProto:
    """The exported network behind its preprocessing, with a softmax at the end.

    Args:
        model: as `tfnas.deploy.export.export_onnx` writes it.
    """
    from onnx import TensorProto, checker, compose, helper

    opset = next(entry.version for entry in model.opset_import if entry.domain == "")
    assert opset >= OPSET, opset
    front = preprocessing_model(resolution, opset=opset, ir_version=model.ir_version)
    classes = model.graph.output[0].type.tensor_type.shape.dim[1].dim_value
    joined = compose.merge_models(front, model, io_map=[("pre_images", INPUT)])
    axis = helper.make_node("Constant", [], ["post_axis"], value_ints=[0])
    joined.graph.node.extend(
        [
            helper.make_node("Softmax", [OUTPUT], ["post_softmax"], axis=1),
            axis,
            helper.make_node("Squeeze", ["post_softmax", "post_axis"], [PROBABILITIES]),
        ]
    )
    del joined.graph.output[:]
    joined.graph.output.append(helper.make_tensor_value_info(PROBABILITIES, TensorProto.FLOAT, [classes]))
    checker.check_model(joined)
    return joined


def export_with_preprocessing(
    network: Runner, resolution: int, exported: Path, *, threads: int, tolerance: float
) -> Preprocessed:
    """Write the file next to an exported one, and check it on pictures of odd sizes.

    Args:
        network: what the file is to agree with: the network in evaluation mode, or, in 8 bits, the exported file.

    Raises:
        UserError: its pixels are not those of the training, or its probabilities not the network's; the file is
            removed.
    """
    import onnx

    path = exported.with_name(f"{exported.stem}{SUFFIX}.onnx")
    model = with_preprocessing(onnx.load(exported), resolution)
    _save(model, path)
    found = _check(network, resolution, path, threads=threads)
    if not (found.levels <= PIXEL_TOLERANCE and found.difference <= tolerance):
        path.unlink()
        raise UserError(
            f"{path}: pixels differ by {found.levels:.2g} of 255 from the training's and probabilities by"
            f" {found.difference:.2g} from eager's, more than 2 and {tolerance:g}; the file was removed; leave"
            " --with-preprocessing out, or raise --tolerance if the latter is good enough"
        )
    return found


def _check(network: Runner, resolution: int, path: Path, *, threads: int) -> Preprocessed:
    front = open_session(preprocessing_model(resolution).SerializeToString(), threads=threads)
    whole, transform = open_session(str(path), threads=threads), eval_transform(resolution)
    levels = difference = 0.0
    for picture in check_pictures(resolution):
        (images,) = front.run(None, {IMAGE: picture})
        (probabilities,) = whole.run(None, {IMAGE: picture})
        ours = transform(torch.from_numpy(picture).permute(2, 0, 1))
        deviation = torch.tensor(STD)[:, None, None]
        levels = max(levels, 255 * float((abs(torch.from_numpy(images)[0] - ours) * deviation).max()))
        with torch.inference_mode():
            expected = network(torch.from_numpy(images)).softmax(1)[0].numpy()
        difference = max(difference, float(abs(probabilities - expected).max()))
    return Preprocessed(path, levels, difference)


def check_pictures(resolution: int) -> Iterator[np.ndarray]:
    """Noise, in which every pixel counts: the very size, thumbnails, portrait, landscape, narrow and large."""
    random = np.random.default_rng(0)
    sizes = ((resolution, resolution), (1, 3), (5, 1), (28, 28), (65, 200), (201, 67), (3 * resolution + 1, 333))
    for height, width in sizes:
        yield random.integers(0, 256, (height, width, 3), dtype=np.uint8)


def metadata(
    network: str, resolution: int, *, classes: Sequence[str], exif: str, latency: Mapping[str, Any]
) -> dict[str, str]:
    """What an ONNX file says of itself: every value is a word or JSON.

    Args:
        classes: names in the order of the outputs; empty where they are not known.
        exif: whether pictures are turned by their EXIF tag, as in the training: apply or ignore.
        latency: how it was measured, with what outcome.
    """
    facts: dict[str, Any] = {
        "size": resolution,
        "resize_shorter_side": resized_side(resolution),
        "uncut_up_to": THUMBNAIL,  # pictures whose shorter side is at most this are resized to `size` and not cut
        "mean": MEAN,
        "std": STD,
        "background": BACKGROUND,
        "latency": latency,
    }
    words = {
        "tfnas_version": tfnas.__version__,
        "network": network,
        "crop": "center",
        "interpolation": "bilinear, antialiased",
        "channel_order": "RGB",
        "range": "0 to 1, before mean and std",
        "exif": exif,
    }
    names = {"classes": json.dumps(list(classes), ensure_ascii=False)} if classes else {}
    return words | {name: json.dumps(value) for name, value in facts.items()} | names


def write_metadata(path: Path, facts: Mapping[str, str]) -> None:
    """Put facts into an ONNX file's `metadata_props`; the graph stays as it is."""
    import onnx
    from onnx import helper

    model = onnx.load(path)
    helper.set_model_props(model, dict(facts))
    _save(model, path)


def _save(model: ModelProto, path: Path) -> None:
    with atomic_path(path) as temporary:
        temporary.write_bytes(model.SerializeToString())
