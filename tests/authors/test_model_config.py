"""Their model.config: round trip of every published network, and one line for each file that is none."""

from __future__ import annotations

import copy
import dataclasses
import json

import pytest

from tfnas.authors import read_config
from tfnas.jobs.errors import UserError
from tfnas.space import zoo


@pytest.fixture
def write(tmp_path):
    def write_json(config):
        path = tmp_path / "model.config"
        path.write_text(config if isinstance(config, str) else json.dumps(config, indent=4))
        return path

    return write_json


@pytest.mark.parametrize("name", zoo.names())
def test_round_trip_of_the_published_networks(config_of, write, name) -> None:
    architecture = zoo.load(name)
    assert read_config(write(config_of(architecture)), name=name) == architecture


def test_the_number_of_classes_does_not_matter(config_of, write) -> None:
    architecture = zoo.load("TF-NAS-D")
    assert read_config(write(config_of(architecture, 10)), name="TF-NAS-D") == architecture


def test_name_and_space(config_of, write) -> None:
    architecture = zoo.load("TF-NAS-D")
    path = write(config_of(architecture))
    assert read_config(path).name == "model.config"
    assert read_config(path, space="mine").space == "mine"
    blocks = list(architecture.blocks)
    blocks[1] = dataclasses.replace(blocks[1], kernel=7)
    own = read_config(write(config_of(dataclasses.replace(architecture, blocks=tuple(blocks)))))
    assert own.space == "custom" and own.blocks[1].kernel == 7


def changed(config, path, value):
    config = copy.deepcopy(config)
    part = config
    *folders, last = path
    for key in folders:
        part = part[key]
    if value is None:
        del part[last]
    else:
        part[last] = value
    return config


@pytest.mark.parametrize(
    ("path", "value", "words"),
    [
        (("second_stem",), None, "second_stem: is missing; expected a MBInvertedResBlock"),
        (("first_stem",), None, "first_stem: is missing; expected a ConvLayer"),
        (("feature_mix_layer",), None, "feature_mix_layer: is missing"),
        (("classifier",), None, "classifier: is missing; expected a LinearLayer"),
        (("stage3",), None, "stage3: expected a list of at least one layer"),
        (("stage3",), [], "stage3: expected a list of at least one layer"),
        (("stage3", 1), "x", "stage3.1: is missing; expected a MBInvertedResBlock"),
        (("stage3", 1, "mid_channels"), None, "stage3.1.mid_channels: is missing"),
        (("stage3", 1, "name"), "IdentityLayer", "stage3.1.name: is 'IdentityLayer', expected 'MBInvertedResBlock'"),
        (("stage3", 1, "groups"), 2, "stage3.1.groups: is 2, expected 1"),
        (("stage3", 1, "bias"), True, "stage3.1.bias: is True, expected False"),
        (("stage3", 1, "act_func"), "h-swish", "act: expected one of relu, relu6, swish, got 'h-swish'"),
        (("stage3", 1, "mid_channels"), "219", "expand_channels: expected a whole number, got '219'"),
        (("stage3", 1, "in_channels"), 81, "in_channels: is 81, the part before it gives 80"),
        (("first_stem", "ops_order"), "bn_act_weight", "first_stem.ops_order: is 'bn_act_weight'"),
        (("feature_mix_layer", "kernel_size"), 3, "feature_mix_layer.kernel_size: is 3, expected 1"),
        (("feature_mix_layer", "in_channels"), 300, "feature_mix_layer.in_channels: is 300, expected 320"),
        (("classifier", "in_features"), 100, "classifier.in_features: is 100, expected 1280"),
    ],
)
def test_a_config_that_is_no_network_of_ours_is_one_line(config_of, write, path, value, words) -> None:
    file = write(changed(config_of(zoo.load("TF-NAS-D")), path, value))
    with pytest.raises(UserError) as caught:
        read_config(file)
    assert words in str(caught.value)
    assert str(caught.value).startswith(str(file)) and "\n" not in str(caught.value)


def test_truncated_missing_or_other_files_are_one_line(config_of, write, tmp_path) -> None:
    text = json.dumps(config_of(zoo.load("TF-NAS-D")))
    for path in (write(text[:-100]), tmp_path / "missing"):
        with pytest.raises(UserError) as caught:
            read_config(path)
        assert "\n" not in str(caught.value) and str(path) in str(caught.value)
    for other in ("[1, 2]", "{}", ""):
        with pytest.raises(UserError) as caught:
            read_config(write(other))
        assert "\n" not in str(caught.value)
