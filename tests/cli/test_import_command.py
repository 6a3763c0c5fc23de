"""`tfnas import`: each kind of the authors' files becomes ours, or one line says why not."""

from __future__ import annotations

import json
import pickle
import re
from pathlib import Path

import pytest
import torch

from tfnas.cli import main
from tfnas.data.manifest import read_samples
from tfnas.latency import LatencyTable, OperationKey
from tfnas.space import Architecture, build_network, load_space, zoo
from tfnas.train.weights import read_own_weights

GPU_TABLE = Path(__file__).parents[3] / "shared/authors/latency_gpu.pkl"


def import_file(*arguments) -> int:
    return main(["import", *map(str, arguments)])


def full_table(space, resolution=224):
    """A latency pickle with every operation of a space."""
    table = {"base": 1.0}
    for layer in space.layers(resolution):
        if layer.stage > 2:
            for candidate in space.candidates:
                key = OperationKey.of_candidate(layer, candidate)
                name = (
                    f"MBInvertedResBlock_{key.resolution}_{key.in_channels}_{key.se_channels}_{key.out_channels}"
                    f"_k{key.kernel}_s{key.stride}_{key.act}"
                )
                table[name] = {1: 0.1, 8 * key.in_channels: 1.0}
    return table


def test_latency_table(capsys, tmp_path) -> None:
    (tmp_path / "t.pkl").write_bytes(pickle.dumps(full_table(load_space("tf-nas"))))
    assert import_file("latency-table", tmp_path / "t.pkl", "--out", tmp_path / "out/t.json", "--device", "mine") == 0
    table = LatencyTable.load(tmp_path / "out/t.json")
    assert (table.space, table.resolution, table.batch_size, table.device) == ("tf-nas", 224, 32, "mine")
    low, high = table.latency_ms(zoo.load("TF-NAS-D")), table.latency_ms(zoo.load("TF-NAS-A"))
    assert 1.0 < low < high
    assert "66 operations and 1.000 ms of fixed parts (mine)" in capsys.readouterr().out


@pytest.mark.skipif(not GPU_TABLE.is_file(), reason=f"the authors' table is not at {GPU_TABLE}")
def test_the_authors_gpu_table(tmp_path) -> None:
    assert import_file("latency-table", GPU_TABLE, "--out", tmp_path / "t.json") == 0
    assert LatencyTable.load(tmp_path / "t.json").latency_ms(zoo.load("TF-NAS-B")) == pytest.approx(15.0, abs=0.002)


def test_a_table_that_lacks_an_operation_of_the_space(capsys, tmp_path) -> None:
    content = full_table(load_space("tf-nas"))
    del content["MBInvertedResBlock_56_24_48_40_k5_s2_swish"]
    (tmp_path / "t.pkl").write_bytes(pickle.dumps(content))
    assert import_file("latency-table", tmp_path / "t.pkl", "--out", tmp_path / "t.json") == 2
    assert "has no operation k5 s2 24->40 se48 swish at 56x56" in capsys.readouterr().err
    assert not (tmp_path / "t.json").exists()
    without_se = ["--space", "tf-nas-wose"]
    assert import_file("latency-table", tmp_path / "t.pkl", "--out", tmp_path / "t.json", *without_se) == 0


@pytest.fixture
def authors_network(tmp_path):
    """A network of one block a stage as model.config and .pth.tar, and what ours of it is."""
    space = load_space("tf-nas-wose")
    first, *_ = zoo.load("TF-NAS-D-wose").blocks
    by_stage = {block.stage: block for block in zoo.load("TF-NAS-D-wose").blocks}
    blocks = [first, *(by_stage[stage] for stage in range(3, 9))]
    channels = [32, 16, 24, 40, 80, 112, 192]
    plain = {"name": "MBInvertedResBlock", "kernel_size": 3, "stride": 1, "se_channels": 0}
    layers = [
        {
            **plain,
            "in_channels": i,
            "mid_channels": 2 * i if n else i,
            "out_channels": block.out_channels,
            "act_func": block.act,
        }
        for n, (i, block) in enumerate(zip(channels, blocks, strict=True))
    ]
    config = {
        "first_stem": {
            "name": "ConvLayer", "kernel_size": 3, "stride": 2, "in_channels": 3, "out_channels": 32, "act_func": "relu"
        },
        "second_stem": layers[0],
        **{f"stage{n}": [layer] for n, layer in enumerate(layers[1:], start=1)},
        "feature_mix_layer": {"name": "ConvLayer", "out_channels": space.head.out_channels, "act_func": "swish"},
        "classifier": {"name": "LinearLayer"},
    }  # fmt: skip
    path = tmp_path / "model.config"
    path.write_text(json.dumps(config))
    return path


def test_config(capsys, tmp_path, authors_network) -> None:
    out = tmp_path / "architecture.json"
    assert import_file("config", authors_network, "--out", out, "--name", "mine") == 0
    architecture = Architecture.load(out)
    assert (architecture.name, architecture.space, len(architecture.blocks)) == ("mine", "custom", 7)
    assert [block.expand_channels for block in architecture.blocks] == [32, 32, 48, 80, 160, 224, 384]
    assert "mine of space custom" in capsys.readouterr().out


def authors_state(network):
    names = {"stem": "first_stem", "head": "feature_mix_layer", "norm": "bn", "expand": "inverted_bottleneck"}
    names |= {"depthwise": "depth_conv", "project": "point_linear"}
    state = {}
    for key, value in network.state_dict().items():
        parts = key.split(".")
        if parts[0] == "blocks":
            index = int(parts[1])
            parts[:2] = [f"stage{index}", "0"] if index else ["second_stem"]
        state["module." + ".".join(names.get(part, part) for part in parts)] = value
    return state


@pytest.mark.parametrize("how", ["config", "json"])
def test_weights_fit_the_network_that_is_named(capsys, tmp_path, authors_network, how) -> None:
    architecture_file = tmp_path / "architecture.json"
    assert import_file("config", authors_network, "--out", architecture_file) == 0
    torch.manual_seed(0)
    network = build_network(Architecture.load(architecture_file), 4)
    torch.save({"state_dict": authors_state(network)}, tmp_path / "w.pth.tar")
    named = authors_network if how == "config" else architecture_file
    out = tmp_path / "weights.pt"
    assert import_file("weights", tmp_path / "w.pth.tar", "--architecture", named, "--out", out) == 0
    found = read_own_weights(out)
    assert all(torch.equal(value, found[key]) for key, value in network.state_dict().items())
    assert "with 4 classes" in capsys.readouterr().out


def test_weights_of_another_architecture(capsys, tmp_path, authors_network) -> None:
    assert import_file("config", authors_network, "--out", tmp_path / "a.json") == 0
    state = authors_state(build_network(Architecture.load(tmp_path / "a.json"), 4))
    torch.save({"state_dict": state}, tmp_path / "w.pth.tar")
    capsys.readouterr()
    file, out = tmp_path / "w.pth.tar", tmp_path / "w.pt"
    assert import_file("weights", file, "--architecture", "TF-NAS-A", "--out", out) == 2
    message = capsys.readouterr().err
    assert message.count("\n") == 1 and str(file) in message
    del state["module.classifier.linear.weight"]
    torch.save({"state_dict": state}, file)
    assert import_file("weights", file, "--architecture", tmp_path / "a.json", "--out", out) == 2
    assert "has no classifier.linear.weight" in capsys.readouterr().err
    assert not out.exists()


def test_supernet(capsys, tmp_path) -> None:
    space = load_space("tf-nas")
    state, masks = {}, {}
    for number, stage in enumerate(space.searchable_stages, start=1):
        state[f"module.stage{number}.betas"] = torch.arange(float(stage.max_depth), 0, -1)  # depth 1
        state[f"module.stage{number}.block1.log_alphas"] = torch.tensor([0, 0, 0, 0, 0, 1.0, 0, 0])  # k3_e6_se
        width = 5 * stage.in_channels
        mask = torch.cat([torch.ones(width), torch.zeros(8 * stage.in_channels - width)])
        masks[f"stage{number}"] = {"block1": {5: mask}}
    torch.save({"state_dict": state, "mc_mask_dddict": masks}, tmp_path / "s.pth.tar")
    out = tmp_path / "architecture.json"
    assert import_file("supernet", tmp_path / "s.pth.tar", "--out", out, "--name", "found") == 0
    architecture = Architecture.load(out)
    assert [(b.kernel, b.expand_channels, b.se_channels) for b in architecture.blocks[1:]] == [
        (3, 5 * channels, 2 * channels) for channels in (16, 24, 40, 80, 112, 192)
    ]
    assert "found of space tf-nas" in capsys.readouterr().out
    assert import_file("supernet", tmp_path / "s.pth.tar", "--out", out, "--space", "tf-nas-wose") == 2
    assert "pass its own --space" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("prefix", "first"), [(None, "train/n01/a b.JPEG"), ("", "n01/a b.JPEG"), ("x/y", "x/y/n01/a b.JPEG")]
)
def test_image_list(capsys, tmp_path, prefix, first) -> None:
    (tmp_path / "list.txt").write_text("n01/a b.JPEG 0\nn02/c.JPEG 1\nn01/d.JPEG 0\n")
    out = tmp_path / "train.csv"
    options = [] if prefix is None else ["--prefix", prefix]
    assert import_file("image-list", tmp_path / "list.txt", "--out", out, *options) == 0
    assert out.read_text().splitlines()[:2] == ["path,class,label", f"{first},n01,0"]
    assert [label for _, label in read_samples(out)] == [0, 1, 0]
    assert "3 images of 2 classes" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a.JPEG 0\n", "'a.JPEG' lies in no folder"),
        ("n1/a.JPEG 0\nn1/b.JPEG 1\n", "class n1 has label 0 and label 1"),
        ("n1/a.JPEG 0\nn2/b.JPEG 0\n", "label 0 is class n1 and class n2"),
        ("n1/a.JPEG\n", "has no label"),
    ],
)
def test_an_image_list_that_contradicts_itself(capsys, tmp_path, text, words) -> None:
    (tmp_path / "list.txt").write_text(text)
    assert import_file("image-list", tmp_path / "list.txt", "--out", tmp_path / "train.csv") == 2
    assert words in capsys.readouterr().err
    assert not (tmp_path / "train.csv").exists()


KINDS = {
    "latency-table": [],
    "config": [],
    "weights": ["--architecture", "TF-NAS-A"],
    "supernet": [],
    "image-list": [],
}


@pytest.mark.parametrize("kind", sorted(KINDS))
@pytest.mark.parametrize("content", [None, b"", b"hello", b"\x80\x02cposix\nsystem\nq\x00X\x02\x00\x00\x00lsq\x01."])
def test_no_file_of_the_authors_is_one_line_and_writes_nothing(capsys, tmp_path, kind, content) -> None:
    file, out = tmp_path / "file", tmp_path / "out"
    if content is not None:
        file.write_bytes(content)
    assert import_file(kind, file, "--out", out, *KINDS[kind]) == 2
    message = capsys.readouterr().err
    assert message.startswith(f"error: {file}") and message.count("\n") == 1
    assert not out.exists()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["latency-table", "f", "--out", "."], "--out .: is a folder; name a file"),
        (["latency-table", "f", "--out", "o", "--batch-size", "0"], "--batch-size 0: must be 1 or more"),
        (["latency-table", "f", "--out", "o", "--space", "tfnas"], "did you mean 'tf-nas'"),
        (["weights", "f", "--out", "o", "--architecture", "TF-NAS-Z"], "unknown network 'TF-NAS-Z'"),
    ],
)
def test_a_wrong_option_is_one_line(capsys, arguments, words) -> None:
    assert import_file(*arguments) == 2
    assert words in capsys.readouterr().err


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_every_kind_explains_itself(capsys, kind) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["import", kind, "--help"])
    assert caught.value.code == 0
    assert re.search("Convert their|their searched supernet", capsys.readouterr().out)
