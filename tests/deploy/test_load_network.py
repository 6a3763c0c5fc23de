"""A network out of its files is the network that was written."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from PIL import Image

from tfnas.data import eval_transform
from tfnas.deploy import classify, load_network
from tfnas.runtime.errors import UserError
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
