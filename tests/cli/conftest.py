"""Presets as parameters."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tfnas.cli.init.presets import render_preset
from tfnas.stages.params import Params, load_params


@pytest.fixture
def load_preset_params(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Params]:
    """A preset read as a user's params.yaml is."""

    def load(name: str) -> Params:
        path: Path = tmp_path_factory.mktemp("preset") / "params.yaml"
        path.write_text(render_preset(name))
        return load_params(path)

    return load
