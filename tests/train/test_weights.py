"""weights.pt: round trip, and one line for every way in which it does not fit."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from tfnas.jobs.errors import UserError
from tfnas.space import build_network
from tfnas.train.weights import load_own_weights, read_own_weights, save_weights


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
