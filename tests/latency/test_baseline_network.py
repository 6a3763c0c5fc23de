"""network.json: what is read is what was written; sizes are those of the networks' own counts."""

from __future__ import annotations

import json

import pytest

from tfnas.jobs.errors import UserError
from tfnas.latency.baseline_network import BaselineNetwork
from tfnas.latency.params import ANY, KNOWN, RANDOM, baseline_kind, known_names
from tfnas.space import count_macs, count_params, zoo

MEMBER = BaselineNetwork(RANDOM, "random_1", architecture=zoo.load("TF-NAS-CPU-B"))
SHRUNK = BaselineNetwork(KNOWN, "mobilenet_v2", width=0.35)


@pytest.mark.parametrize("network", [MEMBER, SHRUNK], ids=["member", "known"])
def test_a_network_is_read_as_it_was_written(network, tmp_path) -> None:
    network.save(tmp_path / "network.json")
    assert BaselineNetwork.load(tmp_path / "network.json") == network


def test_a_members_size_is_what_its_architecture_says() -> None:
    assert MEMBER.size(32, 10) == {
        "params": count_params(MEMBER.architecture, 10),
        "macs": count_macs(MEMBER.architecture, 32, 10),
    }
    wider = BaselineNetwork(KNOWN, "TF-NAS-CPU-B", width=1.0)
    assert wider.size(32, 10) == MEMBER.size(32, 10)


def test_kinds_follow_from_names() -> None:
    assert [baseline_kind(name) for name in ("random_1", "any_20")] == [RANDOM, ANY]
    assert {baseline_kind(name) for name in known_names()} == {KNOWN}
    for name in ("random", "random_01", "any_0", "any_-1", "Mobilenet_v2"):
        with pytest.raises(ValueError, match=f"'{name}' is neither"):
            baseline_kind(name)


@pytest.mark.parametrize(("key", "value"), [("width", None), ("width", -0.5), ("width", True), ("name", "resnet")])
def test_a_damaged_file_is_one_line(key, value, tmp_path) -> None:
    path = tmp_path / "network.json"
    SHRUNK.save(path)
    path.write_text(json.dumps(json.loads(path.read_text()) | {key: value}))
    with pytest.raises(UserError):
        BaselineNetwork.load(path)
