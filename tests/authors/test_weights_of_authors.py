"""Their trained weights in our networks, their searched supernet, and files that do not fit."""

from __future__ import annotations

import copy
import os
from collections import OrderedDict

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tfnas.authors import load_weights, read_authors_weights, read_searched_supernet
from tfnas.jobs.errors import UserError
from tfnas.space import build_network, load_space, zoo
from tfnas.space.membership import violations

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
        ([1, 2], "holds no weights by name"),
        ({"epoch": 3}, "holds no 'state_dict'"),
        ({"state_dict": 5}, "holds no weights by name"),
        ({"state_dict": {"classifier.linear.weight": 5}}, "got 'classifier.linear.weight' with a int"),
        ({"state_dict": {3: torch.zeros(1)}}, "got 3 with a Tensor"),
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
        (
            build_network(zoo.load("TF-NAS-CPU-B"), 11),
            "classifier.linear.weight has shape [10, 1280], the network's has [11",
        ),
        (build_network(zoo.load("TF-NAS-CPU-A"), 10), "the network"),
        (build_network(zoo.load("TF-NAS-A"), 10), "the network"),
    ]:
        with pytest.raises(UserError) as caught:
            load_weights(network, path)
        assert words in str(caught.value) and "\n" not in str(caught.value)
    less = {key: value for key, value in checkpoint["state_dict"].items() if "squeeze_excite" not in key}
    with pytest.raises(UserError, match=r"has no blocks.0.squeeze_excite.reduce.weight"):
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


ORDER = ["k3_e3", "k3_e6", "k5_e3", "k5_e6", "k3_e3_se", "k3_e6_se", "k5_e3_se", "k5_e6_se"]


def make_checkpoint(space, seed):
    """What their search saves, with random strengths and masks."""
    generator = torch.Generator().manual_seed(seed)
    candidates = {candidate.name: candidate for candidate in space.candidates}
    order = [candidates[name] for name in ORDER if name in candidates]
    state, masks = OrderedDict(), OrderedDict()
    for number, stage in enumerate(space.searchable_stages, start=1):
        blocks = masks[f"stage{number}"] = OrderedDict()
        state[f"module.stage{number}.betas"] = torch.randn(stage.max_depth, generator=generator)
        for position in range(1, stage.max_depth + 1):
            in_channels = stage.in_channels if position == 1 else stage.out_channels
            state[f"module.stage{number}.block{position}.log_alphas"] = torch.randn(
                len(order), generator=generator
            ).log_softmax(-1)
            state[f"module.stage{number}.block{position}.m_ops.0.depth_conv.conv.weight"] = torch.zeros(2, 1, 3, 3)
            widths = blocks[f"block{position}"] = OrderedDict()
            for i, candidate in enumerate(order):
                low, high = candidate.width_range(in_channels)
                ones = int(torch.randint(low, high + 1, (), generator=generator))
                mask = torch.zeros(high)
                mask[torch.randperm(high, generator=generator)[:ones]] = 1.0
                widths[i] = mask
    return {"state_dict": state, "mc_mask_dddict": masks}


def expected_blocks(space, checkpoint):
    """(stage, kernel, SE, width), decided in plain Python."""
    state = {key.removeprefix("module."): value.tolist() for key, value in checkpoint["state_dict"].items()}
    found = []
    for number, stage in enumerate(space.searchable_stages, start=1):
        betas = state[f"stage{number}.betas"]
        for position in range(1, betas.index(max(betas)) + 2):
            strengths = state[f"stage{number}.block{position}.log_alphas"]
            operation = strengths.index(max(strengths))
            name = ORDER[operation]
            in_channels = stage.in_channels if position == 1 else stage.out_channels
            se_channels = (2 if "e6" in name else 1) * in_channels if "se" in name else 0
            width = sum(checkpoint["mc_mask_dddict"][f"stage{number}"][f"block{position}"][operation].tolist())
            found.append((stage.stage, int(name[1]), se_channels, width))
    return found


@settings(max_examples=12)
@given(name=st.sampled_from(["tf-nas", "tf-nas-wose"]), seed=st.integers(0, 10**6))
def test_the_strongest_network_with_its_widths(tmp_path_factory, name, seed) -> None:
    space, path = load_space(name), tmp_path_factory.mktemp("searched") / "searched_model_90.pth.tar"
    checkpoint = make_checkpoint(space, seed)
    torch.save(checkpoint, path)
    architecture = read_searched_supernet(path, space)
    blocks = [(b.stage, b.kernel, b.se_channels, b.expand_channels) for b in architecture.blocks[1:]]
    assert blocks == expected_blocks(space, checkpoint)
    assert list(violations(architecture, space)) == []
    assert (architecture.name, architecture.space) == ("searched_model_90.pth.tar", name)
    assert read_searched_supernet(path, space, name="mine").name == "mine"


def test_equal_strengths_go_to_the_first(tmp_path) -> None:
    space = load_space("tf-nas")
    checkpoint = make_checkpoint(space, 0)
    for key, value in checkpoint["state_dict"].items():
        if "betas" in key or "alphas" in key:
            checkpoint["state_dict"][key] = torch.zeros_like(value)
    torch.save(checkpoint, tmp_path / "s")
    blocks = read_searched_supernet(tmp_path / "s", space).blocks
    assert [(block.stage, block.kernel, block.se_channels) for block in blocks[1:]] == [(n, 3, 0) for n in range(3, 9)]


def broken(checkpoint, damage):
    checkpoint = copy.deepcopy(checkpoint)
    damage(checkpoint)
    return checkpoint


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda c: c.pop("mc_mask_dddict"), "holds no 'mc_mask_dddict' (the widths)"),
        (lambda c: c.pop("state_dict"), "holds no 'state_dict'"),
        (lambda c: c["state_dict"].pop("module.stage2.betas"), "has no 'stage2.betas'"),
        (lambda c: c["state_dict"].pop("module.stage1.block1.log_alphas"), "has no 'stage1.block1.log_alphas'"),
        (lambda c: c["state_dict"].update({"module.stage2.betas": torch.zeros(4)}), "stage2.betas has shape (4,)"),
        (lambda c: c["mc_mask_dddict"].pop("stage6"), "mc_mask_dddict has no tensor for stage6.block1."),
        (lambda c: c["mc_mask_dddict"].update(stage6=3), "mc_mask_dddict has no tensor for stage6.block1."),
        (
            lambda c: [mask.zero_() for mask in c["mc_mask_dddict"]["stage6"]["block1"].values()],
            "stage6.block1: width 0 of",
        ),
    ],
)
def test_another_file_is_one_line(tmp_path, damage, words) -> None:
    space, path = load_space("tf-nas"), tmp_path / "searched.pth.tar"
    torch.save(broken(make_checkpoint(space, 1), damage), path)
    with pytest.raises(UserError) as caught:
        read_searched_supernet(path, space)
    assert words in str(caught.value)
    assert str(caught.value).startswith(str(path)) and "\n" not in str(caught.value)


def test_a_supernet_of_another_space_says_so(tmp_path) -> None:
    path = tmp_path / "searched.pth.tar"
    torch.save(make_checkpoint(load_space("tf-nas"), 2), path)
    with pytest.raises(UserError, match=r"the space asks for \(4,\); pass its own --space"):
        read_searched_supernet(path, load_space("tf-nas-wose"))
