"""One unit of `snakemake claims`: a variant of the search, a kind of weight sharing, a seed; writes unit.json.

The variant `warm_up` is what most others start from; it writes supernet.pt as well.
"""

import argparse
from functools import partial
from pathlib import Path

from tfnas.claims.claims import claims_of
from tfnas.claims.unit import UnitInputs, run_unit, run_warm_up_unit
from tfnas.claims.variants import WARM_UP, required_claims, unit_values, warm_up_values
from tfnas.compute.devices import claim_gpu
from tfnas.jobs.artifacts import write_json
from tfnas.search.result import operation_names
from tfnas.space import load_space
from tfnas.stages.job import open_alone, run_script
from tfnas.stages.params import check_named_files, load_params
from tfnas.tracking.runs import tracked_run

FILES = ("table", "train", "val", "images", "class-accuracy", "manifest", "all-images")
UNITS = {  # units that some need, as options
    "warm-up": "the warm-up of the same seed",
    "compared": "the unit whose network at the same epoch is trained as well",
}


def main() -> None:
    options = parse_options()
    params = load_params(options.params)
    check_named_files(params, options.params)
    claims, names = required_claims(params, options.params), operation_names(load_space(params.space))
    seed = {"sharing": options.sharing, "number": options.number}
    warms_up = options.variant == WARM_UP
    values = (warm_up_values if warms_up else partial(unit_values, name=options.variant))(params, claims, **seed)
    names_of_files = (file.replace("-", "_") for file in (*FILES, *UNITS))
    inputs = UnitInputs(**{name: getattr(options, name) for name in names_of_files})
    claim_gpu(params.device.name)
    with (
        open_alone(options),
        tracked_run("claims", values, params.tracking, options.params, tags=tags_of(options)) as run,
    ):
        log = lambda record: run.log_metrics(record.metrics(names), step=record.epoch)  # noqa: E731
        if warms_up:
            warm_up, unit = run_warm_up_unit(params, claims, inputs, **seed, on_epoch=log)
            warm_up.save(options.out / "supernet.pt", values)
        else:
            unit = run_unit(params, claims, inputs, name=options.variant, **seed, on_epoch=log)
        run.log_metrics({name: value for name, value in unit.items() if isinstance(value, int | float)})
        write_json(options.out / "unit.json", unit)


def tags_of(options: argparse.Namespace) -> dict[str, str]:
    """The run's name, and what it can be found by."""
    name = f"{options.variant}-{options.sharing}-seed_{options.number}"
    tags = {"variant": options.variant, "sharing": options.sharing, "seed": str(options.number)}
    if keys := claims_of(options.variant):
        tags["claim"] = ", ".join(keys)
    return {"name": name, **tags}


def parse_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="unit.py", description=__doc__)
    for name in ("variant", "sharing"):
        parser.add_argument(f"--{name}", required=True)
    parser.add_argument("--number", type=int, required=True, help="of the seed, from 0")
    for name in ("params", *FILES, "out", "log"):
        parser.add_argument(f"--{name}", type=Path, required=True)
    for name, text in UNITS.items():
        parser.add_argument(f"--{name}", type=Path, help=text)
    return parser.parse_args()


if __name__ == "__main__":
    run_script(main)
