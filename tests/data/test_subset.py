"""The laws of Appendix B's subset."""

from __future__ import annotations

import csv
import random
import subprocess
import sys
import unicodedata
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tfnas.data.class_accuracy import ClassAccuracy, rank
from tfnas.data.manifest import ManifestRecord
from tfnas.data.subset import (
    Subset,
    build_subset,
    choose_classes,
    cut,
    draw_classes,
    read_class_list,
    split_images,
    without,
)
from tfnas.jobs.errors import UserError

ROOT = Path(__file__).parents[2]
AUTHORS_CLASSES = ROOT.parent / "shared/authors/imagenet100_classes.csv"


def accuracies(num_classes: int) -> list[ClassAccuracy]:
    return [ClassAccuracy(f"c{i:03d}", 50, i * 7 % 51) for i in range(num_classes)]


def manifest(num_classes: int, images: int = 10) -> list[ManifestRecord]:
    return [
        ManifestRecord(split, f"c{i:03d}", f"{split}/c{i:03d}/{number}.png", 1)
        for split in ("train", "val")
        for i in range(num_classes)
        for number in range(images + i % 3)
    ]


def subset(num_classes: int = 20, groups: int = 6, *, seed: int = 0, fraction: float = 0.8) -> Subset:
    return build_subset(
        accuracies(num_classes), manifest(num_classes), groups=groups, train_fraction=fraction, seed=seed
    )


@given(num_classes=st.integers(1, 120), data=st.data())
def test_groups_are_consecutive_and_as_even_as_possible(num_classes: int, data: st.DataObject) -> None:
    groups = data.draw(st.integers(1, num_classes))
    parts = cut(range(num_classes), groups)
    assert [member for part in parts for member in part] == list(range(num_classes))
    assert len(parts) == groups and {len(part) for part in parts} <= {num_classes // groups, -(-num_classes // groups)}


@given(num_classes=st.integers(1, 60), seed=st.integers(0, 10**6), data=st.data())
def test_every_group_gives_one_class(num_classes: int, seed: int, data: st.DataObject) -> None:
    groups = data.draw(st.integers(1, num_classes))
    chosen = draw_classes(accuracies(num_classes), groups, seed=seed)
    assert sorted(row.group for row in chosen) == list(range(1, groups + 1))
    assert [row.label for row in chosen] == list(range(groups))
    assert [row.class_name for row in chosen] == sorted(row.class_name for row in chosen)
    members = cut(rank(accuracies(num_classes)), groups)
    for row in chosen:
        original = next(other for other in members[row.group - 1] if other.class_name == row.class_name)
        assert row.top1 == original.top1


@given(most=st.integers(2, 14), seed=st.integers(0, 99))
def test_fewer_images_per_class_are_a_part_of_all_split_alike(most: int, seed: int) -> None:
    options = {"groups": 6, "train_fraction": 0.8, "seed": seed}
    whole = build_subset(accuracies(20), manifest(20), **options)
    part = build_subset(accuracies(20), manifest(20), images_per_class=most, **options)
    assert part.classes == whole.classes
    assert set(part.train + part.val) <= {*whole.train, *whole.val}
    for chosen in whole.classes:
        counts = [sum(image.label == chosen.label for image in images) for images in (part.train, part.val)]
        available = sum(image.label == chosen.label for image in whole.train + whole.val)
        assert sum(counts) == min(most, available)
        assert counts[0] == min(max(int(0.8 * sum(counts) + 1e-9), 1), sum(counts) - 1)


def test_every_class_of_a_group_can_be_drawn() -> None:
    drawn = [draw_classes(accuracies(20), 5, seed=seed) for seed in range(100)]
    assert {row.class_name for rows in drawn for row in rows} == {row.class_name for row in accuracies(20)}


@given(
    count=st.integers(2, 400), fraction=st.integers(1, 99).map(lambda percent: percent / 100), seed=st.integers(0, 99)
)
@example(count=100, fraction=0.29, seed=0)  # 28.999... in floats
def test_a_split_has_every_image_once_and_the_share_asked_for(count: int, fraction: float, seed: int) -> None:
    paths = [f"train/a/{number}.png" for number in range(count)]
    train, val = split_images(paths, fraction, seed=seed)
    assert sorted(train + val) == sorted(paths)
    assert train == sorted(train) and val == sorted(val)
    share = round(fraction * 100) * count // 100  # in whole numbers
    assert len(train) == min(max(share, 1), count - 1)


@pytest.mark.parametrize("fraction", [0.2, 0.8])
def test_the_split_is_per_class_and_of_training_images_only(fraction: float) -> None:
    chosen = subset(fraction=fraction)
    records = {record.path: record for record in manifest(20)}
    for row in chosen.classes:
        train = [image.path for image in chosen.train if image.class_name == row.class_name]
        val = [image.path for image in chosen.val if image.class_name == row.class_name]
        everything = [r.path for r in records.values() if (r.split, r.class_name) == ("train", row.class_name)]
        assert sorted(train + val) == sorted(everything)
        assert len(train) == int(fraction * len(everything))
    for image in chosen.train + chosen.val:
        assert records[image.path].class_name == image.class_name == chosen.classes[image.label].class_name


def test_the_lists_follow_from_the_seed_and_not_from_any_order() -> None:
    shuffled, rows = manifest(20), accuracies(20)
    random.Random(1).shuffle(shuffled)
    random.Random(2).shuffle(rows)
    random.seed(3)
    assert build_subset(rows, shuffled, groups=6, train_fraction=0.8, seed=0) == subset()
    assert subset(seed=1).classes != subset().classes


def test_the_lists_are_the_same_in_another_process() -> None:
    code = "from tests.data.test_subset import subset; print(subset())"
    options = {"cwd": ROOT, "capture_output": True, "text": True, "check": True, "timeout": 60}
    assert subprocess.run([sys.executable, "-c", code], **options).stdout.strip() == str(subset())


def test_the_draw_of_seed_0_is_kept() -> None:
    """So that another version or machine that drew otherwise would be noticed."""
    assert [row.class_name for row in subset().classes] == ["c000", "c002", "c003", "c006", "c013", "c018"]
    assert split_images([f"{i}.png" for i in range(10)], 0.8, seed=0)[1] == ["2.png", "5.png"]


def test_another_image_moves_no_other() -> None:
    paths = [f"{number}.png" for number in range(50)]
    before, after = split_images(paths, 0.5, seed=0)[0], split_images([*paths, "new.png"], 0.5, seed=0)[0]
    assert len(set(before) ^ set(after) - {"new.png"}) <= 2


def test_mistakes() -> None:
    with pytest.raises(UserError, match=r"build_subset\.groups: 21 groups, but there are 20 classes .* write 20"):
        subset(groups=21)
    with pytest.raises(UserError, match=r"class 'c00\d' has 1 training images; it needs 2"):
        build_subset(accuracies(3), manifest(3, images=1)[:1], groups=3, train_fraction=0.8, seed=0)


@pytest.mark.skipif(not AUTHORS_CLASSES.exists(), reason="needs the authors' class list")
def test_each_class_is_split_as_the_authors() -> None:
    with AUTHORS_CLASSES.open(newline="") as file:
        rows = list(csv.DictReader(file))
    totals = [0, 0]
    for row in rows:
        expected = int(row["train_images"]), int(row["val_images"])
        parts = split_images([f"{row['wnid']}_{i}.JPEG" for i in range(sum(expected))], 0.8, seed=0)
        assert tuple(map(len, parts)) == expected, row["wnid"]
        totals = [total + len(part) for total, part in zip(totals, parts, strict=True)]
    assert totals == [102_170, 25_550]


def chosen_by(strategy: str, groups: int = 6, *, class_list: tuple[str, ...] = (), seed: int = 0) -> list:
    return choose_classes(accuracies(20), groups, strategy=strategy, class_list=class_list, seed=seed)


def test_random_classes_are_any_and_follow_from_the_seed() -> None:
    draws = [[row.class_name for row in chosen_by("random", seed=seed)] for seed in range(200)]
    assert all(len(set(names)) == 6 and names == sorted(names) for names in draws)
    assert draws[0] == [row.class_name for row in chosen_by("random")] != draws[1]
    counts = [sum(row.class_name in names for names in draws) for row in accuracies(20)]
    assert min(counts) > 30 and max(counts) < 90  # 60 each, were they many
    groups = [{row.group for row in chosen_by("random", seed=seed)} for seed in range(50)]
    assert any(len(group) < 6 for group in groups)  # which ranked groups never give
    assert [row.class_name for row in chosen_by("ranked_groups")] == [
        row.class_name for row in draw_classes(accuracies(20), 6, seed=0)
    ]


def test_a_fixed_list_is_taken_as_it_is() -> None:
    rows = chosen_by("class_list", groups=999, class_list=("c007", "c001", "c013"))
    assert [(row.label, row.class_name) for row in rows] == [(0, "c001"), (1, "c007"), (2, "c013")]
    members = cut(rank(accuracies(20)), 3)
    assert all(any(row.class_name == other.class_name for other in members[row.group - 1]) for row in rows)
    with pytest.raises(UserError, match=r"class_list: class 'cats' is not in the data set \(1 of 2 are not\)"):
        chosen_by("class_list", class_list=("c001", "cats"))
    rows = [ClassAccuracy(unicodedata.normalize("NFC", name), 5, 1) for name in ("Küche", "Flur")]
    listed = [unicodedata.normalize("NFD", row.class_name) for row in rows]  # as typed on a Mac
    assert len(choose_classes(rows, 2, strategy="class_list", class_list=listed, seed=0)) == 2


@pytest.mark.parametrize(
    "text", ["c1\nc2\n", "\nc1\n\nc2", "class\nc1\nc2\n", "label,wnid,x\n0,c1,5\n1,c2,6\n", "class,a\nc1,1\nc2,2\n"]
)
def test_lists_of_classes(tmp_path: Path, text: str) -> None:
    (tmp_path / "list").write_text(text)
    assert read_class_list(tmp_path / "list") == ["c1", "c2"]


@pytest.mark.parametrize(
    "text",
    [
        "label;wnid;x\n0;c1;5\n1;c2;6\n",
        "sep=;\nlabel;class\n0;c1\n1;c2\n",
        "Class\tgroup\nc1\t1\nc2\t2\n",
        '"class";"note"\n"c1";"a, b"\n"c2";""\n',
        "class;x\nc1;1\nc2;2\n;\n",
        "c1\nc2\n",
    ],
)
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_lists_of_classes_as_a_spreadsheet_writes_them(tmp_path: Path, text: str, encoding: str, end: str) -> None:
    (tmp_path / "list").write_bytes(text.replace("\n", end).encode(encoding))
    assert read_class_list(tmp_path / "list") == ["c1", "c2"]


def test_a_name_with_a_comma_needs_no_header(tmp_path: Path) -> None:
    (tmp_path / "list").write_text("crane, bird\ncrane; machine\n")
    assert read_class_list(tmp_path / "list") == ["crane, bird", "crane; machine"]


def test_lists_that_are_none(tmp_path: Path) -> None:
    for text, words in [
        ("", "names 0 classes"),
        ("class\nc1\n", "names 1 classes"),
        ("c1\nc1\n", "class 'c1' twice"),
        ("label,class\n0,c1\n1\n2,c2\n", "the line '1' names no class"),
    ]:
        (tmp_path / "list").write_text(text)
        with pytest.raises(UserError, match=rf"list: (names )?{words.removeprefix('names ')}"):
            read_class_list(tmp_path / "list")
    for encoding in ("utf-16", "latin-1"):
        (tmp_path / "list").write_text("für\nc1\n", encoding=encoding)
        with pytest.raises(UserError, match="list: is not UTF-8"):
            read_class_list(tmp_path / "list")
    with pytest.raises(UserError, match=r"none: cannot be read .*class_list"):
        read_class_list(tmp_path / "none")


def test_broken_images_leave_no_trace() -> None:
    whole = subset()
    gone = {whole.train[0].path, whole.val[-1].path}
    left = without(whole, gone)
    assert left.classes == whole.classes
    assert {image.path for image in whole.train + whole.val} - {image.path for image in left.train + left.val} == gone


@pytest.mark.skipif(not AUTHORS_CLASSES.exists(), reason="needs the authors' class list")
def test_the_authors_classes_as_a_fixed_list() -> None:
    names = read_class_list(AUTHORS_CLASSES)
    rows = [ClassAccuracy(name, 1300, number) for number, name in enumerate([*names, "n99999999"])]
    chosen = choose_classes(rows, 1, strategy="class_list", class_list=names, seed=0)
    with AUTHORS_CLASSES.open(newline="") as file:
        assert [(row.class_name, str(row.label)) for row in chosen] == [
            (row["wnid"], row["label"]) for row in csv.DictReader(file)
        ]
