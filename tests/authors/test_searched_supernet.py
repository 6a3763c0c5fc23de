"""Their searched supernet: strongest operation and depth, widths from the masks."""

from __future__ import annotations

import copy
from collections import OrderedDict

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tfnas.authors import read_searched_supernet
from tfnas.jobs.errors import UserError
from tfnas.space import load_space
from tfnas.space.membership import misfits

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


@settings(max_examples=12, deadline=None)
@given(name=st.sampled_from(["tf-nas", "tf-nas-wose"]), seed=st.integers(0, 10**6))
def test_the_strongest_network_with_its_widths(tmp_path_factory, name, seed) -> None:
    space, path = load_space(name), tmp_path_factory.mktemp("searched") / "searched_model_90.pth.tar"
    checkpoint = make_checkpoint(space, seed)
    torch.save(checkpoint, path)
    architecture = read_searched_supernet(path, space)
    blocks = [(b.stage, b.kernel, b.se_channels, b.expand_channels) for b in architecture.blocks[1:]]
    assert blocks == expected_blocks(space, checkpoint)
    assert list(misfits(architecture, space)) == []
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
