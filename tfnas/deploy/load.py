"""A trained network: loaded from its two files, the classes that it sees in a picture, and where its weights come from.

That is said by the `provenance.json` next to the weights.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor, nn

from tfnas.data import eval_transform, load_transfer_set, manifest_samples, read_manifest, transfer_root
from tfnas.data.images.decoding import APPLY, IGNORE, read_image, turned_tensor
from tfnas.jobs.artifacts import PROVENANCE, digest_file, read_json
from tfnas.jobs.errors import UserError
from tfnas.space import Architecture, build_network, zoo
from tfnas.train.weights import CLASSIFIER, fill_network, read_own_weights

SIZE = 32  # of a transform whose images are never read


def load_network(architecture: Architecture | str | Path, weights: str | Path) -> nn.Module:
    """The network in evaluation mode, on the CPU, with as many classes as its weights have.

    Args:
        architecture: an architecture.json, or the name of a published network (`TF-NAS-A`).
        weights: a weights.pt of ours, or a .pth.tar of the authors.

    Raises:
        UserError: a file cannot be read, or the two do not belong together.
    """
    if not isinstance(architecture, Architecture):
        known = str(architecture) in zoo.names()
        architecture = zoo.load(str(architecture)) if known else Architecture.load(architecture)
    state = read_state(weights)
    if CLASSIFIER not in state:
        raise UserError(f"{weights}: has no {CLASSIFIER}; pass the weights of a trained network")
    network = build_network(architecture, len(state[CLASSIFIER]))
    fill_network(network, state, source=str(weights))
    return network.eval()


def read_state(path: str | Path) -> dict[str, Tensor]:
    """The weights in a file of ours or (.tar) of the authors, under our names.

    Raises:
        UserError: missing or damaged.
    """
    if str(path).endswith(".tar"):
        from tfnas.authors import read_authors_weights

        return read_authors_weights(path)
    return read_own_weights(path)


def classify(
    network: nn.Module,
    picture: Image.Image | str | Path,
    classes: Sequence[str],
    *,
    resolution: int = 224,
    best: int = 5,
    exif: str = APPLY,
) -> list[tuple[str, float]]:
    """The most probable classes of a picture and their probabilities, best first.

    Args:
        picture: a picture or its file.
        classes: names in the order of the network's outputs.
        resolution: that the network was trained at.
        exif: apply or ignore the picture's EXIF turn, as `prepare_data.exif` said in the training.

    Raises:
        UserError: the file is missing or broken.
    """
    read = turned_tensor if isinstance(picture, Image.Image) else read_image
    pixels = read(picture, exif=exif)  # type: ignore[operator]
    with torch.inference_mode():
        logits = network.eval()(eval_transform(resolution)(pixels)[None])  # (1, K)
    assert logits.shape[1] == len(classes), f"{logits.shape[1]} outputs, {len(classes)} names"
    probabilities, indices = logits[0].softmax(0).topk(min(best, len(classes)))
    return [(classes[i], p) for i, p in zip(indices.tolist(), probabilities.tolist(), strict=True)]


@dataclass(frozen=True)
class Origin:
    """A provenance file; empty where there is none.

    Attributes:
        folder: that it is in.
    """

    fields: dict[str, Any]
    folder: Path = Path()

    def value(self, key: str, default: Any = None) -> Any:
        """A parameter of the job by its dotted name, as `retrain.batch_size`."""
        found: Any = self.fields.get("params", {})
        if key in found:
            return found[key]
        for part in key.split("."):
            if not isinstance(found, dict) or part not in found:
                return default
            found = found[part]
        return found

    def input_named(self, name: str) -> Path | None:
        """The input file of the job with this name, where it still is: in the project of the provenance.

        Where that was moved away from its inputs, it is looked for in the working directory.
        """
        recorded = self._recorded(name)
        if recorded is None:
            return None
        here = Path.cwd()
        found = next((root for root in (*self.folder.absolute().parents, here) if (root / recorded).exists()), None)
        return None if found is None else Path(recorded) if found == here else found / recorded

    def unchanged_input(self, name: str) -> Path | None:
        """As `input_named`; None also where the file has changed since."""
        path, recorded = self.input_named(name), self._recorded(name)
        return path if path is not None and digest_file(path) == self.fields["inputs"][recorded] else None

    def _recorded(self, name: str) -> str | None:
        return next((path for path in self.fields.get("inputs", {}) if Path(path).name == name), None)

    @property
    def stage(self) -> str | None:
        return self.fields.get("stage")

    @property
    def recipe(self) -> dict[str, Any]:
        """The recipe the weights were trained by; empty where nothing is known."""
        return self.value(self.stage, {}) if self.stage in ("retrain", "transfer") else {}

    @property
    def dataset(self) -> str | None:
        """The data set of a transfer, after which its folder is named; None where it was moved elsewhere."""
        datasets: list[str] = self.recipe.get("datasets", []) if self.stage == "transfer" else []
        if self.folder.absolute().name in datasets:
            return self.folder.absolute().name
        return datasets[0] if len(datasets) == 1 else None

    @property
    def resolution(self) -> int | None:
        """Of the images that the network was trained on."""
        return self.recipe.get("resolution", self.value("resolution"))

    @property
    def exif(self) -> str | None:
        """Whether EXIF turns were applied to the training's images; None where that is not known."""
        settings = self.value("prepare_data")
        return settings.get("exif", IGNORE) if isinstance(settings, dict) else None  # as before the setting existed

    @property
    def eval_batch_size(self) -> int | None:
        """Of the training's own validation, by one process."""
        recipe = self.recipe
        return recipe["batch_size"] // recipe.get("accumulate", 1) if recipe else None


def read_origin(file: str | Path) -> Origin:
    """The provenance of a file that a stage wrote; an empty one where there is none.

    Raises:
        UserError: there is one, and it cannot be read.
    """
    path = Path(file).with_name(PROVENANCE)
    return Origin(read_json(path, kind="provenance", version=1) if path.is_file() else {}, path.parent)


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
    """The data that weights were trained on; names and counts only from files unchanged since the training."""
    if origin.stage == "transfer":
        return _transfer_set(origin)
    source, root = origin.value("prepare_data.source"), origin.value("prepare_data.root")
    if source is None:
        return TrainedOn("unknown data")
    name = "scikit-learn's digits" if source == "digits" else f"{source} in {root}" if root else source
    manifest = origin.unchanged_input("manifest.csv")
    if manifest is None:
        return TrainedOn(name)
    samples, classes = manifest_samples(read_manifest(manifest), "val")
    return TrainedOn(name, tuple(classes), len(samples))


def _transfer_set(origin: Origin) -> TrainedOn:
    dataset = origin.dataset
    if dataset is None:
        return TrainedOn("unknown data")
    data = origin.unchanged_input("transfer")
    if data is None:
        return TrainedOn(dataset)
    try:
        root = transfer_root(origin.recipe.get("root"), dataset, data)
        found = load_transfer_set(dataset, root, False, eval_transform(SIZE))
    except UserError:  # not on this machine
        return TrainedOn(dataset)
    return TrainedOn(dataset, tuple(found.classes), len(found))
