"""Transfer replaces the classifier and nothing else, and then trains everything."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from tfnas.jobs.errors import UserError
from tfnas.space import build_network
from tfnas.train.training import train
from tfnas.train.weights import replace_classifier, save_weights, transfer_network

CLASSIFIER = {"classifier.linear.weight", "classifier.linear.bias"}


@pytest.fixture
def weights(architecture, tmp_path):
    save_weights(build_network(architecture, 4), tmp_path / "weights.pt")
    return tmp_path / "weights.pt"


def test_all_other_weights_are_kept(architecture, weights) -> None:
    before = torch.load(weights, weights_only=True)
    network = transfer_network(architecture, weights, 6, dropout=0.1, drop_connect=0.2)
    after = network.state_dict()
    assert set(after) == set(before)
    assert {key for key in before if not torch.equal(before[key], after[key])} == CLASSIFIER
    assert network(torch.randn(2, 3, 16, 16)).shape == (2, 6)


def test_the_classifier_is_fresh_even_with_as_many_classes(architecture, weights) -> None:
    before = torch.load(weights, weights_only=True)
    after = transfer_network(architecture, weights, 4, dropout=0.1, drop_connect=0.2).state_dict()
    assert not torch.equal(before["classifier.linear.weight"], after["classifier.linear.weight"])
    assert not after["classifier.linear.bias"].any()


def test_a_replaced_classifier_is_as_a_built_one(architecture) -> None:
    torch.manual_seed(0)
    network = build_network(architecture, 4, dropout=0.3)
    replace_classifier(network, 5)
    assert {key: value.shape for key, value in network.state_dict().items()} == {
        key: value.shape for key, value in build_network(architecture, 5).state_dict().items()
    }
    assert network.classifier.dropout.p == 0.3


def test_every_layer_is_trained(architecture, weights, make_recipe, loaders) -> None:
    network = transfer_network(architecture, weights, 6, dropout=0.0, drop_connect=0.0)
    before = {key: value.clone() for key, value in network.named_parameters()}
    recipe = make_recipe(epochs=1, warmup_epochs=0)
    train(network, *loaders, recipe, name="t", device=torch.device("cpu"), precision="float32", seed=0)
    assert [key for key, value in network.named_parameters() if torch.equal(value, before[key])] == []


def test_the_head_alone_is_trained_on_features_that_stay(architecture, weights, make_recipe, loaders) -> None:
    network = transfer_network(architecture, weights, 6, dropout=0.1, drop_connect=0.5, layers="head")
    before = {key: value.clone() for key, value in network.state_dict().items()}
    recipe = make_recipe(epochs=1, warmup_epochs=0)
    train(network, *loaders, recipe, name="t", device=torch.device("cpu"), precision="float32", seed=0)
    after = network.state_dict()
    assert {key for key in before if not torch.equal(before[key], after[key])} == CLASSIFIER


def test_weights_of_another_architecture_are_one_line(architecture, weights) -> None:
    wider = dataclasses.replace(architecture, head=dataclasses.replace(architecture.head, out_channels=17))
    with pytest.raises(UserError, match=r"head.conv.weight has shape") as caught:
        transfer_network(wider, weights, 6, dropout=0.1, drop_connect=0.2)
    assert "\n" not in str(caught.value)
    torch.save({"other": torch.zeros(1)}, weights)
    with pytest.raises(UserError, match="retrain writes"):
        transfer_network(architecture, weights, 6, dropout=0.1, drop_connect=0.2)
