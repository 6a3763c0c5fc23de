"""weights.pt: round trip, and one line for each file that does not fit; and the network of a transfer made from it."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from tfnas.jobs.errors import UserError
from tfnas.space import build_network
from tfnas.train.loop import Setting, train
from tfnas.train.weights import load_own_weights, read_own_weights, replace_classifier, save_weights, transfer_network


def test_round_trip_gives_the_same_outputs(architecture, tmp_path) -> None:
    network = build_network(architecture, 6).to(memory_format=torch.channels_last)
    with torch.no_grad():
        network(torch.randn(8, 3, 16, 16))  # moves the running statistics
    save_weights(network, tmp_path / "weights.pt")
    other = build_network(architecture, 6)
    load_own_weights(other, tmp_path / "weights.pt")
    for key, value in network.state_dict().items():
        assert torch.equal(value, other.state_dict()[key]), key
    assert [path.name for path in tmp_path.iterdir()] == ["weights.pt"]


def test_the_file_is_plain_and_in_the_usual_order(architecture, tmp_path) -> None:
    network = build_network(architecture, 6).to(memory_format=torch.channels_last)
    save_weights(network, tmp_path / "weights.pt")
    state = torch.load(tmp_path / "weights.pt", weights_only=True)
    assert type(state) is dict
    assert all(value.is_contiguous() for value in state.values())


def test_equal_weights_are_equal_bytes_whatever_the_file_is_called(architecture, tmp_path) -> None:
    network = build_network(architecture, 6)
    save_weights(network, tmp_path / "one.pt")
    save_weights(network, tmp_path / "another.pt")
    assert (tmp_path / "one.pt").read_bytes() == (tmp_path / "another.pt").read_bytes()


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda path: path.unlink(), "cannot be read"),
        (lambda path: path.write_bytes(path.read_bytes()[:2000]), "damaged"),
        (lambda path: path.write_text("hello"), "damaged"),
        (lambda path: path.write_bytes(b""), "damaged"),
        (lambda path: torch.save([1, 2], path), "no file of tensors"),
        (lambda path: torch.save({"a": 1}, path), "weights by name"),
    ],
)
def test_a_damaged_file_is_one_line(architecture, tmp_path, damage, words) -> None:
    path = tmp_path / "weights.pt"
    save_weights(build_network(architecture, 6), path)
    damage(path)
    with pytest.raises(UserError, match=words) as caught:
        read_own_weights(path)
    assert "\n" not in str(caught.value) and str(path) in str(caught.value)


def test_another_network_is_one_line(architecture, tmp_path) -> None:
    path = tmp_path / "weights.pt"
    save_weights(build_network(architecture, 6), path)
    first = dataclasses.replace(architecture.blocks[0], se_channels=0)
    without_se = dataclasses.replace(architecture, blocks=(first, *architecture.blocks[1:]))
    for network, words in [
        (build_network(architecture, 7), "classifier.linear.weight has shape"),
        (build_network(without_se, 6), "has blocks.0.squeeze_excite"),
    ]:
        with pytest.raises(UserError, match=words) as caught:
            load_own_weights(network, path)
        assert "\n" not in str(caught.value) and str(path) in str(caught.value)
    save_weights(build_network(without_se, 6), path)
    with pytest.raises(UserError, match=r"has no blocks.0.squeeze_excite"):
        load_own_weights(build_network(architecture, 6), path)


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
    train(network, loaders, recipe, Setting("t", torch.device("cpu"), "float32", seed=0))
    assert [key for key, value in network.named_parameters() if torch.equal(value, before[key])] == []


def test_the_head_alone_is_trained_on_features_that_stay(architecture, weights, make_recipe, loaders) -> None:
    network = transfer_network(architecture, weights, 6, dropout=0.1, drop_connect=0.5, layers="head")
    before = {key: value.clone() for key, value in network.state_dict().items()}
    recipe = make_recipe(epochs=1, warmup_epochs=0)
    train(network, loaders, recipe, Setting("t", torch.device("cpu"), "float32", seed=0))
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
