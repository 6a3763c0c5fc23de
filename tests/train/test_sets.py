"""The sets of images that a job trains on, and the network that it is given."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from tfnas.jobs.errors import UserError
from tfnas.train.sets import check_classes, load_architecture, retrain_sets


def test_sets_follow_the_manifest(params, pictures) -> None:
    sets = retrain_sets(params, *pictures)
    assert (len(sets.train), len(sets.val), sets.num_classes) == (24, 9, 3)
    image, label = sets.val[len(sets.val) - 1]
    assert image.shape == (3, 16, 16) and label == 2  # white


def test_rand_augment_changes_training_images_only(params, pictures) -> None:
    extras = params.retrain.extras.model_copy(update={"rand_augment": 15})
    changed = params.model_copy(update={"retrain": params.retrain.model_copy(update={"extras": extras})})
    plain, other = (retrain_sets(some, *pictures) for some in (params, changed))

    def images(dataset, seed: int) -> torch.Tensor:
        torch.manual_seed(seed)
        return torch.stack([dataset[index][0] for index in range(8)])

    assert torch.equal(images(plain.val, 0), images(other.val, 0))
    assert not torch.equal(images(plain.train, 0), images(other.train, 0))
    assert torch.equal(images(other.train, 1), images(other.train, 1))
    assert images(other.train, 1).shape == images(plain.train, 1).shape


def test_classes_must_agree() -> None:
    check_classes(["a", "b"], ["a", "b"], source="m.csv")
    for train, val, words in [
        (["a"], ["a"], "has 1 classes"),
        (["a", "b"], ["a", "c"], "class 'b' is in one"),
        (["a", "b"], [], "class 'a' is in one"),
    ]:
        with pytest.raises(UserError, match=f"^m.csv: .*{words}"):
            check_classes(train, val, source="m.csv")


def test_a_network_of_other_images_is_one_line(architecture, tmp_path) -> None:
    grey = dataclasses.replace(architecture, stem=dataclasses.replace(architecture.stem, in_channels=1))
    grey.save(tmp_path / "grey.json")
    with pytest.raises(UserError, match=r"grey.json: stem.in_channels is 1"):
        load_architecture(tmp_path / "grey.json")
