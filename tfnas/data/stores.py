"""Where images lie and how one is read: files in folders, packed files, CIFAR's batches.

A folder of images may hold `source.json`, which says that they lie elsewhere or in another form. The rest of the code
opens the folder and does not ask.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from tfnas.data.cifar_store import CifarStore
from tfnas.data.decoding import APPLY, IGNORE, read_image
from tfnas.data.folders import atomic_folder
from tfnas.data.pack import PackStore
from tfnas.runtime.artifacts import read_json, write_json
from tfnas.runtime.errors import UserError

if TYPE_CHECKING:
    from torch import Tensor

SOURCE = "source.json"
KIND, VERSION = "image_source", 1
FOLDER, PACK = "folder", "pack"
SKIP = "skip"


class Store(Protocol):
    """Opened images."""

    def read(self, path: str) -> Tensor:
        """The picture of a path of the manifest, (3, H, W) uint8.

        Raises:
            UserError: missing or broken; names it.
        """


class FolderStore:
    """One file an image."""

    def __init__(self, root: Path, exif: str = APPLY) -> None:
        self.root, self.exif = root, exif

    def read(self, path: str) -> Tensor:
        return read_image(f"{self.root}/{path}", exif=self.exif)


def open_store(folder: Path, exif: str | None = None) -> tuple[Store, bool]:
    """The images of a folder, and whether those that cannot be read are left out.

    Args:
        exif: apply or ignore EXIF turns of image files; None: as `source.json` says, and apply them without one.

    Raises:
        UserError: a `source.json` that is damaged, or images that are not where it says.
    """
    if not (folder / SOURCE).is_file():
        return FolderStore(folder, exif or APPLY), False
    source = read_json(folder / SOURCE, kind=KIND, version=VERSION)
    return _open(source, folder, exif), source.get("on_bad_image") == SKIP


def describe(store: str, root: str | None, on_bad_image: str, exif: str = APPLY) -> dict[str, Any]:
    """The contents of a source.json.

    Args:
        store: folder, pack, cifar10 or cifar100.
        root: where the images are; None: in the folder that holds the file.
        exif: whether image files are turned as their EXIF tag says.
    """
    source = {"store": store, "root": root, "on_bad_image": on_bad_image, "exif": exif}
    return {"kind": KIND, "format_version": VERSION, **source}


def write_source(folder: Path, description: dict[str, Any]) -> None:
    """A folder that only says where the images are."""
    with atomic_folder(folder) as made:
        write_json(made / SOURCE, description)


def read_source(folder: Path) -> dict[str, Any] | None:
    """What a folder's source.json says; None when it has none, and so holds the images itself."""
    return read_json(folder / SOURCE, kind=KIND, version=VERSION) if (folder / SOURCE).is_file() else None


def image_root(params_root: str | None, images: Path) -> Path:
    """What to open: the folder that a stage wrote when it knows where its images are, else `prepare_data.root`."""
    return images if params_root is None or (images / SOURCE).is_file() else Path(params_root)


def _open(source: dict[str, Any], folder: Path, exif: str | None) -> Store:
    kind = source.get("store")
    root = folder if source.get("root") is None else Path(source["root"])
    if kind == FOLDER:
        return FolderStore(root, exif or source.get("exif", IGNORE))  # as it was before there was a choice
    if kind == PACK:
        return PackStore(root)
    if kind in ("cifar10", "cifar100"):
        return CifarStore(root, kind)
    raise UserError(f"{folder / SOURCE}: store {kind!r} is unknown; run the stage that writes it")
