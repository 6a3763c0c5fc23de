"""Sizes of a run chosen by the number of images: enough steps for few images, the preset's own for many."""

from __future__ import annotations

from collections import Counter
from itertools import pairwise
from pathlib import Path

import pytest

from tfnas.cli.init import sizes
from tfnas.cli.init.presets import Preset, TrainingImages, fit_to_images, load_preset
from tfnas.data.class_accuracy import ClassAccuracy
from tfnas.data.manifest import ManifestRecord
from tfnas.data.subset import build_subset
from tfnas.search.params import SearchParams
from tfnas.search.state import temperature
from tfnas.stages.params import Params, load_params

FEW, SOME, UNEQUAL = (20,) * 7, (250,) * 10, (16, 32, 48, 64, 96, 160, 320)
IMAGENET = (1300,) * 1000


def fitted(counts: tuple[int, ...], folder: Path, share: float = 1.0) -> Params:
    """Preset imagefolder for so many training images of each class."""
    preset: Preset = load_preset("imagefolder")
    paths = [Path("none.jpg")] * sum(counts)
    classes = Counter({f"c{number}": count for number, count in enumerate(counts)})
    fit_to_images(preset, TrainingImages(paths, classes, len(paths) // 4), share)
    (folder / "params.yaml").write_text(preset.render())
    return load_params(folder / "params.yaml")


def steps_of(params: Params, counts: tuple[int, ...]) -> dict[str, int]:
    """All steps of each training."""
    fit, retrain, search = params.rank_classes.fit, params.retrain, params.search
    subset = params.build_subset
    train, _ = sizes.subset_sizes(dict(enumerate(counts)), subset.groups, subset.train_fraction, None)
    return {
        "ranking": fit.epochs * (sum(counts) // fit.batch_size),
        "search": search.epochs * (train // search.batch_size),
        "warm_up": search.warmup_epochs * (train // search.batch_size),
        "retrain": retrain.epochs * (sum(counts) // retrain.batch_size),
    }


@pytest.mark.parametrize("counts", [FEW, SOME, UNEQUAL])
def test_few_images_get_enough_steps(tmp_path, counts) -> None:
    params = fitted(counts, tmp_path)
    steps = steps_of(params, counts)
    assert steps["search"] >= sizes.SEARCH_STEPS and steps["warm_up"] >= sizes.WARM_UP_STEPS
    assert steps["retrain"] >= sizes.RETRAIN_STEPS and steps["ranking"] >= sizes.RANKING_STEPS
    assert params.search.warmup_epochs <= params.search.epochs / 2
    assert sum(counts) // params.retrain.batch_size >= sizes.LEAST_BATCHES - 1


def test_a_class_of_two_is_not_trained_on_forever(tmp_path) -> None:
    params = fitted((2, 2), tmp_path)
    assert params.search.epochs == params.retrain.epochs == sizes.MOST_EPOCHS
    assert params.search.batch_size >= 2 and params.retrain.batch_size >= 2


def test_imagenet_leaves_the_presets_values(tmp_path, load_preset_params) -> None:
    params, preset = fitted(IMAGENET, tmp_path), load_preset_params("imagefolder")
    assert (params.search, params.retrain, params.rank_classes) == (preset.search, preset.retrain, preset.rank_classes)


@pytest.mark.parametrize("counts", [FEW, SOME, UNEQUAL])
@pytest.mark.parametrize("share", [1.0, 0.3])
def test_the_temperature_ends_at_one(tmp_path, counts, share) -> None:
    search: SearchParams = fitted(counts, tmp_path, share).search
    assert temperature(search.epochs - 1, search) == pytest.approx(1.0, rel=0.02)  # the preset's 0.98 is rounded
    assert temperature(search.warmup_epochs, search) == search.temperature.initial


@pytest.mark.parametrize("counts", [FEW, SOME, UNEQUAL])
def test_looking_costs_less_than_learning(tmp_path, counts) -> None:
    params = fitted(counts, tmp_path)
    subset, search = params.build_subset, params.search
    train, val = sizes.subset_sizes(dict(enumerate(counts)), subset.groups, subset.train_fraction, None)
    batches = min(search.evaluation.batches, val // search.batch_size)
    assert batches * search.evaluation.random_paths <= max(train // search.batch_size, 2 * batches)
    assert search.evaluation.random_paths >= 2


@pytest.mark.parametrize(("counts", "sampler"), [((30, 90), "as_is"), ((30, 91), "balanced"), (FEW, "as_is")])
def test_unequal_classes_are_balanced(tmp_path, counts, sampler) -> None:
    params = fitted(counts, tmp_path)
    assert (params.retrain.sampler, params.transfer.sampler) == (sampler, "as_is")


@pytest.mark.parametrize(
    ("counts", "initial"),
    [((299, 300), "supernet"), ((300, 300), "scratch"), ((20, 599), "scratch"), (FEW, "supernet")],
)
def test_few_images_start_from_the_supernets_weights(tmp_path, counts, initial) -> None:
    params = fitted(counts, tmp_path)
    assert (params.retrain.initial, params.search.weight_sharing) == (initial, "entangled")


@pytest.mark.parametrize("counts", [FEW, SOME, UNEQUAL])
def test_a_smaller_share_is_never_longer(tmp_path, counts) -> None:
    runs = [fitted(counts, tmp_path, share) for share in (1.0, 0.7, 0.4, 0.1, 0.001)]
    for longer, shorter in pairwise(runs):
        assert shorter.search.epochs <= longer.search.epochs and shorter.retrain.epochs <= longer.retrain.epochs
        assert shorter.profile_latency.minutes <= longer.profile_latency.minutes
    assert runs[-1].search.epochs == sizes.SHORTEST["search"] and runs[-1].retrain.epochs == sizes.SHORTEST["retrain"]


@pytest.mark.parametrize("counts", [UNEQUAL, (2, 3, 5), (29, 100)])
@pytest.mark.parametrize("most", [None, 40])
def test_the_subset_is_counted_as_it_is_split(counts, most) -> None:
    """Exactly, where all classes are searched."""
    named = {f"c{number}": count for number, count in enumerate(counts)}
    records = [ManifestRecord("train", name, f"{name}/{n}", 1) for name, count in named.items() for n in range(count)]
    accuracies = [ClassAccuracy(name, count, 1) for name, count in named.items()]
    for fraction in (0.8, 0.29):
        subset = build_subset(
            accuracies, records, groups=len(named), train_fraction=fraction, seed=0, images_per_class=most
        )
        assert sizes.subset_sizes(named, 99, fraction, most) == (len(subset.train), len(subset.val))
