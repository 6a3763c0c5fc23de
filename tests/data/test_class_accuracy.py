"""Counting per class against a plain loop, the ranking, and its file."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from tfnas.data.ranking import ClassAccuracy, count_correct, rank, read_class_accuracy, write_class_accuracy
from tfnas.jobs.errors import UserError

CPU = torch.device("cpu")
rows = st.lists(
    st.tuples(st.text('abc,"é', min_size=1, max_size=4), st.integers(1, 6), st.integers(0, 6)).map(
        lambda cells: ClassAccuracy(cells[0], cells[1], min(cells[1], cells[2]))
    ),
    min_size=1,
    max_size=12,
    unique_by=lambda row: row.class_name,
)


@pytest.mark.parametrize("batch_size", [1, 7, 40])
def test_counts_equal_a_plain_loop(batch_size: int) -> None:
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(40, 5, generator=generator)
    labels = torch.randint(4, (40,), generator=generator)  # class 4 has no image
    batches = list(zip(logits.split(batch_size), labels.split(batch_size), strict=True))
    images, correct = count_correct(nn.Identity(), batches, 5, device=CPU, precision="float32")
    for label in range(5):
        mine = [row for row, other in zip(logits.tolist(), labels.tolist(), strict=True) if other == label]
        assert images[label] == len(mine)
        assert correct[label] == sum(row.index(max(row)) == label for row in mine)


def test_counting_is_in_evaluation_mode() -> None:
    network = nn.Dropout(1.0)  # which gives zeros, thus class 0, while training
    images, correct = count_correct(network, [(torch.eye(3), torch.arange(3))], 3, device=CPU, precision="float32")
    assert images == correct == [1, 1, 1]


@given(rows=rows)
def test_ranking_is_by_accuracy_and_then_by_name(rows: list[ClassAccuracy]) -> None:
    ranked = rank(rows)
    assert sorted(ranked) == sorted(rows)
    assert ranked == rank(reversed(rows))
    for better, worse in pairwise(ranked):
        ahead, behind = better.correct * worse.images, worse.correct * better.images
        assert ahead > behind or (ahead == behind and better.class_name < worse.class_name)


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("ranking") / "class_accuracy.csv"


@given(rows=rows)
def test_what_is_written_is_read(path: Path, rows: list[ClassAccuracy]) -> None:
    write_class_accuracy(rank(rows), path)
    assert read_class_accuracy(path) == rank(rows)


def test_top1_is_in_percent(path: Path) -> None:
    write_class_accuracy([ClassAccuracy("a", 8, 6)], path)
    assert path.read_text() == "class,images,correct,top1\na,8,6,75.0\n"


def test_a_damaged_row_names_its_line(path: Path) -> None:
    for row, words in [
        ("b,2,3,150.0", "class 'b' has 3 correct of 2"),
        ("b,0,0,0.0", "class 'b' has 0 correct of 0"),
        ("a,2,1,50.0", "class 'a' is there twice"),
        ("b,two,1,50.0", "'two' is not a whole number"),
    ]:
        path.write_text(f"class,images,correct,top1\na,2,1,50.0\n{row}\n")
        with pytest.raises(UserError, match=rf"class_accuracy\.csv: line 3: {words}"):
            read_class_accuracy(path)
