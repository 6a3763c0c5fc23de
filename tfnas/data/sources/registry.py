"""The data sets that can be searched and trained on, each described by one row; nothing else asks which one it is."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from tfnas.data.images.stores import FOLDER
from tfnas.data.manifest import Listing
from tfnas.data.params import PrepareDataParams
from tfnas.data.sources.cifar_files import FORMATS, check_transfer_set, list_cifar
from tfnas.data.sources.fashion_mnist import FASHION_MNIST, check_fashion_mnist, list_fashion_mnist
from tfnas.data.sources.image_folder import check_image_folder, scan_image_folder
from tfnas.data.sources.imagenet import check_imagenet, scan_imagenet
from tfnas.jobs.errors import UserError


@dataclass(frozen=True)
class Source:
    """A data set that lies on disk."""

    store: str  # how its images are read, `tfnas.data.images.stores`
    check: Callable[[Path], None]  # before any work; raises UserError
    scan: Callable[[Path, PrepareDataParams], Listing]
    download: Callable[[Path], None] | None = None  # None: it cannot be downloaded


def _scan_folder(root: Path, params: PrepareDataParams) -> Listing:
    return scan_image_folder(root, val_fraction=params.val_fraction)


def _cifar(dataset: str) -> Source:
    return Source(
        store=dataset,
        check=partial(check_transfer_set, dataset),
        scan=lambda root, _: Listing(list_cifar(root, dataset), []),
        download=partial(download_cifar, dataset),
    )


def download_cifar(dataset: str, root: Path) -> None:
    """Let torchvision download and unpack a CIFAR set, unless it is there; checks its MD5.

    Raises:
        UserError: no network; says where to put the file by hand.
    """
    from torchvision import datasets

    classes = {"cifar10": datasets.CIFAR10, "cifar100": datasets.CIFAR100}
    form = FORMATS[dataset]
    _download(dataset, classes[dataset], root, f"unpack {form.archive} in {root}, so that it holds {form.folder}")


def download_fashion_mnist(root: Path) -> None:
    """Let torchvision download Fashion-MNIST, unless it is there; checks its MD5.

    Raises:
        UserError: no network; says what to install instead.
    """
    from torchvision import datasets

    instead = "`apt-get install dataset-fashion-mnist` and write prepare_data.root: null"
    _download(FASHION_MNIST, datasets.FashionMNIST, root, instead)


def _download(dataset: str, torchvisions: Callable[..., object], root: Path, instead: str) -> None:
    try:
        torchvisions(str(root), download=True)
    except (OSError, RuntimeError) as error:
        reason = " ".join(str(error).split())
        raise UserError(f"prepare_data.download: {dataset} cannot be downloaded ({reason}); {instead}") from None


def is_there(check: Callable[[Path], None], root: Path) -> bool:
    """Whether a check finds nothing wrong."""
    try:
        check(root)
    except UserError:
        return False
    return True


SOURCES = {
    "imagefolder": Source(FOLDER, check_image_folder, _scan_folder),
    "imagenet": Source(FOLDER, check_imagenet, lambda root, _: scan_imagenet(root)),
    "cifar10": _cifar("cifar10"),
    "cifar100": _cifar("cifar100"),
    FASHION_MNIST: Source(
        store=FASHION_MNIST,
        check=check_fashion_mnist,
        scan=lambda root, _: Listing(list_fashion_mnist(root), []),
        download=download_fashion_mnist,
    ),
}  # the digits are made, `tfnas.data.sources.digits`
