"""What the Snakefile checks before it builds a DAG."""

from __future__ import annotations

import atexit
import os
import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tfnas.data.manifest import FOLDERS, describe_changed_images
from tfnas.engines.calls import SYNCING
from tfnas.engines.dvc_users import let_dvc_in
from tfnas.engines.records import is_running
from tfnas.engines.sync import Synced, catch_up, forget_blessed, is_in_step, sync
from tfnas.runtime.dependencies import check_named_files
from tfnas.runtime.errors import UserError
from tfnas.runtime.params import load_params
from tfnas.runtime.redaction import redact
from tfnas.runtime.schema import Params
from tfnas.space import load_space

PARAMS_FILE = "params.yaml"


def check_place(*folders: Path) -> None:
    """Refuse folders that the programs under us cannot work in.

    Snakemake takes what stands between braces for a name, `PATH` and `PYTHONPATH` part at colons, and MLflow makes no
    database where the path of its own code has a percent sign.

    Raises:
        UserError: such a character in a path.
    """
    for folder, forbidden in (*((folder, "{}:") for folder in folders), (Path(sys.prefix), "%")):
        found = [character for character in forbidden if character in str(folder)]
        if found:
            raise UserError(f"{folder}: the pipeline cannot run where a path has {found[0]} in it; rename that folder")


def check_workdir_params() -> Params:
    """The working directory's params.yaml, checked whole, with its search space.

    Raises:
        UserError: a mistake in the file.
    """
    params = load_params(PARAMS_FILE)
    check_named_files(params, PARAMS_FILE)
    load_space(params.space)
    return params


def check_config(config: Mapping[str, Any]) -> None:
    """Compare Snakemake's `config` with the file.

    Raises:
        UserError: they differ (--config, --configfile), which the scripts and DVC would not see.
    """
    from snakemake.common.configfile import load_configfile

    raw = load_configfile(PARAMS_FILE)
    for key in {*config, *raw}:
        if key not in raw or key not in config or config[key] != raw[key]:
            raise UserError(
                f"{PARAMS_FILE}: --config or --configfile changes {key!r} for Snakemake only, the scripts and DVC read"
                " the file; edit the file, or use `snakemake --directory DIR` with a params.yaml of its own in DIR"
            )


def learn_from_dvc(folder: Path, outputs: Sequence[str]) -> None:
    """Before the DAG is built: bring Snakemake's records up to date where DVC or a hand has changed something.

    Not while another Snakemake runs there, which has files under way.

    Raises:
        UserError: an engine refuses.
    """
    if SYNCING in os.environ or not (folder / ".dvc").is_dir():
        return
    in_step = is_in_step(folder, outputs)
    if is_running(folder):
        if not in_step:
            _say("another Snakemake runs in this folder: results are not compared with DVC's")
        return
    if not in_step:
        from tfnas.engines.dvc_project import open_project

        with open_project(folder) as project:
            synced = catch_up(folder, project)
        _say(_explain(synced))
        _say_refused(synced.refused)
    _say_refused(forget_blessed(folder, outputs))


def say_changed_images(params: Params, folder: Path) -> None:
    """Before the DAG is built: neither engine looks into `prepare_data.root`, and the manifest is of an earlier day."""
    line = describe_changed_images(params.prepare_data.root, folder / "results" / "prepare_data" / FOLDERS)
    if line is not None and SYNCING not in os.environ:
        _say(line)


def tell_dvc(folder: Path) -> None:
    """After a run: commit to DVC what is up to date. A failure is a line and no more: the run's own outcome stands."""
    if SYNCING in os.environ or not (folder / ".dvc").is_dir():
        return
    let_dvc_in()
    try:
        synced = sync(folder)
    except Exception as error:
        _say(f"DVC does not know of these results yet, `tfnas sync` tells it ({error})")
        return
    _say(f"{len(synced.done)} stages are up to date in DVC as well")
    _say_refused(synced.refused)


def _say_refused(reasons: Mapping[str, str]) -> None:
    for job, reason in reasons.items():
        _say(f"{job} was called up to date and is not: {reason}; the next run of Snakemake makes it again")


def repeat_errors(snakemake_logs: Sequence[str]) -> None:
    """Say as this process's last words why jobs failed: Snakemake writes thousands of characters after a job's own."""
    text = "".join(Path(log).read_text(encoding="utf-8", errors="replace") for log in snakemake_logs)
    for line in reversed(failures(text)):  # the last that is registered comes first
        atexit.register(print, line, file=sys.stderr)


def failures(text: str) -> list[str]:
    """One line for each failed job in what Snakemake logged: its own last error, and where its log is."""
    found = re.findall(r"^Error in rule (\w+):\n(?:    .*\n)*?    log: (\S+)", text, re.MULTILINE)
    return [f"error: {_last_error(Path(log))} ({rule}; log: {log})" for rule, log in dict.fromkeys(found)]


def _last_error(log: Path) -> str:
    """A job's last error; of a fault of ours the line that ends the traceback."""
    lines = log.read_text(encoding="utf-8", errors="replace").splitlines() if log.is_file() else []
    errors = [line.partition(" ERROR ")[2] for line in lines if " ERROR " in line]
    if not errors:
        return "the job ended without a word: it was killed, or memory ran out"
    return errors[-1] if errors[-1] != "failed" else next(line for line in reversed(lines) if line.strip())


def _explain(synced: Synced) -> str:
    text = f"results changed outside Snakemake: DVC calls {len(synced.done)} stages up to date"
    if not synced.stale:
        return text
    return (
        f"{text}, {len(synced.stale)} stale; after a git checkout, `tfnas restore` brings back the results that"
        " dvc.lock records"
    )


def _say(line: str) -> None:
    print(f"tfnas: {redact(line)}", file=sys.stderr)
