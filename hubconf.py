"""The published networks for torch.hub: `torch.hub.load(FOLDER, "tf_nas_a", source="local")`."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:  # whatever is callable here is an entry point
    from collections.abc import Callable
    from pathlib import Path

    from torch import nn

dependencies = ["torch"]


def _entrypoint(name: str) -> Callable[..., nn.Module]:
    def build(
        num_classes: int = 1000, dropout: float = 0.0, weights: str | Path | None = None, pretrained: bool = False
    ) -> nn.Module:
        from tfnas.jobs.errors import UserError
        from tfnas.space import build_network, zoo

        if pretrained:
            raise UserError(f"torch.hub: {name} has no weights to download; leave pretrained out and pass weights=FILE")
        network = build_network(zoo.load(name), num_classes, dropout)
        if weights is not None:
            _load(network, weights)
        return network

    build.__name__ = name.lower().replace("-", "_")
    build.__doc__ = f"""{name} (ECCV 2020), for normalized (N, 3, 224, 224) images.

    Args:
        num_classes: of the classifier.
        dropout: before the classifier, in training.
        weights: a weights.pt of ours or a .pth.tar of the authors with as many classes; None for fresh weights.
        pretrained: refused, as there is nothing to download.

    Raises:
        UserError: the weights cannot be read, or belong to another network; fewer classes than one.
    """
    return build


def _load(network: nn.Module, path: str | Path) -> None:
    if str(path).endswith(".tar"):
        from tfnas.authors import load_weights as load_authors_weights

        load_authors_weights(network, path)
    else:
        from tfnas.train.weights import load_own_weights

        load_own_weights(network, path)


tf_nas_a = _entrypoint("TF-NAS-A")
tf_nas_b = _entrypoint("TF-NAS-B")
tf_nas_c = _entrypoint("TF-NAS-C")
tf_nas_d = _entrypoint("TF-NAS-D")
tf_nas_a_wose = _entrypoint("TF-NAS-A-wose")
tf_nas_b_wose = _entrypoint("TF-NAS-B-wose")
tf_nas_c_wose = _entrypoint("TF-NAS-C-wose")
tf_nas_d_wose = _entrypoint("TF-NAS-D-wose")
tf_nas_cpu_a = _entrypoint("TF-NAS-CPU-A")
tf_nas_cpu_b = _entrypoint("TF-NAS-CPU-B")
tf_nas_mbv2_a = _entrypoint("TF-NAS-MBV2-A")
tf_nas_mbv2_b = _entrypoint("TF-NAS-MBV2-B")
