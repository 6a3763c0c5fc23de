"""Stands in for every stage's script: it writes, at once, digests of all that the stage's results depend on."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from tfnas.jobs.artifacts import digest_file, digest_params, write_provenance
from tfnas.stages.dependencies import digest_code, named_files
from tfnas.stages.params import load_params, stage_params

OUTPUTS = {
    "prepare_data": ["manifest.csv", "classes.csv", "broken.csv", "folders.csv", "images/1.png", "transfer/batch"],
    "rank_classes": ["class_accuracy.csv", "class_accuracy.svg", "metrics.json"],
    "build_subset": ["train.csv", "val.csv", "classes.csv", "images/images-00000.arrow"],
    "profile_latency": ["latency_table.json", "validation.csv", "metrics.json"],
    "warm_up": ["supernet.pt", "history.csv", "metrics.json"],
    "search": ["supernet.pt", "history.csv", "metrics.json"],
    "derive": ["architecture.json", "metrics.json"],
    "retrain": ["weights.pt", "history.csv", "metrics.json"],
    "transfer": ["weights.pt", "history.csv", "metrics.json"],
    "report": ["report.html", "summary.json", "summary.csv"],
}
INPUTS = (
    "manifest",
    "images",
    "class_accuracy",
    "train",
    "val",
    "table",
    "warm_up",
    "supernet",
    "architecture",
    "weights",
    "data",
)


ROOT = Path(__file__).resolve().parents[2]  # of the project, in place of one of its scripts


def run(stage: str, options: argparse.Namespace, root: Path = ROOT) -> None:
    """Write the outputs of a stage; `provenance.json` differs from run to run, as the real one does."""
    params, code = load_params(options.params), digest_code(root, stage)
    values = stage_params(params, stage, options.target)
    inputs = [path for name in INPUTS if (path := getattr(options, name))] + named_files(params, stage)
    if options.results:
        inputs += sorted(options.results.rglob("metrics.json"))
    digests = [digest_file(path) for path in inputs]
    content = digest_params([stage, options.target, options.dataset, values, digests])
    for name in OUTPUTS[stage]:
        path = options.out / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps({"is": f"{name} {content}", "value": int(content[:6], 16)}))
    runs = options.log.parent / "runs"
    options.log.parent.mkdir(parents=True, exist_ok=True)
    with runs.open("a") as file:
        file.write(f"{options.out}\n")
    write_provenance(
        options.out,
        stage=stage,
        params=values,
        code=code,
        inputs=inputs,
        outputs=[options.out / name for name in dict.fromkeys(name.split("/")[0] for name in OUTPUTS[stage])],
        device="stub",
        mlflow_run_id=str(len(runs.read_text())),
    )


def parse(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    for name in ("params", "out", "log", "results", *INPUTS):
        parser.add_argument(f"--{name.replace('_', '-')}", type=Path)
    parser.add_argument("--target")
    parser.add_argument("--dataset")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    run(Path(__file__).stem, parse(sys.argv[1:]))
