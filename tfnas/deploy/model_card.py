"""MODEL_CARD.md of an exported network: what it is, how it was made, how accurate it is, and how fast on what."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import torch

from tfnas.data.images.decoding import APPLY, BACKGROUND
from tfnas.data.images.transforms import CROP_FRACTION, MEAN, STD, THUMBNAIL
from tfnas.deploy.export import Runner
from tfnas.deploy.load import Origin, TrainedOn, read_origin
from tfnas.deploy.preprocessing import IMAGE, Preprocessed
from tfnas.deploy.quantization import Quantized
from tfnas.jobs.artifacts import read_json, write_text
from tfnas.jobs.sections import flatten
from tfnas.latency import LatencyTable
from tfnas.latency.measuring import BUSY_SHARE
from tfnas.latency.timing import Timer, Timing, measuring
from tfnas.space import Architecture, count_macs, count_params
from tfnas.tables.shipped import open_table

ROUNDS, WARMUP_RUNS = 5, 3
DRAWING, CLASSES = "architecture.svg", "classes.txt"
SHOWN_CLASSES = 20
RECIPE_NOTES = ("root", "targets", "datasets", "resolution", "checkpoint_every_steps", "execution")  # not of a recipe


@dataclass(frozen=True)
class Card:
    """What a card says."""

    architecture: Architecture
    resolution: int
    num_classes: int
    metrics: Mapping[str, Any]  # of metrics.json next to the weights; empty where there is none
    origin: Origin
    trained_on: TrainedOn
    latency_target: LatencyTarget | None
    device: str  # that the measurements were made on
    batch_size: int
    threads: int
    measured: Mapping[str, Timing]  # by runtime
    differences: Mapping[str, float]  # by file: largest difference to eager
    digests: Mapping[str, str] = field(default_factory=dict)  # SHA-256 by file
    busy: bool = False  # other programs ran during the measurements
    random_weights: bool = False  # never trained
    preprocessed: Preprocessed | None = None  # the file with preprocessing, where one was asked for
    quantized: Sequence[Quantized] = ()  # the files in 8 bits, where they were asked for

    @property
    def files(self) -> list[str]:
        """Names of all exported files."""
        return [*self.differences, *self.int8_files, *([self.preprocessed.path.name] if self.preprocessed else [])]

    @property
    def int8_files(self) -> list[str]:
        """Names of those in 8 bits, but for the one with preprocessing."""
        return [made.path.name for made in self.quantized]

    @property
    def exif(self) -> str:
        """Whether pictures are to be turned as in the training."""
        return self.origin.exif or APPLY


def write_card(card: Card, folder: Path) -> None:
    """Write MODEL_CARD.md, the drawing it shows, and classes.txt where the names are known."""
    from tfnas.report.figures.drawing import draw_architecture

    draw_architecture(card.architecture, folder / DRAWING)
    if card.trained_on.classes:
        write_text(folder / CLASSES, "\n".join(card.trained_on.classes) + "\n")
    write_text(folder / "MODEL_CARD.md", "\n".join(_lines(card)) + "\n")


def _lines(card: Card) -> Iterator[str]:
    architecture, size = card.architecture, card.resolution
    macs, params = count_macs(architecture, size, card.num_classes), count_params(architecture, card.num_classes)
    yield from (f"# {architecture.name}", "")
    yield f"An image classifier of TF-NAS (ECCV 2020) and its search space `{architecture.space}`:"
    yield f"{macs / 1e6:.1f} M multiply-adds, {params / 1e6:.2f} M parameters, {card.num_classes} classes."
    yield from ("", f"![architecture]({DRAWING})", "")
    yield from ("## Use", "", *_use(card), "")
    yield from ("## Data and accuracy", "", *_accuracy(card), "")
    yield from ("## Recipe", "", *_recipe(card.origin), "")
    yield from ("## Latency", "", *_latency(card), "")
    yield from ("## Files", "", *_files(card), "")
    yield from ("## Provenance", "", *_provenance(card.origin))


def _use(card: Card) -> Iterator[str]:
    size, classes = card.resolution, card.trained_on.classes
    turned = "turned as its EXIF tag says" if card.exif == APPLY else "taken as it lies in the file, whatever EXIF says"
    yield f"A picture is {turned}, and laid on white where it is transparent;"
    yield "values of more than 8 bits are scaled to 8."
    yield f"Input: `images`, (N, 3, {size}, {size}) float32. The shorter side of a picture is resized to"
    yield f"{round(size / CROP_FRACTION)} pixels and the center cut out; one of {THUMBNAIL} or less to {size}, uncut."
    yield f"RGB in [0, 1], less the mean {list(MEAN)}, divided by {list(STD)}."
    names = "" if classes else "; their names are not recorded"
    if any(name.endswith((".xml", ".pte", ".tflite", ".param")) for name in card.differences):
        yield "OpenVINO, ExecuTorch, LiteRT and ncnn files take one image (N = 1); LiteRT's as (1, H, W, 3), and"
        yield "ExecuTorch's in channels-last memory."
    yield f"Output: `logits`, (N, {card.num_classes}), one per class{names}."
    if classes:
        more = f", ... (all of them in `{CLASSES}`)" if len(classes) > SHOWN_CLASSES else ""
        yield f"In their order: {', '.join(map(_as_code, classes[:SHOWN_CLASSES]))}{more}."
    model = next((name for name in card.differences if name.endswith(".onnx")), None)
    if model is not None:
        yield from ("", "```python", *_program(model, size, card.exif, named=bool(classes)), "```")
        yield from ("", "All of this is in the file's metadata too (`get_modelmeta().custom_metadata_map`).")
    if card.preprocessed is not None:
        yield from (
            "",
            f"`{card.preprocessed.path.name}` does all but the decoding, turning and laying on white itself:",
        )
        yield from ("", "```python", *_short_program(card.preprocessed.path.name, named=bool(classes)), "```")


def _program(model: str, size: int, exif: str, *, named: bool) -> Iterator[str]:
    """Classifies a picture with ONNX Runtime."""
    yield from ("import numpy as np", "import onnxruntime", "from PIL import Image, ImageOps", "")
    yield 'picture = Image.open("picture.jpg")'
    if exif == APPLY:
        yield "picture = ImageOps.exif_transpose(picture)"
    yield 'assert picture.mode not in ("F", "I", "I;16"), "scale it to 8 bits first"'
    yield f'page = Image.new("RGBA", picture.size, {(*BACKGROUND, 255)})'
    yield 'picture = Image.alpha_composite(page, picture.convert("RGBA")).convert("RGB")'
    yield f"border = 0 if min(picture.size) <= {THUMBNAIL} else {(1 - CROP_FRACTION) / 2}"
    yield f"picture = ImageOps.fit(picture, ({size}, {size}), Image.Resampling.BILINEAR, bleed=border)"
    yield f"pixels = (np.asarray(picture) / 255 - {list(MEAN)}) / {list(STD)}"
    yield "images = pixels.transpose(2, 0, 1)[None].astype(np.float32)"
    yield f'(logits,) = onnxruntime.InferenceSession("{model}").run(None, {{"images": images}})'
    if named:
        yield f'classes = open("{CLASSES}", encoding="utf-8").read().strip("\\n").split("\\n")'
        yield "print(classes[logits[0].argmax()])"
    else:
        yield "print(logits[0].argmax())"


def _short_program(model: str, *, named: bool) -> Iterator[str]:
    """The same by the file with preprocessing."""
    yield from ("import json", "import numpy as np", "import onnxruntime", "from PIL import Image", "")
    yield f'session = onnxruntime.InferenceSession("{model}")'
    yield 'image = np.asarray(Image.open("picture.jpg").convert("RGB"))  # (H, W, 3) uint8 of any size'
    yield f'(probabilities,) = session.run(None, {{"{IMAGE}": image}})'
    if named:
        yield 'classes = json.loads(session.get_modelmeta().custom_metadata_map["classes"])'
    best = "classes[probabilities.argmax()]" if named else "probabilities.argmax()"
    yield f"print({best}, probabilities.max())"


def _accuracy(card: Card) -> Iterator[str]:
    if card.random_weights:
        yield "**The weights are random**: the network was exported to try a runtime, and classifies nothing."
        return
    yield from _recorded_accuracy(card)
    for made in card.quantized:
        yield from (
            "",
            f"`{made.path.name}` is the network in 8 bits, calibrated on {made.calibration_images} training",
        )
        yield f"images: top-1 {made.top1_percent:.2f} % on {made.val_images:,} validation images, in float32"
        yield f"{made.float_top1_percent:.2f} %."


def _recorded_accuracy(card: Card) -> Iterator[str]:
    """Of the network as it was trained, by metrics.json next to its weights."""
    if not card.metrics:
        yield "Not recorded next to the weights; `tfnas evaluate` measures it."
        return
    count = f"{card.trained_on.val_images:,} images of " if card.trained_on.val_images else ""
    yield f"Validated on {count}{card.trained_on.name}, {_epoch(card)}:"
    for name, text in (("top1_percent", "top-1 %"), ("top5_percent", "top-5 %"), ("loss", "cross-entropy")):
        if name in card.metrics:
            yield f"- {text}: {card.metrics[name]:.4g}"


def _epoch(card: Card) -> str:
    """Which epoch's weights these are."""
    if card.origin.recipe.get("keep") != "best" or "kept_epoch" not in card.metrics:
        return "after the last epoch"
    kept, epochs = card.metrics["kept_epoch"], card.metrics["epochs"]
    return f"after epoch {kept} of {epochs}, the best on these very images, which flatters"


def _recipe(origin: Origin) -> Iterator[str]:
    if not origin.recipe:
        yield "Not recorded next to the weights."
        return
    rows = {key: value for key, value in origin.recipe.items() if key not in RECIPE_NOTES}
    values = [(name, str(v).lower() if isinstance(v, bool) else v) for name, v in flatten(rows).items()]
    dropout = next((v for k, v in origin.fields.get("params", {}).items() if k.endswith(".dropout")), None)
    yield from _table(("parameter", "value"), [*values, ("dropout", dropout)])


def _latency(card: Card) -> Iterator[str]:
    rows: list[tuple[Any, ...]] = []
    if card.latency_target is not None:
        where = (card.latency_target.device, card.latency_target.how)
        if card.latency_target.target_ms is not None:
            rows.append(("target", *where, f"{card.latency_target.target_ms:.3f}"))
        rows.append(("latency table", *where, f"{card.latency_target.table_ms:.3f}"))
    here = (card.device, f"batch {card.batch_size}, threads {card.threads}")
    rows += [(name, *here, f"{timing.median_ms:.3f}") for name, timing in card.measured.items()]
    yield from _table(("what", "device", "how", "ms"), rows)
    if card.latency_target is not None:
        yield from ("", "Target and table are promises about the table's device and runtime alone.")
    if card.busy:
        yield from ("", "Other programs ran during the measurements of the runtimes, which are too long.")


def _files(card: Card) -> Iterator[str]:
    gaps = {name: f"{gap:.2g}" for name, gap in card.differences.items()}
    made = card.preprocessed
    if made is not None:
        gaps[made.path.name] = f"{made.difference:.2g} of a probability; {made.levels:.2g} of 255 of a pixel"
    gaps |= {made.path.name: f"8 bits: top-1 {-made.drop:+.2f} points" for made in card.quantized}
    names = dict.fromkeys([*gaps, *card.digests])  # the weights of some are a file of their own
    rows = [(f"`{name}`", gaps.get(name, "(weights)"), card.digests.get(name, "")[:16]) for name in names]
    yield from _table(("file", "largest difference of a logit to eager", "SHA-256 begins"), rows)


def _provenance(origin: Origin) -> Iterator[str]:
    fields = origin.fields
    if not fields:
        yield "There is no provenance.json next to the weights."
        return
    for name in ("stage", "created", "git_commit", "params_digest", "device", "mlflow_run_id"):
        yield f"- {name}: {fields.get(name)}"
    yield "- packages: " + ", ".join(f"{name} {version}" for name, version in fields.get("packages", {}).items())
    for path, digest in fields.get("inputs", {}).items():
        yield f"- input `{path}`: SHA-256 {digest[:16]}..."


def _as_code(name: str) -> str:
    """A name in Markdown, verbatim: no markup, no mathematics."""
    fence = "`" * (1 + max(map(len, re.findall("`+", name)), default=0))
    inner = f" {name} " if name.startswith("`") or name.endswith("`") else name
    return f"{fence}{inner}{fence}"


def _table(head: Sequence[str], rows: Sequence[Sequence[Any]]) -> Iterator[str]:
    yield "| " + " | ".join(head) + " |"
    yield "|" + "---|" * len(head)
    for row in rows:
        yield "| " + " | ".join(str(cell) for cell in row) + " |"


@dataclass(frozen=True)
class LatencyTarget:
    """What the search aimed at: the target and the table's latency, on the table's device."""

    table_ms: float
    target_ms: float | None
    device: str
    batch_size: int
    how: str  # batch, threads and runtime, for a reader


def read_latency_target(
    architecture: Architecture, file: Path | None, table: str | Path | None
) -> LatencyTarget | None:
    """From the latency table, and from the metrics.json that derive wrote next to the architecture's file.

    None where no table is known, or where derive found the network outside of its space.

    Args:
        table: latency_table.json, or a shipped table's name; None for the one that the provenance next to `file` names.

    Raises:
        UserError: a file is damaged, or the table has no such operation.
    """
    beside = read_origin(file) if file is not None else None
    if table is None and beside is not None:
        table = beside.input_named("latency_table.json")
    if table is None:
        return None
    found = open_table(table)
    target_ms = None
    if file is not None and beside is not None and beside.stage == "derive":
        derived = read_json(file.with_name("metrics.json"))
        if "table_latency_ms" not in derived:  # a given network outside of the table's space
            return None
        target_ms = derived.get("target_ms")
    return LatencyTarget(found.latency_ms(architecture), target_ms, found.device, found.batch_size, _how(found))


def _how(table: LatencyTable) -> str:
    """Batch, threads and runtime; external tables may not record the latter two."""
    threads, backend = table.details.get("threads"), table.details.get("backend")
    parts = [f"batch {table.batch_size}"]
    parts += [f"threads {threads}"] if threads else []
    return ", ".join(parts + ([str(backend)] if backend else []))


@dataclass(frozen=True)
class Measured:
    """Each runtime's latency on this machine, and the share of the time in which this process computed."""

    timings: Mapping[str, Timing]
    cpu_share: float

    @property
    def busy(self) -> bool:
        """Whether other programs took so much of the processor that the latencies are too long."""
        return self.cpu_share < BUSY_SHARE


def measure(runners: Mapping[str, Runner], resolution: int, *, batch_size: int, threads: int, repeats: int) -> Measured:
    """Each runner on one batch, measured in turn so that a disturbance affects all of them equally."""
    images = torch.randn(batch_size, 3, resolution, resolution, generator=torch.Generator().manual_seed(0))
    timer = Timer(torch.device("cpu"), WARMUP_RUNS)
    rounds: dict[str, list[list[float]]] = {name: [] for name in runners}
    with measuring(threads):
        start, start_computed = time.perf_counter(), time.thread_time()
        for _ in range(ROUNDS):
            for name, runner in runners.items():
                rounds[name].append(timer.samples_ms(partial(runner, images), repeats))
        share = (time.thread_time() - start_computed) / (time.perf_counter() - start)
    return Measured({name: Timing.of_rounds(samples) for name, samples in rounds.items()}, share)
