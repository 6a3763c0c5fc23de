"""One unit of `snakemake claims`: a variant of the search, a kind of weight sharing, a seed; writes unit.json."""

import argparse
from pathlib import Path

from tfnas.claims.claims import claims_of
from tfnas.claims.unit import UnitInputs, run_unit
from tfnas.claims.variants import required_claims, unit_values
from tfnas.compute.devices import claim_gpu
from tfnas.jobs.artifacts import write_json
from tfnas.search.result import operation_names
from tfnas.space import load_space
from tfnas.stages.job import open_alone, run_script
from tfnas.stages.params import check_named_files, load_params
from tfnas.tracking.runs import tracked_run

FILES = ("table", "train", "val", "images", "class-accuracy", "manifest", "all-images", "compared")


def main() -> None:
    options = parse_options()
    params = load_params(options.params)
    check_named_files(params, options.params)
    claims, names = required_claims(params, options.params), operation_names(load_space(params.space))
    job = {"name": options.variant, "sharing": options.sharing, "number": options.number}
    values = unit_values(params, claims, *job.values())
    inputs = UnitInputs(**{name: getattr(options, name) for name in (file.replace("-", "_") for file in FILES)})
    claim_gpu(params.device.name)
    with (
        open_alone(options),
        tracked_run("claims", values, params.tracking, options.params, tags=tags_of(options)) as run,
    ):
        log = lambda record: run.log_metrics(record.metrics(names), step=record.epoch)  # noqa: E731
        unit = run_unit(params, claims, inputs, **job, on_epoch=log)
        run.log_metrics({name: value for name, value in unit.items() if isinstance(value, int | float)})
        write_json(options.out / "unit.json", unit)


def tags_of(options: argparse.Namespace) -> dict[str, str]:
    """The run's name, and what it can be found by."""
    name = f"{options.variant}-{options.sharing}-seed_{options.number}"
    tags = {"claim": ", ".join(claims_of(options.variant)), "variant": options.variant, "sharing": options.sharing}
    return {"name": name, **tags, "seed": str(options.number)}


def parse_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="unit.py", description=__doc__)
    for name in ("variant", "sharing"):
        parser.add_argument(f"--{name}", required=True)
    parser.add_argument("--number", type=int, required=True, help="of the seed, from 0")
    for name in ("params", *FILES[:-1], "out", "log"):
        parser.add_argument(f"--{name}", type=Path, required=True)
    parser.add_argument("--compared", type=Path, help="the unit whose network at the same epoch is trained as well")
    return parser.parse_args()


if __name__ == "__main__":
    run_script(main)
