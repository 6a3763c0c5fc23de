"""`tfnas provenance`: where a result came from, and what an MLflow run left behind."""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from tfnas.jobs.errors import UserError

if TYPE_CHECKING:
    from tfnas.engines.dvc import DvcRecord
    from tfnas.engines.lineage import Lineage, Traced
    from tfnas.tracking.store import RunRecord

HELP = (
    "Show where a result came from (commit, parameters, inputs, device, MLflow run) and whether it still matches what"
    " its job and DVC recorded; or show what an MLflow run left in the results folder."
)
RUN_ID = re.compile(r"[0-9a-f]{32}")
STATES = {
    "same": "as recorded",
    "changed": "CHANGED since",
    "missing": "MISSING",
    "not recorded": "not in dvc.lock; `tfnas sync` or `dvc repro` records it",
    "no DVC project": "no DVC project here",
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("what", metavar="FILE|RUN_ID", help="a file in results/, or an MLflow run id")
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument(
        "--folder", type=Path, default=Path(), help="project folder to look for a run in (default: the current one)"
    )


def run(options: argparse.Namespace) -> None:
    if RUN_ID.fullmatch(options.what) and not Path(options.what).exists():
        lineage, run_record = _from_run(options.what, options.folder)
    else:
        from tfnas.engines.lineage import lineage_of

        lineage = lineage_of(Path(options.what))
        run_record = _run_of(lineage)
    print(as_json(lineage, run_record) if options.json else as_text(lineage, run_record))


def _from_run(run_id: str, folder: Path) -> tuple[Lineage, RunRecord | None]:
    """From the record in the results folder or, if a later run has replaced it, from the copy that MLflow keeps."""
    from tfnas.engines.lineage import lineage_of_record, lineage_of_run
    from tfnas.tracking.store import read_provenance, read_run

    lineage = lineage_of_run(run_id, folder)
    if lineage is not None:
        return lineage, _run_of(lineage)
    record = read_run(run_id, folder)
    if record is None:
        raise UserError(f"{run_id}: neither a job in {folder / 'results'} nor a run in MLflow's store has this id")
    provenance = read_provenance(run_id, folder)
    if provenance is None:
        raise UserError(f"{run_id}: the run {record.name} is {record.status} and recorded no files; see {record.link}")
    return lineage_of_record(provenance, folder.absolute()), record


def _run_of(lineage: Lineage) -> RunRecord | None:
    """The job's run in MLflow; if the store does not answer, the rest is still shown."""
    from tfnas.tracking.store import read_run

    try:
        return read_run(lineage.mlflow_run_id, Path(lineage.folder)) if lineage.mlflow_run_id else None
    except UserError as error:
        print(f"warning: {error}", file=sys.stderr)
        return None


def as_json(lineage: Lineage, record: RunRecord | None) -> str:
    mlflow = None if record is None else asdict(record)
    return json.dumps({**asdict(lineage), "verdict": verdict(lineage), "mlflow": mlflow}, indent=2, ensure_ascii=False)


def as_text(lineage: Lineage, record: RunRecord | None) -> str:
    rows = [("", f"{lineage.file or lineage.job}: {verdict(lineage)}"), ("", "")]
    rows.append(("job", f"{lineage.job}, {lineage.created}"))
    commit = lineage.commit
    changed = " with changes that were not committed" if commit.dirty else ""
    rows.append(("commit", f"{commit.id[:12]}{changed} ({commit.state})" if commit.id else commit.state))
    rows.append(("device", lineage.device))
    rows.append(("packages", ", ".join(f"{name} {version}" for name, version in lineage.packages.items())))
    rows += _labelled("inputs", [_traced(item) for item in lineage.inputs] or ["none"])
    rows += _labelled("outputs", [_traced(item) for item in lineage.outputs])
    rows += _labelled("DVC", dict.fromkeys(_dvc(item) for item in lineage.dvc))
    rows += _labelled("MLflow", _mlflow(lineage, record))
    rows += _labelled("params", [f"{key}: {json.dumps(value)}" for key, value in lineage.params.items()])
    return "\n".join(f"{label:9} {text}".rstrip() if label or text else "" for label, text in rows).lstrip()


def verdict(lineage: Lineage) -> str:
    """Whether everything is still as recorded, in one line."""
    parts = []
    for what, traced in (("output", lineage.outputs), ("input", lineage.inputs)):
        gone = [f"{item.path} {STATES[item.state]}" for item in traced if item.state != "same"]
        parts.append(
            "; ".join(gone) if gone else f"every {what} as recorded" if len(traced) != 1 else f"{what} as recorded"
        )
    dvc = [record.state for record in lineage.dvc if record.state != "same"]
    parts.append(f"DVC: {STATES[dvc[0]]}" if dvc else "DVC has recorded the same")
    if lineage.params_now is None:
        parts.append("params.yaml does not have this job")
    elif lineage.params_now:
        now = ", ".join(f"{key} is {json.dumps(value)}" for key, value in lineage.params_now.items())
        parts.append(f"in params.yaml {now} now")
    named = bool(lineage.params_now)  # said above
    parts += [f"{job}: {reason}" for job, reason in lineage.stale.items() if not (named and job == lineage.job)]
    return "; ".join(parts)


def _labelled(label: str, lines: Iterable[str]) -> list[tuple[str, str]]:
    return [(label if number == 0 else "", line) for number, line in enumerate(lines)]


def _traced(item: Traced) -> str:
    return f"{item.path}  sha256 {item.digest[:12]}  {STATES[item.state]}"


def _dvc(record: DvcRecord) -> str:
    if record.stage is None or record.md5 is None:
        return STATES[record.state]
    kept = "in the cache" if record.cached else "not in the cache, `dvc pull` may have it"
    return f"stage {record.stage}  md5 {record.md5[:12]}  {STATES[record.state]}  ({kept})"


def _mlflow(lineage: Lineage, record: RunRecord | None) -> list[str]:
    if record is None:
        return [f"{lineage.mlflow_run_id}, which is not in the store" if lineage.mlflow_run_id else "not tracked"]
    opened = f"{record.command}, then open {record.link}" if record.command else record.link
    return [f"run {record.name} {lineage.mlflow_run_id}, {record.status}", opened]
