"""The page of `snakemake claims` from the units that are finished: claims.html and claims.json."""

import argparse
from pathlib import Path

from tfnas.claims.page import read_evidence, render_claims, verdicts
from tfnas.claims.variants import required_claims
from tfnas.jobs.artifacts import write_json, write_text
from tfnas.stages.job import open_alone, run_script
from tfnas.stages.params import load_params


def main() -> None:
    options = parse_options()
    params = load_params(options.params)
    claims = required_claims(params, options.params)
    with open_alone(options):
        evidence = read_evidence(params, claims, options.units, options.table, options.manifest)
        write_text(options.out / "claims.html", render_claims(evidence))
        write_json(options.out / "claims.json", verdicts(evidence))


def parse_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="page.py", description=__doc__)
    for name in ("params", "units", "table", "manifest", "out", "log"):
        parser.add_argument(f"--{name}", type=Path, required=True)
    return parser.parse_args()


if __name__ == "__main__":
    run_script(main)
