"""A network out of its files is the network that was written."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from PIL import Image

from tfnas.data import ImageDataset, eval_transform
from tfnas.deploy import classify, load_network
from tfnas.jobs.errors import UserError
from tfnas.space import build_network, zoo
from tfnas.train.weights import save_weights

CLASSES = ["dark", "light", "middle"]


def test_the_same_logits(network, files, architecture) -> None:
    images = torch.randn(3, 3, 16, 16)
    for given in (files[0], str(files[0]), architecture):
        loaded = load_network(given, files[1])
        assert not loaded.training
        assert torch.equal(loaded(images), network(images))


def test_a_published_name(tmp_path) -> None:
    save_weights(build_network(zoo.load("TF-NAS-D"), 5), tmp_path / "weights.pt")
    assert load_network("TF-NAS-D", tmp_path / "weights.pt")(torch.randn(2, 3, 32, 32)).shape == (2, 5)


def test_weights_of_another_network_are_one_line(architecture, files, tmp_path) -> None:
    wider = dataclasses.replace(architecture, head=dataclasses.replace(architecture.head, out_channels=17))
    with pytest.raises(UserError, match=r"weights.pt: head.conv.weight has shape"):
        load_network(wider, files[1])
    torch.save({"other": torch.zeros(1)}, tmp_path / "other.pt")
    with pytest.raises(UserError, match=r"other.pt: has no classifier"):
        load_network(architecture, tmp_path / "other.pt")


def test_classes_are_ranked_by_the_softmax_of_the_logits(network, pictures) -> None:
    path = pictures / "val" / "dark" / "0.png"
    found = classify(network, path, CLASSES, resolution=16)
    image = eval_transform(16)(Image.open(path).convert("RGB"))
    expected = dict(zip(CLASSES, network(image[None])[0].softmax(0).tolist(), strict=True))
    assert dict(found) == pytest.approx(expected)
    assert [p for _, p in found] == sorted(expected.values(), reverse=True) or [p for _, p in found] == pytest.approx(
        sorted(expected.values(), reverse=True)
    )
    assert classify(network, Image.open(path), CLASSES, resolution=16, best=1) == found[:1]


def test_a_picture_is_read_as_in_the_training(network, pictures) -> None:
    """Turned, transparent and deep pictures; a file and an opened picture alike."""
    path, exif = pictures / "turned.png", Image.Exif()
    exif[0x0112] = 6
    pixels = np.random.default_rng(0).integers(0, 256, (20, 30, 4), dtype=np.uint8)
    Image.fromarray(pixels).save(path, exif=exif.tobytes())
    answers = []
    for value in ("apply", "ignore"):
        item = ImageDataset(pictures, [("turned.png", 0)], eval_transform(16), exif=value)[0][0]
        expected = dict(zip(CLASSES, network(item[None])[0].softmax(0).tolist(), strict=True))
        for picture in (path, str(path), Image.open(path)):
            assert dict(classify(network, picture, CLASSES, resolution=16, exif=value)) == pytest.approx(expected)
        answers.append(expected)
    assert answers[0] != answers[1]
    with pytest.raises(UserError, match=r"none\.png: cannot be read as an image"):
        classify(network, pictures / "none.png", CLASSES)
