"""A network that params.yaml names: one that the paper publishes, or the user's own file."""

from __future__ import annotations

from pathlib import Path, PurePath

from tfnas.jobs.errors import UserError
from tfnas.space import zoo
from tfnas.space.architecture import Architecture

IMAGE_CHANNELS = 3


def is_file(name_or_file: str) -> bool:
    """Whether a value is a path, and not the name of a published network: it has a folder or ends in .json."""
    path = PurePath(name_or_file)
    return len(path.parts) > 1 or path.suffix == ".json"


def given_network(name_or_file: str, *, key: str) -> Architecture:
    """The network, ready for `build_network` at any resolution: its parts round sizes up, so no map vanishes.

    Args:
        key: of params.yaml, for errors.

    Raises:
        UserError: unknown name (the nearest known one is named); a file that is missing, holds no network that can be
            built, or one that does not take RGB images.
    """
    if is_file(name_or_file) and not Path(name_or_file).is_file():
        raise UserError(f"params.yaml: {key}: {name_or_file}: there is no such file; put it there")
    try:
        network = Architecture.load(name_or_file) if is_file(name_or_file) else zoo.load(name_or_file)
    except UserError as error:
        raise UserError(f"params.yaml: {key}: {error}") from None
    check_rgb(network, f"params.yaml: {key}: {name_or_file}")
    return network


def check_rgb(network: Architecture, source: str | Path) -> None:
    """Raise UserError when a network takes other images than RGB ones.

    Args:
        source: what the message begins with.
    """
    channels = network.stem.in_channels
    if channels != IMAGE_CHANNELS:
        raise UserError(
            f"{source}: stem.in_channels is {channels}, images have {IMAGE_CHANNELS}; name a network of RGB images"
        )
