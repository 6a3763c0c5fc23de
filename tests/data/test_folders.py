"""Folders that are written whole or not at all."""

from __future__ import annotations

from pathlib import Path

import pytest

from tfnas.data.manifest import atomic_folder, write_note


def test_a_new_folder_takes_the_place_of_the_old(tmp_path: Path) -> None:
    for name in ("old.txt", "new.txt"):
        with atomic_folder(tmp_path / "images") as folder:
            (folder / name).write_text(name)
    assert [path.name for path in tmp_path.iterdir()] == ["images"]
    assert [path.name for path in (tmp_path / "images").iterdir()] == ["new.txt"]


def test_a_failure_leaves_the_old_folder(tmp_path: Path) -> None:
    write_note(tmp_path / "images", "old")
    with pytest.raises(RuntimeError), atomic_folder(tmp_path / "images") as folder:
        (folder / "half.png").write_bytes(b"")
        raise RuntimeError
    assert [path.name for path in tmp_path.iterdir()] == ["images"]
    assert (tmp_path / "images" / "README.txt").read_text() == "old\n"
