"""architecture.json: round trip, and one line for every file that is none."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tfnas.jobs.errors import UserError
from tfnas.space import Architecture, build_network, zoo
from tfnas.space.architecture import first_violation


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(seed=st.integers(0, 2**32 - 1))
def test_round_trip(draw_any, tmp_path, seed) -> None:
    architecture = draw_any(np.random.default_rng(seed))
    path = tmp_path / "architecture.json"
    architecture.save(path)
    assert Architecture.load(path) == architecture
    first = path.read_bytes()
    Architecture.load(path).save(path)
    assert path.read_bytes() == first
    assert [file.name for file in tmp_path.iterdir()] == ["architecture.json"]


def test_extra_facts_travel_but_do_not_count(tmp_path) -> None:
    architecture = dataclasses.replace(zoo.load("TF-NAS-D"), extra={"top1": 74.2})
    architecture.save(tmp_path / "a.json")
    assert Architecture.load(tmp_path / "a.json").extra == {"top1": 74.2}
    assert architecture == zoo.load("TF-NAS-D")


def test_frozen() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        zoo.load("TF-NAS-D").name = "mine"


def test_resolutions_of_blocks_are_those_of_table_14() -> None:
    sizes = [size for size, _ in zoo.load("TF-NAS-A").block_resolutions(224)]
    assert sizes == [112, 112, 56, 56, 28, 28, 28, 14, 14, 14, 14, 14, 14, 14, 14, 7, 7, 7, 7]


def change(payload, path, value):
    *folders, last = path
    for key in folders:
        payload = payload[key]
    payload[last] = value


@pytest.mark.parametrize(
    ("path", "value", "words"),
    [
        (("kind",), "weights", "kind is 'weights', expected 'architecture'"),
        (("format_version",), 99, "format_version is 99"),
        (("blocks",), [], "blocks: the list is empty"),
        (("blocks", 3, "in_channels"), 25, "blocks.3.in_channels: is 25, the part before it gives 24"),
        (("blocks", 0, "in_channels"), 31, "blocks.0.in_channels: is 31, the part before it gives 32"),
        (("blocks", 2, "kernel"), 4, "blocks.2.kernel: expected an odd number"),
        (("blocks", 2, "stride"), 3, "blocks.2.stride: expected 1 or 2, got 3"),
        (("blocks", 2, "expand_channels"), 0, "blocks.2.expand_channels: expected 1 or more, got 0"),
        (("blocks", 2, "expand_channels"), 12.5, "blocks.2.expand_channels: expected a whole number, got 12.5"),
        (("blocks", 2, "expand_channels"), True, "blocks.2.expand_channels: expected a whole number, got True"),
        (("blocks", 2, "se_channels"), -1, "blocks.2.se_channels: expected 0 or more, got -1"),
        (("blocks", 2, "act"), "h-swish", "blocks.2.act: expected one of relu, relu6, swish, got 'h-swish'"),
        (("stem", "act"), ["relu"], "stem.act: expected one of"),
        (("head", "out_channels"), "1280", "head.out_channels: expected a whole number"),
        (("blocks", 2, "residual"), True, "not a complete architecture"),
        (("blocks", 2), {"kernel": 3}, "not a complete architecture"),
        (("blocks",), 5, "not a complete architecture"),
        (("stem",), None, "not a complete architecture"),
    ],
)
def test_a_network_that_cannot_be_built_is_one_line(tmp_path, path, value, words) -> None:
    payload = zoo.load("TF-NAS-A").to_dict()
    change(payload, path, value)
    file = tmp_path / "bad.json"
    file.write_text(json.dumps(payload))
    with pytest.raises(UserError) as caught:
        Architecture.load(file)
    assert words in str(caught.value)
    assert str(caught.value).startswith(str(file)) and "\n" not in str(caught.value)


@pytest.mark.parametrize("text", ["", "{", "[1, 2]", '{"kind": "architecture", "format_version": 1}'])
def test_no_architecture_at_all_is_one_line(tmp_path, text) -> None:
    (tmp_path / "bad.json").write_text(text)
    for path in (tmp_path / "bad.json", tmp_path / "missing.json"):
        with pytest.raises(UserError) as caught:
            Architecture.load(path)
        assert "\n" not in str(caught.value) and str(path) in str(caught.value)


@settings(max_examples=30)
@given(seed=st.integers(0, 2**32 - 1))
def test_without_fault_means_it_can_be_built(draw_any, seed) -> None:
    architecture = draw_any(np.random.default_rng(seed))
    assert first_violation(architecture) is None
    build_network(architecture, 3)
