"""How long search, ranking and retraining are, chosen by the number of images; and what few or unequal classes need.

The preset's epochs are those of ImageNet. Where a data set is so small that an epoch is a handful of steps, they end
before anything is learned. The rules, none of which changes a value of the preset on a data set of ImageNet's size:

1. A batch of the ranking and of the retraining has at most an eighth of the images, but SMALLEST_BATCH where it can:
   an epoch of one or two steps is hardly shuffled, and BatchNorm needs some images.
2. Epochs are the preset's, or more until the steps reach a floor: SEARCH_STEPS (preset fashion-mnist's supernet tells
   networks apart after as many), RETRAIN_STEPS, RANKING_STEPS. Beyond MOST_EPOCHS the same images teach little more.
3. Warm-ups keep their share of the epochs; the search's has WARM_UP_STEPS at least, for alpha should not start on a
   supernet that has learned nothing, and half of the epochs at most.
4. Where the search's epochs or its warm-up change, the temperature decays to 1 in the last one, as in the presets for
   short searches.
5. Looking at the accuracy of random networks after an epoch costs no more forward passes than the epoch has steps.
6. `sampler: balanced` where the largest class has more than IMBALANCE times the images of the smallest: otherwise the
   few are hardly seen.
7. `initial: supernet` with fewer than FEW images of a class on average: training from the supernet's weights was better
   by 1.7 points with 200 (docs/measurements.md, "Few images").
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from fractions import Fraction
from typing import TYPE_CHECKING

from tfnas.jobs.sections import spell
from tfnas.train.params import SUPERNET

if TYPE_CHECKING:
    from tfnas.cli.init.presets import Preset

SEARCH_STEPS, WARM_UP_STEPS, RETRAIN_STEPS, RANKING_STEPS = 1_200, 400, 2_000, 100
MOST_EPOCHS = 300
LEAST_BATCHES, SMALLEST_BATCH = 8, 16
IMBALANCE = 3
FEW = 300
SHORTEST = {"search": 8, "retrain": 5}  # epochs that a share of the time leaves at least


def images_of_a_batch(images: int) -> int:
    """Images that a batch may have at most (rule 1)."""
    return max(images // LEAST_BATCHES, min(images, SMALLEST_BATCH))


def subset_sizes(counts: Mapping[str, int], groups: int, train_fraction: float, most: int | None) -> tuple[int, int]:
    """Images of a search that train the weights, and alpha and beta: as `split_images` splits each class.

    Exact where all classes are searched; for some of them, which the ranking draws, their mean share.
    """
    kept = [min(count, most or count) for count in counts.values()]
    trained = [min(max(int(Fraction(str(train_fraction)) * count), 1), count - 1) for count in kept]
    share = min(groups, len(kept)) / len(kept)
    return round(share * sum(trained)), round(share * (sum(kept) - sum(trained)))


def fit_sizes(preset: Preset, counts: Mapping[str, int], share: float = 1.0) -> None:
    """Apply rules 2 to 7; batches are chosen already.

    Args:
        counts: training images of each class.
        share: of the epochs that the rules give, for less time; SHORTEST are left at least.
    """
    _fit_search(preset, counts, share)
    images = sum(counts.values())
    _fit_epochs(preset, "rank_classes.fit", images, RANKING_STEPS, share)
    epochs, old = _fit_epochs(preset, "retrain", images, RETRAIN_STEPS, share)
    _fit(preset, "retrain.warmup_epochs", _share(int(preset.value("retrain.warmup_epochs")), epochs, old))
    if share < 1:
        minutes = float(preset.value("profile_latency.minutes"))
        _fit(preset, "profile_latency.minutes", spell(max(min(1.0, minutes), round(share * minutes, 1))))
    if max(counts.values()) > IMBALANCE * min(counts.values()):
        note = f"[ours] the largest class has {max(counts.values())} images, the smallest {min(counts.values())}"
        _write(preset, "retrain.sampler", "balanced", note)
    if images < FEW * len(counts):
        note = f"[ours] {images / len(counts):.0f} images of a class are few; scratch in [B]"
        _write(preset, "retrain.initial", SUPERNET, note)


def _write(preset: Preset, key: str, value: str, comment: str) -> None:
    preset.replace(key, value)
    preset.entries[key] = preset.entries[key]._replace(comment=comment)


def _fit_search(preset: Preset, counts: Mapping[str, int], share: float) -> None:
    """Epochs, warm-up, temperature and evaluation of the search."""
    most = preset.value("build_subset.images_per_class")
    train, val = subset_sizes(
        counts,
        int(preset.value("build_subset.groups")),
        float(preset.value("build_subset.train_fraction")),
        None if most == "null" else int(most),
    )
    batch_size, old_warm_up = int(preset.value("search.batch_size")), int(preset.value("search.warmup_epochs"))
    steps = max(1, train // batch_size)
    epochs, old = _fit_epochs(preset, "search", train, SEARCH_STEPS, share)
    warm_up = max(_share(old_warm_up, epochs, old), min(math.ceil(WARM_UP_STEPS / steps), epochs // 2))
    _fit(preset, "search.warmup_epochs", warm_up)
    if (epochs, warm_up) != (old, old_warm_up):
        initial = float(preset.value("search.temperature.initial"))
        decay = (1 / initial) ** (1 / max(epochs - 1 - warm_up, 1))
        _fit(preset, "search.temperature.decay", spell(round(decay, 5)))
    batches = min(int(preset.value("search.evaluation.batches")), max(1, val // batch_size))
    paths = min(int(preset.value("search.evaluation.random_paths")), max(2, steps // batches))
    _fit(preset, "search.evaluation.random_paths", paths)


def _fit_epochs(preset: Preset, section: str, images: int, floor: int, share: float) -> tuple[int, int]:
    """Rule 2 in a section; its epochs now, and the preset's."""
    old, steps = int(preset.value(f"{section}.epochs")), max(1, images // int(preset.value(f"{section}.batch_size")))
    epochs = max(old, min(math.ceil(floor / steps), MOST_EPOCHS))
    if share < 1:
        epochs = min(epochs, max(SHORTEST.get(section, 1), round(share * epochs)))
    _fit(preset, f"{section}.epochs", epochs)
    return epochs, old


def _share(part: int, epochs: int, old: int) -> int:
    """As large a part of the new epochs as it was of the old ones."""
    return round(part * epochs / old)


def _fit(preset: Preset, key: str, value: int | str) -> None:
    from tfnas.cli.init.presets import fit_value

    fit_value(preset, key, str(value))
