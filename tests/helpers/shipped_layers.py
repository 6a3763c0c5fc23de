"""The searchable layers of all shipped spaces."""

from __future__ import annotations

from tfnas.search.derivation.strongest import searchable_layers
from tfnas.space import Layer, load_space
from tfnas.space.space import shipped_spaces


def distinct_layers() -> dict[str, tuple[str, Layer]]:
    """(space, layer) of every layer that differs from those before it in more than its place and resolution.

    By a name for test ids; spaces that differ in one stride have all other layers in common.
    """
    found: dict[object, tuple[str, Layer]] = {}
    for name in shipped_spaces():
        space = load_space(name)
        for layer in searchable_layers(space):
            found.setdefault((space.candidates, layer[3:]), (name, layer))
    return {f"{name}-{layer.stage}-{layer.position}": (name, layer) for name, layer in found.values()}
