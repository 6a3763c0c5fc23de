"""A folder in ImageNet's layout: what is listed, and each mistake as one line."""

from __future__ import annotations

import os
import shutil
import unicodedata
from pathlib import Path

import pytest
from PIL import Image
from torchvision.datasets import ImageFolder

from tfnas.data import manifest_samples
from tfnas.data.manifest import read_manifest, write_manifest
from tfnas.data.sources.image_folder import announce_left_out, check_image_folder, scan_image_folder
from tfnas.jobs.errors import UserError

WNID = "n01440764"


@pytest.mark.parametrize("split", ["train", "val"])
def test_the_same_images_and_labels_as_torchvisions_image_folder(image_folder: Path, split: str) -> None:
    theirs = ImageFolder(str(image_folder / split))
    samples, classes = manifest_samples(scan_image_folder(image_folder).records, split)
    assert [(str(image_folder / path), label) for path, label in samples] == theirs.samples
    assert classes == theirs.classes


def test_records_give_size_and_place(image_folder: Path) -> None:
    records = scan_image_folder(image_folder).records
    assert records == sorted(records)
    for record in records:
        path = image_folder / record.path
        assert path.stat().st_size == record.bytes
        assert path.parts[-3:-1] == (record.split, record.class_name)


def test_other_files_are_no_images(image_folder: Path) -> None:
    before = scan_image_folder(image_folder)
    folder = image_folder / "train" / WNID
    for name in ("notes.txt", ".hidden.jpg", "Thumbs.db"):
        (folder / name).write_text("text")
    (image_folder / "train" / ".cache").mkdir()
    (image_folder / "train" / "README").write_text("text")
    (folder / ".thumbnails").mkdir()
    after = scan_image_folder(image_folder)
    assert (after.records, after.broken) == (before.records, before.broken)
    assert {(Path(row.path).name, row.reason) for row in after.left_out} == {
        ("notes.txt", "not an image"),
        (".hidden.jpg", "hidden"),
        ("Thumbs.db", "made by the system"),
        (".thumbnails", "hidden"),
        (".cache", "hidden"),
    }


def refused(root: Path, words: str, *, scan: bool = False) -> None:
    with pytest.raises(UserError, match=words) as caught:
        (scan_image_folder if scan else check_image_folder)(root)
    assert "\n" not in str(caught.value)


def test_a_folder_that_may_not_be_entered(image_folder: Path, monkeypatch) -> None:
    """Permissions do not stop the root user, so the answer is made here."""
    allowed = os.access
    for closed in (image_folder, image_folder / "val", image_folder / "train" / WNID):
        monkeypatch.setattr(os, "access", lambda path, mode, closed=closed: path != closed and allowed(path, mode))
        refused(image_folder, rf"{closed.name}: cannot be opened \(Permission denied\); let this user", scan=True)


def test_missing_folders_and_classes(image_folder: Path, tmp_path: Path) -> None:
    refused(tmp_path / "none", r"none: there is no such folder; set prepare_data\.root")
    refused(image_folder / "train" / WNID / f"{WNID}_0.JPEG", r"is a file; prepare_data\.root must be the folder")
    (tmp_path / "no_class" / "train").mkdir(parents=True)
    refused(tmp_path / "no_class", r"no_class/train: holds no class")
    (image_folder / "train" / "extra").mkdir()
    refused(image_folder, r"val: has no folder 'extra', which train/ has; both need the same classes")
    (image_folder / "train" / "extra").rmdir()
    shutil.rmtree(image_folder / "train" / WNID)
    refused(image_folder, rf"train: has no folder '{WNID}', which val/ has")
    shutil.rmtree(image_folder / "val")
    refused(image_folder, r"val: there is no such folder")


def test_classes_without_images(image_folder: Path) -> None:
    for name in ("empty", "text_only"):
        for split in ("train", "val"):
            (image_folder / split / name).mkdir()
    (image_folder / "val" / "text_only" / "a.txt").write_text("x")
    refused(image_folder, r"train/empty: holds no image \(and 3 more\)", scan=True)


def test_what_a_folder_tells_to_be_no_image_is_listed(image_folder: Path) -> None:
    records, folder = scan_image_folder(image_folder).records, image_folder / "train" / WNID
    (folder / "a.jpg").write_bytes(b"")
    (folder / "d.jpg").mkdir()
    (folder / "e.jpg").symlink_to("nowhere")
    (folder / "whole.jpg").symlink_to(folder / f"{WNID}_0.JPEG")
    listing = scan_image_folder(image_folder)
    reasons = {"a.jpg": "is empty", "d.jpg": "is a folder", "e.jpg": "No such file or directory"}
    assert {broken.path: broken.reason for broken in listing.broken} == {
        f"train/{WNID}/{name}": reason for name, reason in reasons.items()
    }
    assert {record.path for record in listing.records} - {record.path for record in records} == {
        f"train/{WNID}/whole.jpg"
    }


def test_a_folder_that_is_not_split_is_split_by_class(tmp_path: Path) -> None:
    counts = {"a": 2, "b": 10, "c": 37}
    for name, count in counts.items():
        for number in range(count):
            path = tmp_path / "own" / name / f"{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(b"x")
    records = scan_image_folder(tmp_path / "own", val_fraction=0.2).records
    assert records == sorted(records)
    assert {(tmp_path / "own" / record.path).is_file() for record in records} == {True}
    val = [record for record in records if record.split == "val"]
    assert [sum(record.class_name == name for record in val) for name in counts] == [1, 2, 7]
    assert len({record.path for record in records}) == len(records) == sum(counts.values())
    (tmp_path / "own" / "b" / "new.png").write_bytes(b"x")
    again = scan_image_folder(tmp_path / "own", val_fraction=0.2).records
    assert len({record for record in again if record.split == "val"} - set(val)) <= 1  # an image moves no other


def test_names_and_folders_that_a_manifest_cannot_hold(image_folder: Path) -> None:
    folder = image_folder / "train" / WNID
    (folder / "sub").mkdir()
    refused(image_folder, r"sub: is a folder; the images of a class lie directly in", scan=True)
    (folder / "sub").rmdir()
    (folder / "two\nlines.jpg").write_bytes(b"")
    refused(image_folder, r"name 'two\\nlines\.jpg' cannot stand in the manifest", scan=True)


def save(path: Path, form: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (32, 32), (200, 10, 10)).save(path, form)


def test_every_format_that_can_be_decoded_is_listed(image_folder: Path) -> None:
    """Whatever its case; a file without suffix by its content."""
    folder = image_folder / "train" / WNID
    formats = {"a.jfif": "JPEG", "b.GIF": "GIF", "c.avif": "AVIF", "d.jpe": "JPEG", "e.jp2": "JPEG2000", "f.qoi": "QOI"}
    bare = {"photo": "JPEG", "scan": "TIFF", "IMG_0001": "PNG", "w": "WEBP"}
    before = {record.path for record in scan_image_folder(image_folder).records}
    for name, form in {**formats, **bare}.items():
        save(folder / name, form)
    (folder / "LICENSE").write_text("text")
    listing = scan_image_folder(image_folder)
    assert {Path(record.path).name for record in listing.records if record.path not in before} == {*formats, *bare}
    assert [(Path(row.path).name, row.reason) for row in listing.left_out] == [("LICENSE", "not an image")]


def test_what_is_left_out_is_said_once_by_suffix_with_the_reason(image_folder: Path, caplog, capsys) -> None:
    folder = image_folder / "train" / WNID
    for number in range(3):
        (folder / f"{number}.heic").write_bytes(b"\0\0\0\x20ftypheic\0\0\0\0")
        (folder / f"{number}.TXT").write_text("text")
    save(folder / "photo.jpg_large", "JPEG")
    (folder / "README").write_text("text")
    (folder / os.fsdecode(b"no utf-8 \xff.txt")).write_text("text")
    listing = scan_image_folder(image_folder)
    announce_left_out(image_folder, listing.left_out, listed="; broken.csv lists them")
    line = capsys.readouterr().err
    assert line.count("\n") == 1 == len(caplog.records)
    for words in (
        "3 .heic (HEIC, which needs the package pillow-heif; install it, or convert the files)",
        "4 .txt (not an image)",
        "1 .jpg_large (JPEG under an unknown suffix; rename the files)",
        "1 without suffix (not an image)",
        "; broken.csv lists them",
    ):
        assert words in line, line
    assert len(listing.left_out) == 9
    announce_left_out(image_folder, [])
    assert not capsys.readouterr().err


JUNK_FOLDERS = ("@eaDir", "__MACOSX", "lost+found", "$RECYCLE.BIN", "System Volume Information", "#recycle", "@TMP")


@pytest.mark.parametrize("name", [*JUNK_FOLDERS, ".ipynb_checkpoints", ".AppleDouble", "__pycache__"])
def test_folders_of_systems_are_skipped_within_and_beside_classes(image_folder: Path, name: str) -> None:
    before = scan_image_folder(image_folder)
    for place in (image_folder, image_folder / "train", image_folder / "train" / WNID):
        save(place / name / "thumbnail.jpg", "JPEG")
    listing = scan_image_folder(image_folder)
    assert listing.records == before.records
    reason = "hidden" if name.startswith(".") else "made by the system"
    assert list(listing.left_out) == [(f"train/{WNID}/{name}", reason), (f"train/{name}", reason)]


ODD_NAMES = (
    "Bildschirmfoto 2026-01-01 um 9.41.00\u202fAM",
    "a\u00a0b",
    "全角\u3000空白",
    "soft\u00adhyphen",
    "👩\u200d💻",
    "\u200fעברית",
    "\ufeffbom",
    "tab\there",
    "line\u2028separator\u2029\u0085\x0b\x0c\x1c",
    'quote"s, commas; and = formulas',
    " spaces ",
    "ÄÖ\u0308",
)


@pytest.mark.parametrize("name", ODD_NAMES)
def test_names_from_every_system_come_back_from_the_manifest(tmp_path: Path, name: str) -> None:
    """As the name of an image, a class, and a file that is no image."""
    for split in ("train", "val"):
        save(tmp_path / "own" / split / name / f"{name}.png", "PNG")
        (tmp_path / "own" / split / name / f"{name}.txt").write_text("text")
    records = scan_image_folder(tmp_path / "own").records
    write_manifest(records, tmp_path / "manifest.csv")
    assert read_manifest(tmp_path / "manifest.csv") == records and len(records) == 2
    assert {record.class_name for record in records} == {unicodedata.normalize("NFC", name)}
    assert all((tmp_path / "own" / record.path).is_file() for record in records)


@pytest.mark.parametrize("name", [b"two\nlines", b"carriage\rreturn", b"latin-1 \xe9"])
def test_a_name_that_no_line_can_hold_is_refused_for_images_and_classes_only(image_folder: Path, name: bytes) -> None:
    before, folder = scan_image_folder(image_folder), image_folder / "train" / WNID
    odd = os.fsdecode(name)
    (folder / f"{odd}.txt").write_text("text")
    (folder / f".{odd}.jpg").write_text("text")
    assert scan_image_folder(image_folder).records == before.records
    save(folder / f"{odd}.jpg", "JPEG")
    refused(image_folder, r"cannot stand in the manifest; rename it", scan=True)
    (folder / f"{odd}.jpg").unlink()
    (image_folder / "train" / odd).mkdir()
    refused(image_folder, r"cannot stand in the manifest; rename it")


def test_a_class_is_the_same_in_both_spellings_of_unicode(tmp_path: Path) -> None:
    """A folder that a Mac packed, beside one that was typed on Linux."""
    names = {"train": "Käse\u0308", "val": unicodedata.normalize("NFD", "Käse\u0308")}
    assert names["train"] != names["val"]
    for split, name in names.items():
        save(tmp_path / split / name / "1.png", "PNG")
        save(tmp_path / split / "other" / "1.png", "PNG")
    records = scan_image_folder(tmp_path).records
    assert records == sorted(records)
    assert {record.class_name for record in records} == {unicodedata.normalize("NFC", names["val"]), "other"}
    assert all((tmp_path / record.path).is_file() for record in records)
    save(tmp_path / "train" / names["val"] / "1.png", "PNG")
    refused(tmp_path, r"train: the folders .*a\\u0308.* are one name in two spellings of Unicode \(NFC and NFD\)")


def test_a_class_of_other_files_only_says_which(image_folder: Path) -> None:
    for split in ("train", "val"):
        (image_folder / split / "documents").mkdir()
        (image_folder / split / "documents" / "a.pdf").write_text("%PDF")
    refused(image_folder, r"train/documents: holds no image \(and 1 more\), but 1 other files, as", scan=True)
