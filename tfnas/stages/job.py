"""What all stage scripts share: options, log file, tracking, provenance, one-line errors."""

from __future__ import annotations

import argparse
import contextlib
import importlib
import logging
import os
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from tfnas.compute import distributed
from tfnas.compute.devices import claim_gpu
from tfnas.jobs.artifacts import PROVENANCE, digest_file, remove_unfinished, write_provenance
from tfnas.jobs.errors import UserError, explain_disk, hide_secrets, redact
from tfnas.jobs.extras import explain_missing
from tfnas.jobs.locks import ENDS_WITHIN_SECONDS, ENGINE, end_with_engine, held_lock
from tfnas.jobs.user import provide_for_user
from tfnas.stages.params import (
    Params,
    check_given_networks,
    check_named_files,
    digest_code,
    load_params,
    named_files,
    searches_nothing,
    stage_params,
)
from tfnas.stages.registry import LISTED_IN, STAGES, Stage

if TYPE_CHECKING:
    from tfnas.tracking.runs import Run

LIBRARY_ROOT = Path(__file__).parents[2]  # of the checkout that the running library lies in
SMALL_FILE_BYTES = 1_000_000  # tracking keeps a copy of outputs up to this size; DVC keeps all of them

logger = logging.getLogger("tfnas")


class StageModule(Protocol):
    """What a stage's file holds. A file may also have `resumes` and `reads` (see `run_stage`)."""

    def check(self, job: Job) -> Any:
        """Check everything that can be wrong before any work; `run` gets what this returns."""

    def run(self, job: Job, checked: Any) -> None:
        """Write the stage's outputs into `job.out`."""


@dataclass
class Job:
    """One job: a stage, on the parameters, for a target, and a data set or a network, where there is one job for each.

    Attributes:
        inputs: the files and folders that it is given, by option.
        run: its tracking run; records nothing until the checks are done.
        at_end: actions after everything is written, provenance included, such as discarding checkpoints.
    """

    stage: Stage
    params: Params
    inputs: Mapping[str, Path]
    out: Path
    run: Run
    target: str | None = None
    dataset: str | None = None
    network: str | None = None
    at_end: list[Callable[[], None]] = field(default_factory=list)

    @property
    def name(self) -> tuple[str, ...]:
        """Stage, target, data set or network."""
        parts = (self.stage.name, self.target, self.dataset, self.network)
        return tuple(part for part in parts if part is not None)

    @cached_property
    def input_digests(self) -> list[str]:
        """Of its inputs and the user's own files, taken once: they may be folders of many images."""
        own = named_files(self.params, self.stage.name, self.target)
        return [digest_file(path) for path in (*self.inputs.values(), *own)]

    @property
    def values(self) -> dict[str, Any]:
        """The values of the parameters that its results depend on."""
        return stage_params(self.params, self.stage.name, self.target)

    def end(self) -> None:
        for action in self.at_end:
            action()


def run_stage(name: str, arguments: Sequence[str] | None = None) -> None:
    """A stage's script: options, checks, work, records.

    The stage's file in `tfnas/stages/` has `check(job)` and `run(job, checked)`. Where it can continue an earlier
    tracking run, `resumes(job, checked)` returns its id; where its inputs follow from the parameters, `reads(job)`
    returns them.
    """
    run_script(lambda: _main(STAGES[name], arguments))


def _main(stage: Stage, arguments: Sequence[str] | None) -> None:
    options = _parser(stage).parse_args(arguments)
    code = digest_code(LIBRARY_ROOT, stage.name)  # before any of it can be edited under the job
    job = _prepare(stage, options)
    if not searches_nothing(job.params, stage.name, job.target):
        _check_present(job.inputs.values())
    module = _module_of(stage)
    reads = module.reads(job) if hasattr(module, "reads") else list(job.inputs.values())
    _check_present(reads)
    checked = module.check(job)
    reads = list(dict.fromkeys([*reads, *named_files(job.params, stage.name, job.target)]))
    if distributed.rank() > 0:  # of several processes that torchrun has started on one job, the first alone records
        module.run(job, checked)
        return
    with _opened(job, options, resumes=module.resumes(job, checked) if hasattr(module, "resumes") else None):
        module.run(job, checked)
        _record(job, reads, code)
        job.end()
        logger.info("%s done", stage.name)


def _module_of(stage: Stage) -> Any:
    """The stage's file: a `StageModule`."""
    return importlib.import_module(f"tfnas.stages.{stage.name}")


def _check_present(paths: Iterable[Path]) -> None:
    for path in paths:
        if not path.exists():
            raise UserError(f"{path}: is missing; run the stage that writes it")


def _parser(stage: Stage) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog=f"{stage.name}.py", description=f"{_sentence(stage.does)} ({stage.paper}).")
    parser.add_argument("--params", type=Path, required=True, help="parameter file (params.yaml)")
    for name in stage.per:
        meant = f"one of `{LISTED_IN[name]}.{name}s`" if name in LISTED_IN else "a key of `targets`"
        parser.add_argument(f"--{name}", required=True, help=f"name of the {name}, {meant}")
    for given in stage.inputs:
        parser.add_argument(f"--{given.option.replace('_', '-')}", type=Path, required=True, help=given.help)
    if stage.reads_results:
        parser.add_argument("--results", type=Path, required=True, help="folder with the results of all other stages")
    parser.add_argument("--out", type=Path, required=True, help="folder for the results of this job")
    parser.add_argument("--log", type=Path, required=True, help="log file of this job")
    return parser


def _sentence(text: str) -> str:
    return text[0].upper() + text[1:]


def _prepare(stage: Stage, options: argparse.Namespace) -> Job:
    """The job, its parameters checked, a GPU claimed where it needs one."""
    params = load_params(options.params)
    check_named_files(params, options.params)
    check_given_networks(params)
    named = {name: getattr(options, name) for name in stage.per}
    for kind, name in named.items():
        key, known = _known(params, kind)
        if name not in known:
            raise UserError(f"{options.params}: {key} has no {name!r}; known: {', '.join(known)}")
    claim_gpu(device_of(stage, params))
    names = [given.option for given in stage.inputs] + (["results"] if stage.reads_results else [])
    inputs = {name: getattr(options, name) for name in names}
    return Job(stage, params, inputs, options.out, _no_run(), **named)


def _known(params: Params, kind: str) -> tuple[str, Iterable[str]]:
    """The key of params.yaml that lists targets, data sets or networks, and what it lists."""
    if kind == "target":
        return "targets", params.targets
    section = LISTED_IN[kind]
    return f"{section}.{kind}s", getattr(getattr(params, section), f"{kind}s")


def device_of(stage: Stage, params: Params) -> str:
    """Where a stage computes."""
    devices = {"device": params.device.name, "profile_latency": params.profile_latency.device}
    return "cpu" if stage.device is None else devices[stage.device]


@contextmanager
def _opened(job: Job, options: argparse.Namespace, *, resumes: str | None) -> Iterator[None]:
    """Log and track, as the only process of this job."""
    from tfnas.tracking.runs import tracked_run

    with (
        open_alone(options),
        tracked_run(
            job.stage.name,
            job.values,
            job.params.tracking,
            options.params,
            target=job.target,
            dataset=job.dataset,
            network=job.network,
            resumes=resumes,
        ) as job.run,
    ):
        logger.info(" ".join(job.name))
        yield


def _record(job: Job, reads: Sequence[Path], code: Mapping[str, str]) -> None:
    """Write the provenance of what a job has written, and give the small files to tracking."""
    from tfnas.compute.devices import device_name

    outputs = [job.out / output.name for output in job.stage.outputs]
    write_provenance(
        job.out,
        stage=job.stage.name,
        params=job.values,
        inputs=reads,
        outputs=outputs,
        device=device_name(device_of(job.stage, job.params)),
        code=code,
        mlflow_run_id=job.run.id,
    )
    written = [*outputs, job.out / PROVENANCE]
    _date_after(reads, written)
    for path in written:
        _log_small_file(job.run, path)


@contextmanager
def open_alone(options: argparse.Namespace) -> Iterator[None]:
    """Log and write while no other process runs the same job; end when the engine that runs this one ends.

    A job whose engine was killed is given time to end. What a killed job left half written is removed.

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
    """Leave no output older than an input, even after the clock has jumped back: it would be made again and again."""
    newest = max((path.stat().st_mtime for path in inputs), default=0.0)
    if newest > time.time():
        for path in outputs:
            os.utime(path, (newest, newest))


def _no_run() -> Run:
    from tfnas.tracking.runs import NoRun

    return NoRun()


def _log_small_file(run: Run, path: Path) -> None:
    if path.is_file() and path.stat().st_size <= SMALL_FILE_BYTES:
        run.log_artifact(path)


def run_script(main: Callable[[], None]) -> None:
    """Run a script's main; a user's mistake, a missing extra or a full disk becomes one line and exit code 2.

    A bug keeps its traceback, in the log as well. An interrupted job says how to resume it.
    """
    provide_for_user()
    _use_own_library()
    hide_secrets()
    try:
        main()
    except UserError as error:
        sys.exit(_report(error))
    except (OSError, ModuleNotFoundError) as error:
        reason = explain_disk(error) if isinstance(error, OSError) else explain_missing(error)
        if reason is None:
            _log_in_any_case()
            logger.exception("failed")
            raise
        sys.exit(_report(reason))
    except KeyboardInterrupt:
        print("interrupted; the same command resumes from the last checkpoint", file=sys.stderr)
        sys.exit(130)
    except Exception:
        _log_in_any_case()
        logger.exception("failed")
        raise


def _use_own_library() -> None:
    """Restart with the library of the script's own checkout, where another one was imported.

    An experiment that DVC queues runs in a checkout of its own, while Python finds the tfnas of the project: the stage
    would run other code than DVC records for it.
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
    """Open the log of a job that failed before it had one, so that the engine can repeat it; by hand, none is written.

    It is appended to, since another process may be writing there.
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
    """Silent where the disk is full: the job says so once."""

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
