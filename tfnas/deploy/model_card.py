"""MODEL_CARD.md of an exported network: what it is, how it was made, how good and how fast it is."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tfnas.deploy.latencies import Promised
from tfnas.deploy.origin import Origin
from tfnas.latency.timer import Timing
from tfnas.runtime.artifacts import write_text
from tfnas.space import Architecture, count_macs, count_params

DRAWING = "architecture.svg"
RECIPE_NOTES = ("root", "targets", "datasets", "resolution", "checkpoint_every_steps", "execution")  # not of a recipe


@dataclass(frozen=True)
class Card:
    """What a card says."""

    architecture: Architecture
    resolution: int
    num_classes: int
    metrics: Mapping[str, Any]  # of metrics.json beside the weights; empty where there is none
    origin: Origin
    promised: Promised | None
    device: str  # that the measurements were made on
    batch_size: int
    threads: int
    measured: Mapping[str, Timing]  # by runtime
    differences: Mapping[str, float]  # by file: largest difference to eager
    digests: Mapping[str, str] = field(default_factory=dict)  # SHA-256 by file


def write_card(card: Card, folder: Path) -> None:
    """Write MODEL_CARD.md and the drawing it shows."""
    from tfnas.report.drawing import draw_architecture

    draw_architecture(card.architecture, folder / DRAWING)
    write_text(folder / "MODEL_CARD.md", "\n".join(_lines(card)) + "\n")


def _lines(card: Card) -> Iterator[str]:
    architecture, size = card.architecture, card.resolution
    macs, params = count_macs(architecture, size, card.num_classes), count_params(architecture, card.num_classes)
    yield from (f"# {architecture.name}", "")
    yield f"An image classifier of the search space `{architecture.space}`, found or published by TF-NAS (ECCV 2020):"
    yield f"{macs / 1e6:.1f} M multiply-adds, {params / 1e6:.2f} M parameters, {card.num_classes} classes."
    yield f"Input: (N, 3, {size}, {size}) float32, RGB in [0, 1], normalised by ImageNet's mean and deviation."
    yield from ("Output: (N, classes) logits.", "", f"![architecture]({DRAWING})", "")
    yield from ("## Data and accuracy", "", *_accuracy(card), "")
    yield from ("## Recipe", "", *_recipe(card.origin), "")
    yield from ("## Latency", "", *_latency(card), "")
    yield from ("## Files", "", *_files(card), "")
    yield from ("## Provenance", "", *_provenance(card.origin))


def _accuracy(card: Card) -> Iterator[str]:
    if not card.metrics:
        yield "Not recorded beside the weights; `tfnas evaluate` measures it."
        return
    data = card.origin.fields.get("dataset") or _data(card.origin)
    yield f"Validated on {data}:"
    for name, text in (("top1_percent", "top-1 %"), ("top5_percent", "top-5 %"), ("loss", "cross-entropy")):
        if name in card.metrics:
            yield f"- {text}: {card.metrics[name]:.4g}"


def _data(origin: Origin) -> str:
    source, root = origin.value("prepare_data.source"), origin.value("prepare_data.root")
    if source == "digits":
        return "scikit-learn's digits"
    return f"the validation images of {root}" if source else ", ".join(origin.recipe.get("datasets", ["unknown data"]))


def _recipe(origin: Origin) -> Iterator[str]:
    if not origin.recipe:
        yield "Not recorded beside the weights."
        return
    rows = {key: value for key, value in origin.recipe.items() if key not in RECIPE_NOTES}
    dropout = next((v for k, v in origin.fields.get("params", {}).items() if k.endswith(".dropout")), None)
    yield from _table(("parameter", "value"), [*rows.items(), ("dropout", dropout)])


def _latency(card: Card) -> Iterator[str]:
    rows: list[tuple[Any, ...]] = []
    if card.promised is not None:
        where = (card.promised.device, f"batch {card.promised.batch_size}")
        if card.promised.target_ms is not None:
            rows.append(("target", *where, f"{card.promised.target_ms:.3f}"))
        rows.append(("latency table", *where, f"{card.promised.table_ms:.3f}"))
    here = (card.device, f"batch {card.batch_size}, threads {card.threads}")
    rows += [(name, *here, f"{timing.median_ms:.3f}") for name, timing in card.measured.items()]
    yield from _table(("what", "device", "how", "ms"), rows)


def _files(card: Card) -> Iterator[str]:
    rows = [(f"`{name}`", f"{gap:.2g}", card.digests.get(name, "")[:16]) for name, gap in card.differences.items()]
    yield from _table(("file", "largest difference of a logit to eager", "SHA-256 begins"), rows)


def _provenance(origin: Origin) -> Iterator[str]:
    fields = origin.fields
    if not fields:
        yield "No provenance.json lies beside the weights."
        return
    for name in ("stage", "created", "git_commit", "params_digest", "device", "mlflow_run_id"):
        yield f"- {name}: {fields.get(name)}"
    yield "- packages: " + ", ".join(f"{name} {version}" for name, version in fields.get("packages", {}).items())
    for path, digest in fields.get("inputs", {}).items():
        yield f"- input `{path}`: SHA-256 {digest[:16]}..."


def _table(head: Sequence[str], rows: Sequence[Sequence[Any]]) -> Iterator[str]:
    yield "| " + " | ".join(head) + " |"
    yield "|" + "---|" * len(head)
    for row in rows:
        yield "| " + " | ".join(str(cell) for cell in row) + " |"
