"""Replaces a stage's script: it writes, at once, digests of all that the stage's results depend on."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from tfnas.jobs.artifacts import digest_file, digest_params, write_provenance
from tfnas.stages.params import digest_code, load_params, named_files, searches_nothing, stage_params
from tfnas.stages.registry import STAGES

PATHS = ("params", "out", "log", "results", *{given.option for stage in STAGES.values() for given in stage.inputs})


def main(script: str) -> None:
    """A stage's script in a project's `workflow/scripts`."""
    path = Path(script).resolve()
    run(path.stem, parse(sys.argv[1:]), path.parents[2])


def parse(arguments: list[str]) -> argparse.Namespace:
    """The options of any stage."""
    parser = argparse.ArgumentParser()
    for name in PATHS:
        parser.add_argument(f"--{name.replace('_', '-')}", type=Path)
    parser.add_argument("--target")
    parser.add_argument("--dataset")
    parser.add_argument("--network")
    return parser.parse_args(arguments)


def run(stage: str, options: argparse.Namespace, root: Path) -> None:
    """Write the outputs of a stage; `provenance.json` differs from run to run, as the real one does.

    Args:
        root: of the project, whose code the stage depends on.
    """
    params, code = load_params(options.params), digest_code(root, stage)
    values = stage_params(params, stage, options.target)
    given_inputs = () if searches_nothing(params, stage, options.target) else STAGES[stage].inputs
    inputs = [path for given in given_inputs if (path := getattr(options, given.option))]
    inputs += named_files(params, stage, options.target)
    if options.results:
        inputs += sorted(options.results.rglob("metrics.json"))
    digests = [digest_file(path) for path in inputs]
    _write_outputs(
        stage, options.out, digest_params([stage, options.target, options.dataset or options.network, values, digests])
    )
    write_provenance(
        options.out,
        stage=stage,
        params=values,
        code=code,
        inputs=inputs,
        outputs=[options.out / output.name for output in STAGES[stage].outputs],
        device="stub",
        mlflow_run_id=str(_count_run(options)),
    )


def _write_outputs(stage: str, out: Path, content: str) -> None:
    for output in STAGES[stage].outputs:
        path = out / output.name / "content" if output.kind == "folder" else out / output.name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps({"is": f"{output.name} {content}", "value": int(content[:6], 16)}))


def _count_run(options: argparse.Namespace) -> int:
    """Note the run beside the log, for tests to read; a number that differs from run to run."""
    runs = options.log.parent / "runs"
    options.log.parent.mkdir(parents=True, exist_ok=True)
    with runs.open("a") as file:
        file.write(f"{options.out}\n")
    return len(runs.read_text())
