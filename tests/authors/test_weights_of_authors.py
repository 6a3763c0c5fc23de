"""Their trained weights in our networks: names, prefixes, formats, and files that do not fit."""

from __future__ import annotations

import os

import pytest
import torch

from tfnas.authors import load_weights, read_authors_weights
from tfnas.jobs.errors import UserError
from tfnas.space import build_network, zoo

NAMES = ["TF-NAS-A", "TF-NAS-D-wose", "TF-NAS-CPU-B"]


@pytest.fixture(scope="module")
def trained(state_of, randomise):
    """A network with random weights, and what their training script would save of it."""
    torch.manual_seed(0)
    network = randomise(build_network(zoo.load("TF-NAS-CPU-B"), 10))
    checkpoint = {
        "epoch": 250,
        "state_dict": state_of(network),
        "best_acc_top1": 74.4,
        "best_acc_top5": 91.8,
        "optimizer": {"state": {}, "param_groups": [{"lr": 0.2, "params": [0]}]},
    }
    return network, checkpoint


@pytest.fixture
def save(tmp_path):
    def write(checkpoint, **options):
        path = tmp_path / "model_best.pth.tar"
        torch.save(checkpoint, path, **options)
        return path

    return write


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("prefix", ["module.", ""])
def test_every_tensor_arrives_under_our_name(state_of, randomise, save, name, prefix) -> None:
    torch.manual_seed(1)
    network = randomise(build_network(zoo.load(name), 10))
    loaded = build_network(zoo.load(name), 10)
    assert load_weights(loaded, save({"state_dict": state_of(network, prefix)})) is loaded
    for key, value in network.state_dict().items():
        assert torch.equal(loaded.state_dict()[key], value), key


def test_same_logits(trained, save) -> None:
    network, checkpoint = trained
    loaded = load_weights(build_network(zoo.load("TF-NAS-CPU-B"), 10), save(checkpoint)).eval()
    x = torch.randn(2, 3, 64, 64)
    with torch.inference_mode():
        assert torch.equal(loaded(x), network.eval()(x))


def test_the_old_file_format_of_torch_1_1(trained, save) -> None:
    network, checkpoint = trained
    weights = read_authors_weights(save(checkpoint, _use_new_zipfile_serialization=False))
    assert weights.keys() == network.state_dict().keys()


class Runs:
    def __reduce__(self):
        return os.system, ("touch ran",)


@pytest.mark.parametrize("zipped", [True, False])
def test_a_file_that_runs_code_is_refused_by_name(trained, save, monkeypatch, tmp_path, zipped) -> None:
    monkeypatch.chdir(tmp_path)
    path = save({**trained[1], "extra": Runs()}, _use_new_zipfile_serialization=zipped)
    with pytest.raises(UserError, match=r"refers to \w+\.system; .* refused") as caught:
        read_authors_weights(path)
    assert "\n" not in str(caught.value) and str(path) in str(caught.value)
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("zipped", [True, False])
def test_truncated_files_are_one_line(trained, save, zipped) -> None:
    path = save(trained[1], _use_new_zipfile_serialization=zipped)
    whole = path.read_bytes()
    for part in (0.0, 0.001, 0.1, 0.5, 0.99):
        path.write_bytes(whole[: int(part * len(whole))])
        with pytest.raises(UserError) as caught:
            read_authors_weights(path)
        assert "\n" not in str(caught.value) and str(path) in str(caught.value)


@pytest.mark.parametrize(
    ("checkpoint", "words"),
    [
        ([1, 2], "holds no 'state_dict'"),
        ({"epoch": 3}, "holds no 'state_dict'"),
        ({"state_dict": 5}, "holds no 'state_dict'"),
        ({"state_dict": {"classifier.linear.weight": 5}}, "with a int, expected a tensor"),
        ({"state_dict": {3: torch.zeros(1)}}, "state_dict has 3"),
        ({"state_dict": {"layer1.conv.weight": torch.zeros(1)}}, "tensor 'layer1.conv.weight' is in no network"),
        ({"state_dict": {"stage1.0.squeeze_excite.fc.weight": torch.zeros(1)}}, "is in no network of the authors"),
    ],
)
def test_another_checkpoint_is_one_line(save, checkpoint, words) -> None:
    path = save(checkpoint)
    with pytest.raises(UserError) as caught:
        read_authors_weights(path)
    assert words in str(caught.value)
    assert str(caught.value).startswith(str(path)) and "\n" not in str(caught.value)


def test_weights_of_another_network_are_one_line(trained, save) -> None:
    _, checkpoint = trained
    path = save(checkpoint)
    for network, words in [
        (build_network(zoo.load("TF-NAS-CPU-B"), 11), "classifier.linear.weight has shape (10, 1280), the network (11"),
        (build_network(zoo.load("TF-NAS-CPU-A"), 10), "the network"),
        (build_network(zoo.load("TF-NAS-A"), 10), "the network"),
    ]:
        with pytest.raises(UserError) as caught:
            load_weights(network, path)
        assert words in str(caught.value) and "\n" not in str(caught.value)
    less = {key: value for key, value in checkpoint["state_dict"].items() if "squeeze_excite" not in key}
    with pytest.raises(UserError, match=r"has nothing for blocks.0.squeeze_excite.reduce.weight"):
        load_weights(build_network(zoo.load("TF-NAS-CPU-B"), 10), save({"state_dict": less}))


def test_a_network_keeps_its_weights_when_the_file_does_not_fit(trained, save) -> None:
    network = build_network(zoo.load("TF-NAS-CPU-B"), 11)
    before = {key: value.clone() for key, value in network.state_dict().items()}
    with pytest.raises(UserError):
        load_weights(network, save(trained[1]))
    assert all(torch.equal(value, before[key]) for key, value in network.state_dict().items())


def test_a_missing_file_is_one_line(tmp_path) -> None:
    for path in (tmp_path / "missing.pth.tar", tmp_path):
        with pytest.raises(UserError) as caught:
            read_authors_weights(path)
        assert "\n" not in str(caught.value) and str(path) in str(caught.value)
