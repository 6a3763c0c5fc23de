"""The digits as files in ImageNet's layout, and the transfer set made of them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_digits as sklearn_digits

from tfnas.data import load_transfer_set
from tfnas.data.sources.digits import load_digits, shift, write_digits, write_shifted_digits
from tfnas.data.sources.image_folder import scan_image_folder
from tfnas.jobs.artifacts import digest_file


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory):
    folder = tmp_path_factory.mktemp("digits")
    return folder, write_digits(folder, 16)


def test_every_digit_is_in_one_split_and_a_fifth_of_each_class_validates() -> None:
    digits, theirs = load_digits(), sklearn_digits()
    assert [digit.number for digit in digits] == list(range(1797))
    assert [digit.label for digit in digits] == theirs.target.tolist()
    for label in range(10):
        splits = [digit.split for digit in digits if digit.label == label]
        assert splits.count("val") == round(0.2 * len(splits))
        assert splits.count("train") == len(splits) - splits.count("val")


def test_pixels_are_scikit_learns() -> None:
    theirs = sklearn_digits().images
    for digit in load_digits()[::100]:
        assert np.abs(digit.pixels / 255 - theirs[digit.number] / 16).max() <= 0.5 / 255
        enlarged = np.asarray(digit.picture(8))
        np.testing.assert_array_equal(enlarged, np.repeat(digit.pixels[:, :, None], 3, axis=2))


def test_the_folder_is_the_layout_that_image_folders_have(written) -> None:
    folder, records = written
    assert records == scan_image_folder(folder).records
    assert len(records) == 1797
    with Image.open(folder / records[0].path) as image:
        assert image.mode == "RGB" and image.size == (16, 16)


def test_the_same_bytes_each_time(written, tmp_path: Path) -> None:
    write_digits(tmp_path, 16)
    assert digest_file(tmp_path) == digest_file(written[0])


def test_shifted_digits_are_the_digits_inverted_and_turned(tmp_path: Path) -> None:
    write_shifted_digits(tmp_path)
    for split, train in (("train", True), ("val", False)):
        mine = load_transfer_set("shifted-digits", tmp_path, train, lambda picture: picture.permute(1, 2, 0).numpy())
        digits = [digit for digit in load_digits() if digit.split == split]
        assert len(mine) == len(digits) and mine.classes == [str(label) for label in range(10)]
        for index in (0, 5, len(mine) - 1):
            image, label = mine[index]
            assert label == digits[index].label
            restored = np.rot90(255 - image, k=-1)
            np.testing.assert_array_equal(restored, np.asarray(digits[index].picture(32)))


def test_shifted_digits_have_the_same_bytes_each_time(tmp_path: Path) -> None:
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        write_shifted_digits(tmp_path / name)
    assert digest_file(tmp_path / "one") == digest_file(tmp_path / "two")


def test_the_shift_is_no_identity_and_keeps_the_size() -> None:
    image = np.random.default_rng(0).integers(0, 256, (32, 32, 3), dtype=np.uint8)
    shifted = shift(image)
    assert shifted.shape == image.shape and (shifted[0, 0] == 255 - image[0, -1]).all()
