"""What the Snakefile checks before it builds a DAG."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tfnas.engines.dvc_lock import lock_has_moved
from tfnas.runtime.errors import UserError
from tfnas.runtime.params import load_params, read_yaml
from tfnas.runtime.schema import Params
from tfnas.space import load_space

PARAMS_FILE = "params.yaml"
SYNCING = "TFNAS_SYNCING"  # set by `tfnas sync` for the Snakemake that it calls


def check_workdir_params(config: Mapping[str, Any]) -> Params:
    """The working directory's params.yaml, checked whole.

    Raises:
        UserError: a mistake in the file; or Snakemake's `config` is not the file (--config, --configfile), which
            the scripts and DVC would not see.
    """
    params = load_params(PARAMS_FILE)
    load_space(params.space)
    raw = read_yaml(PARAMS_FILE)
    for key in {*config, *raw}:
        if key not in raw or key not in config or config[key] != raw[key]:
            raise UserError(
                f"{PARAMS_FILE}: --config or --configfile changes {key!r} for Snakemake only, the scripts and DVC read"
                " the file; edit the file, or use `snakemake --directory DIR` with a params.yaml of its own in DIR"
            )
    return params


def check_dvc_is_in_step(folder: Path) -> None:
    """Refuse while DVC has changed results that Snakemake does not know of.

    Raises:
        UserError: dvc.lock has moved since the last `tfnas sync`.
    """
    if SYNCING not in os.environ and lock_has_moved(folder):
        raise UserError(
            "dvc.lock: DVC has changed results since Snakemake last looked; run `tfnas sync` first, which tells"
            " Snakemake what is up to date"
        )
