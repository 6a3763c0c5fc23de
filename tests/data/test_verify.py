"""Images twice, and animated ones: said once, with a bound on what is opened."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from tfnas.data import verify
from tfnas.data.manifest import ManifestRecord
from tfnas.data.sources.image_folder import scan_image_folder
from tfnas.data.verify import HEAD_BYTES, announce_duplicates, announce_kinds, find_duplicates, find_kinds


def records_of(root: Path, contents: dict[str, bytes]) -> list[ManifestRecord]:
    """Files in train/<class>/ and val/<class>/."""
    for path, content in contents.items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_bytes(content)
    return scan_image_folder(root).records


SAME, HEAD = b"picture" * 10, b"h" * HEAD_BYTES
CONTENTS = {
    "train/a/1.png": SAME,
    "train/b/2.png": b"another" * 10,  # of the same size
    "train/b/long 1.png": HEAD + b"1",  # differs after what is compared first
    "val/a/3.png": b"shorter",
    "val/b/long 2.png": HEAD + b"2",
}


def test_files_of_equal_size_or_equal_beginning_are_no_twins(tmp_path: Path, capsys) -> None:
    records = records_of(tmp_path, CONTENTS)
    twins = find_duplicates(tmp_path, records)
    assert (twins.splits, twins.classes, twins.compared, twins.candidates) == ([], [], 4, 4)
    announce_duplicates(tmp_path, records)
    assert not capsys.readouterr().err


def test_images_in_both_splits_and_in_two_classes(tmp_path: Path, caplog, capsys) -> None:
    copies = {
        "val/a/copy.png": SAME,
        "val/b/copy.png": SAME,
        "train/b/long copy.png": HEAD + b"2",
        "train/a/x.png": SAME,
    }
    records = records_of(tmp_path, CONTENTS | copies)
    twins = find_duplicates(tmp_path, records)
    assert {path for path, _ in twins.splits} == {"val/a/copy.png", "val/b/copy.png", "val/b/long 2.png"}
    assert [path for path, _ in twins.classes] == ["val/b/copy.png"]
    announce_duplicates(tmp_path, records)
    line = capsys.readouterr().err
    assert line.count("\n") == 1 == len(caplog.records)
    assert "images of val that are in train as well: 3 (as val/" in line and "images in two classes: 1 (as" in line


def test_no_more_files_than_admitted_are_opened_and_the_largest_first(tmp_path: Path, monkeypatch, capsys) -> None:
    sizes = {f"{split}/a/{size}.png": bytes(size) for size in range(1, 30) for split in ("train", "val")}
    records = records_of(tmp_path, sizes)
    opened: list[str] = []
    monkeypatch.setattr(verify, "_same_content", lambda root, groups, _: (opened.extend(groups), groups)[1])
    twins = find_duplicates(tmp_path, records, most=9)
    assert (twins.compared, twins.candidates) == (8, 58)
    monkeypatch.setattr(verify.find_duplicates, "__defaults__", (9,))
    announce_duplicates(tmp_path, records)
    assert "in 8 of 58 files of equal size" in capsys.readouterr().err
    assert [path for path, _ in twins.splits] == [f"val/a/{size}.png" for size in (29, 28, 27, 26)]


def test_a_file_that_is_gone_is_no_twin(tmp_path: Path) -> None:
    records = records_of(tmp_path, CONTENTS | {"val/a/copy.png": SAME})
    (tmp_path / "val/a/copy.png").unlink()
    assert find_duplicates(tmp_path, records).splits == []


def test_animations_are_said_once(tmp_path: Path, capsys) -> None:
    frames = [Image.fromarray(np.full((32, 32, 3), value, dtype=np.uint8)) for value in (0, 99)]
    for number, name in enumerate(("still.gif", "moving.gif", "moving.webp", "pages.tif")):
        for split in ("train", "val"):
            path = tmp_path / split / "a" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            frames[0].save(path, save_all=True, append_images=frames[1:] if number else [])
    (tmp_path / "train/a/broken.gif").write_bytes(b"GIF89a")
    announce_kinds(tmp_path, scan_image_folder(tmp_path).records, "apply")
    line = capsys.readouterr().err
    assert "whose first frame is used: 6, as train/a/moving.gif" in line and line.count("\n") == 1


def write_kinds(root: Path) -> list[ManifestRecord]:
    """Two images of each kind, a plain one, and one of two kinds."""
    deep = np.full((32, 32), 40_000, dtype=np.uint16)
    plain, clear = Image.new("RGB", (32, 32), "red"), Image.new("RGBA", (32, 32), (9, 9, 9, 0))
    exif = Image.Exif()
    exif[0x0112] = 6
    for split in ("train", "val"):
        folder = root / split / "a"
        folder.mkdir(parents=True, exist_ok=True)
        plain.save(folder / "plain.jpg")
        plain.save(folder / "turned.jpg", exif=exif)
        clear.save(folder / "clear.png")
        clear.save(folder / "both.webp", exif=exif)
        Image.fromarray(deep).save(folder / "deep.png")
        Image.fromarray(deep).save(folder / "deep.tif")
    return scan_image_folder(root).records


def test_each_kind_is_counted_and_said_once(tmp_path: Path, capsys) -> None:
    records = write_kinds(tmp_path)
    kinds = find_kinds(tmp_path, records)
    names = {name: {Path(path).name for path in getattr(kinds, name)} for name in kinds._fields[:4]}
    assert names == {
        "animated": set(),
        "turned": {"turned.jpg", "both.webp"},
        "transparent": {"clear.png", "both.webp"},
        "deep": {"deep.png", "deep.tif"},
    }
    announce_kinds(tmp_path, records, "apply")
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 3 and all(": 4, as train/a/" in line for line in lines)
    assert ["turned by" in lines[0], "on white" in lines[1], "real range" in lines[2]] == [True] * 3


def test_ignored_turns_are_said_to_be_ignored(tmp_path: Path, capsys) -> None:
    announce_kinds(tmp_path, write_kinds(tmp_path), "ignore")
    assert "images not turned by their EXIF orientation: 4" in capsys.readouterr().err


def test_no_more_headers_than_admitted_are_read_and_jpegs_last(tmp_path: Path, monkeypatch, capsys) -> None:
    records = write_kinds(tmp_path)
    monkeypatch.setattr(verify, "MOST_OPENED", 8)
    kinds = find_kinds(tmp_path, records)
    assert (kinds.looked_at, kinds.candidates) == (8, len(records))
    assert len(kinds.deep) == 4 and not any(path.endswith("turned.jpg") for path in kinds.turned)
    announce_kinds(tmp_path, records, "apply")
    assert "(of 8 looked at)" in capsys.readouterr().err
