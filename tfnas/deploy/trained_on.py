"""What data weights were trained and validated on, as far as their provenance and the files that it names still say."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from tfnas.data import eval_transform, load_transfer_set, manifest_samples, read_manifest, transfer_root
from tfnas.deploy.origin import Origin
from tfnas.runtime.artifacts import digest_file
from tfnas.runtime.errors import UserError

SIZE = 32  # of a transform that is not used


@dataclass(frozen=True)
class TrainedOn:
    """A data set.

    Attributes:
        name: for a reader.
        classes: in the order of the network's outputs; empty where they are not known any more.
        val_images: validated on; 0 where that is not known.
    """

    name: str
    classes: tuple[str, ...] = ()
    val_images: int = 0


def read_trained_on(origin: Origin) -> TrainedOn:
    """Names and counts come from files that are still those of the training; of others there are none."""
    if origin.stage == "transfer":
        return _transfer_set(origin)
    source, root = origin.value("prepare_data.source"), origin.value("prepare_data.root")
    if source is None:
        return TrainedOn("unknown data")
    name = "scikit-learn's digits" if source == "digits" else f"{source} in {root}"
    manifest = _unchanged(origin, "manifest.csv")
    if manifest is None:
        return TrainedOn(name)
    samples, classes = manifest_samples(read_manifest(manifest), "val")
    return TrainedOn(name, tuple(classes), len(samples))


def _transfer_set(origin: Origin) -> TrainedOn:
    dataset = origin.dataset
    if dataset is None:
        return TrainedOn("unknown data")
    data = _unchanged(origin, "transfer")
    if data is None:
        return TrainedOn(dataset)
    try:
        root = transfer_root(origin.recipe.get("root"), dataset, data)
        found = load_transfer_set(dataset, root, False, eval_transform(SIZE))
    except UserError:  # not on this machine
        return TrainedOn(dataset)
    return TrainedOn(dataset, tuple(found.classes), len(found))


def _unchanged(origin: Origin, name: str) -> Path | None:
    """An input of the training, where it is still there and the same."""
    path = origin.input_named(name)
    return path if path is not None and digest_file(path) == origin.fields["inputs"][str(path)] else None
