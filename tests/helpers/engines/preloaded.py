"""Imported once by the server that engines are forked from: their modules, and YAML texts that were read before.

DVC parses dvc.yaml several times for each stage, in Python; that was a third of a run's time here.
"""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import dvc.cli
import dvc.commands.repro
import dvc.commands.status
import dvc.repo.reproduce
import snakemake.api
import snakemake.cli
import snakemake.persistence.file
import snakemake.workflow
from ruamel.yaml import YAML

import tfnas.engines.sync

__all__ = ["dvc", "snakemake", "tfnas"]

_load, _known = YAML.load, {}


def _load_once(self: YAML, stream: Any) -> Any:
    """As `YAML.load`; a text that was read before is copied, not parsed again."""
    if not isinstance(stream, str):
        return _load(self, stream)
    key = (*self.typ, self.version, stream)
    if key not in _known:
        _known[key] = _load(self, stream)
    return copy.deepcopy(_known[key])


YAML.load = _load_once
YAML(typ="safe").load((Path(__file__).parents[3] / "dvc.yaml").read_text())
