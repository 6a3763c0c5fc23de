"""The twelve published networks against the paper's tables, row by row."""

from __future__ import annotations

import pytest

from tfnas.jobs.errors import UserError
from tfnas.space import load_space, zoo
from tfnas.space.membership import violations

COLUMNS = {
    "kernel": "kernel",
    "in": "in_channels",
    "expand": "expand_channels",
    "se": "se_channels",
    "out": "out_channels",
    "act": "act",
    "stride": "stride",
}


def test_the_twelve_names() -> None:
    assert zoo.names() == [
        f"TF-NAS-{suffix}"
        for suffix in (*"ABCD", "A-wose", "B-wose", "C-wose", "D-wose", "CPU-A", "CPU-B", "MBV2-A", "MBV2-B")
    ]


def test_every_row_of_tables_14_to_25(published) -> None:
    assert sorted(published) == sorted(zoo.names())
    for name, rows in published.items():
        blocks = zoo.load(name).blocks
        assert len(blocks) == len(rows), name
        for block, row in zip(blocks, rows, strict=True):
            assert {column: getattr(block, ours) for column, ours in COLUMNS.items()} == row, name


@pytest.mark.parametrize("name", zoo.names())
def test_a_published_network_lies_in_its_space(name) -> None:
    architecture = zoo.load(name)
    assert architecture.name == name
    assert architecture.space == ("tf-nas-wose" if "wose" in name else "mobilenet-v2" if "MBV2" in name else "tf-nas")
    assert list(violations(architecture, load_space(architecture.space))) == []


@pytest.mark.parametrize(
    ("name", "nearest"),
    [("tf_nas_cpu_a", "TF-NAS-CPU-A"), ("TF-NAS-a", "TF-NAS-A"), ("B-wose", "TF-NAS-B-wose")],
)
def test_an_unknown_name_is_one_line_with_the_nearest(name, nearest) -> None:
    with pytest.raises(UserError, match=f"did you mean '{nearest}'") as caught:
        zoo.load(name)
    assert "\n" not in str(caught.value)
