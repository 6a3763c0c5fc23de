"""What every stage script shares: options, log file, tracking, provenance, one-line errors."""

from __future__ import annotations

import argparse
import contextlib
import gc
import logging
import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tfnas.compute import distributed
from tfnas.compute.devices import claim_gpu
from tfnas.jobs.artifacts import remove_unfinished, write_provenance
from tfnas.jobs.errors import UserError, explain_disk
from tfnas.jobs.locks import ENDS_WITHIN_SECONDS, ENGINE, end_with_engine, held_lock
from tfnas.jobs.redaction import hide_secrets, redact
from tfnas.jobs.user import provide_for_user
from tfnas.stages.dependencies import check_named_files, digest_code, named_files
from tfnas.stages.params import Params, load_params, stage_params

if TYPE_CHECKING:
    from tfnas.tracking.runs import Run

LIBRARY_ROOT = Path(__file__).parents[2]  # of the checkout that the running library lies in
SMALL_FILE_BYTES = 1_000_000  # tracking keeps a copy of outputs up to this size; DVC keeps all of them

logger = logging.getLogger("tfnas")


def stage_parser(stage: str, description: str | None) -> argparse.ArgumentParser:
    """A parser with the options that every stage has: --params, --out, --log."""
    parser = argparse.ArgumentParser(prog=f"{stage}.py", description=description)
    parser.add_argument("--params", type=Path, required=True, help="parameter file (params.yaml)")
    parser.add_argument("--out", type=Path, required=True, help="folder for the results of this job")
    parser.add_argument("--log", type=Path, required=True, help="log file of this job")
    return parser


@dataclass
class Job:
    """One running job: its parameters, its tracking run, where it writes.

    Attributes:
        at_end: what is done when all is written, provenance included; checkpoints are discarded here.
    """

    params: Params
    run: Run
    out: Path
    at_end: list[Callable[[], None]] = field(default_factory=list)

    def end(self) -> None:
        for action in self.at_end:
            action()


@contextmanager
def open_job(
    stage: str,
    options: argparse.Namespace,
    *,
    inputs: Sequence[Path],
    outputs: Sequence[str],
    target: str | None = None,
    dataset: str | None = None,
    check: Callable[[Params], None] | None = None,
    resumes: Callable[[Params], str | None] | None = None,
) -> Iterator[Job]:
    """Open a stage's job: check before work, log, track, and write provenance when it ends well.

    Of several processes that torchrun has started on one job, the first alone does so.

    Args:
        inputs: files and folders that must exist; their digests go into `provenance.json`, with those of the files
            of the user's own that the parameters name.
        outputs: names below `--out` that the job writes.
        check: further checks of the parameters, run before anything is written.
        resumes: finds the tracking run that the job goes on with; None for a new one.
    """
    code = digest_code(LIBRARY_ROOT, stage)  # before any of it can be edited under the job
    params, device = _check(stage, options, inputs, target, check)
    inputs = list(dict.fromkeys([*inputs, *named_files(params, stage)]))
    if distributed.rank() > 0:
        yield Job(params, _no_run(), options.out)
        return
    from tfnas.tracking.runs import tracked_run

    values = stage_params(params, stage, target)
    with (
        open_alone(options),
        tracked_run(
            stage,
            values,
            params.tracking,
            options.params,
            target=target,
            dataset=dataset,
            resumes=resumes(params) if resumes is not None else None,
        ) as run,
    ):
        logger.info("%s %s %s", stage, target or "", dataset or "")
        _collect_garbage_from_now()
        job = Job(params, run, options.out)
        yield job
        _record(job, stage, values, inputs, outputs, device=device, code=code)
        job.end()
        logger.info("%s done", stage)


def _check(
    stage: str,
    options: argparse.Namespace,
    inputs: Sequence[Path],
    target: str | None,
    check: Callable[[Params], None] | None,
) -> tuple[Params, str]:
    """The parameters, and the device of the stage, when all is there that the job needs."""
    params = load_params(options.params)
    check_named_files(params, options.params)
    if target is not None and target not in params.targets:
        raise UserError(f"{options.params}: targets has no {target!r}; known: {', '.join(params.targets)}")
    device = params.profile_latency.device if stage in ("profile_latency", "derive") else params.device.name
    claim_gpu(device)
    for path in inputs:
        if not path.exists():
            raise UserError(f"{path}: is missing; run the stage that writes it")
    if check is not None:
        check(params)
    return params, device


def _record(
    job: Job,
    stage: str,
    values: Mapping[str, Any],
    inputs: Sequence[Path],
    outputs: Sequence[str],
    *,
    device: str,
    code: Mapping[str, str],
) -> None:
    """Write the provenance of what a job has written, and give the small files to tracking."""
    from tfnas.compute.devices import device_name

    write_provenance(
        job.out,
        stage=stage,
        params=values,
        inputs=inputs,
        outputs=[job.out / name for name in outputs],
        device=device_name(device),
        code=code,
        mlflow_run_id=job.run.id,
    )
    written = [job.out / name for name in (*outputs, "provenance.json")]
    _date_after(inputs, written)
    for path in written:
        _log_small_file(job.run, path)


@contextmanager
def open_alone(options: argparse.Namespace) -> Iterator[None]:
    """Log and write where no other process runs the same job; end when the engine that runs this one ends.

    A job whose engine was killed is given the time to end. What a killed one had half written is removed.

    Raises:
        UserError: another process runs this job.
    """
    with held_lock(options.log.with_suffix(".lock"), job=str(options.out), wait_seconds=ENDS_WITHIN_SECONDS):
        _log_to(options.log)
        end_with_engine()
        options.out.mkdir(parents=True, exist_ok=True)
        remove_unfinished(options.out)
        yield


def _date_after(inputs: Sequence[Path], outputs: Sequence[Path]) -> None:
    """Leave no output older than an input, where the clock has jumped back: it would be made again and again."""
    newest = max((path.stat().st_mtime for path in inputs), default=0.0)
    if newest > time.time():
        for path in outputs:
            os.utime(path, (newest, newest))


def _collect_garbage_from_now() -> None:
    """Let Python look for garbage again, past what start-up has made: modules, which stay."""
    if not gc.isenabled():
        gc.freeze()
        gc.enable()


def _no_run() -> Run:
    from tfnas.tracking.runs import NoRun

    return NoRun()


def _log_small_file(run: Run, path: Path) -> None:
    if path.is_file() and path.stat().st_size <= SMALL_FILE_BYTES:
        run.log_artifact(path)


def run_script(main: Callable[[], None]) -> None:
    """Run a script's main; a user's mistake, or a disk that takes no more, becomes one line and exit code 2.

    A fault of ours keeps its traceback, in the log as well. An interrupted job says how to go on.
    """
    provide_for_user()
    _use_own_library()
    hide_secrets()
    gc.disable()  # until the job is open: a third of the time of importing MLflow and torch goes into finding nothing
    try:
        main()
    except UserError as error:
        sys.exit(_report(error))
    except OSError as error:
        if (reason := explain_disk(error)) is None:
            _log_in_any_case()
            logger.exception("failed")
            raise
        sys.exit(_report(reason))
    except KeyboardInterrupt:
        print("interrupted; the same command goes on from the last checkpoint", file=sys.stderr)
        sys.exit(130)
    except Exception:
        _log_in_any_case()
        logger.exception("failed")
        raise


def _use_own_library() -> None:
    """Start again with the library that lies beside the script, where another one was imported.

    An experiment that DVC queues runs in a checkout of its own, while Python finds the tfnas of the project: the stage
    would run other code than DVC has recorded for it.
    """
    import tfnas

    folder = Path(sys.argv[0]).resolve().parent
    root = folder.parent.parent
    searched = os.environ.get("PYTHONPATH", "").split(os.pathsep)
    is_script = folder == root / "workflow" / "scripts" and (root / "tfnas").is_dir()
    if not is_script or Path(tfnas.__file__).is_relative_to(root) or searched[0] == str(root):
        return
    if os.pathsep in str(root):  # it would start again and again
        sys.exit(
            _report(UserError(f"{root}: PYTHONPATH cannot hold a path with {os.pathsep} in it; rename that folder"))
        )
    os.environ["PYTHONPATH"] = os.pathsep.join([str(root), *filter(None, searched)])
    os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])


def _report(error: UserError) -> int:
    print(f"error: {error}", file=sys.stderr)
    _log_in_any_case()
    logger.error("%s", error)
    return 2


def _log_in_any_case() -> None:
    """Open the log of a job that failed before it had one, for the engine to repeat; called by hand, it writes nothing.

    Behind what another process may be writing there.
    """
    if logger.handlers:
        return
    logger.addHandler(logging.NullHandler())
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("--log", type=Path)
    log = parser.parse_known_args()[0].log if ENGINE in os.environ else None
    if log is not None:
        with contextlib.suppress(OSError):
            _log_to(log, mode="a")


class _LogFile(logging.FileHandler):
    """Keeps silent where the disk is full: the job says so once."""

    def handleError(self, record: logging.LogRecord) -> None:
        pass


class _RedactingFormatter(logging.Formatter):
    """Tracebacks included."""

    def format(self, record: logging.LogRecord) -> str:
        return redact(super().format(record))


def _log_to(path: Path, mode: str = "w") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    handler = _LogFile(path, mode=mode, encoding="utf-8")
    handler.setFormatter(_RedactingFormatter("%(asctime)s %(levelname)s %(message)s"))
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    logger.propagate = False
