"""Found, random and known networks of a finished run: a line per training, and what they say.

python benchmarks/search/worth.py lines PROJECT --out worth.csv
python benchmarks/search/worth.py summary --lines worth.csv

The lines are those of seeds.csv in `retrain` and `train_baseline`, with latencies as measured; networks that are not
trained yet are left out. The summary has each network's mean and, per target, the margin of the found network over the
random ones as the report computes it, and the deviations over networks and over seeds.
"""

from __future__ import annotations

import argparse
import csv
import json
import statistics
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tfnas.latency.params import KNOWN, RANDOM, baseline_kind
from tfnas.report.worth import Compared, Trained, margin_over_random, pooled_variance, standing
from tfnas.stages.params import load_params

COLUMNS = ("target", "network", "seed", "top1_percent", "measured_ms")
FOUND = "found"


def lines(project: Path) -> Iterator[tuple[Any, ...]]:
    params, results = load_params(project / "params.yaml"), project / "results"
    for target in params.targets:
        places = {FOUND: (results / "retrain" / target, results / "derive" / target / "metrics.json")}
        for name in params.baselines.networks:
            scaled = results / "scale_baseline" / target / name / "metrics.json"
            places[name] = (results / "train_baseline" / target / name, scaled)
        for name, (trained, measured) in places.items():
            if (trained / "seeds.csv").exists():
                latency = json.loads(measured.read_text())["measured_latency_ms"]
                with (trained / "seeds.csv").open(newline="") as file:
                    for row in csv.DictReader(file):
                        yield target, name, row["seed"], row["top1_percent"], f"{latency:.3f}"


def write(options: argparse.Namespace) -> None:
    text = "\n".join(",".join(map(str, line)) for line in [COLUMNS, *lines(options.project)])
    options.out.write_text(text + "\n")


def kind_of(name: str) -> str:
    return name if name == FOUND else baseline_kind(name)


def summary(options: argparse.Namespace) -> None:
    with options.lines.open(newline="") as file:
        rows = list(csv.DictReader(file))
    for target in dict.fromkeys(row["target"] for row in rows):
        own = [row for row in rows if row["target"] == target]
        networks = []
        for name in dict.fromkeys(row["network"] for row in own):
            mine = [row for row in own if row["network"] == name]
            top1 = tuple(float(row["top1_percent"]) for row in mine)
            networks.append(Trained(name, kind_of(name), float(mine[0]["measured_ms"]), top1))
        for network in networks:
            print(f"{target} {network.name:20} {network.mean:.2f}  {network.top1}")
        compare(target, networks)


def compare(target: str, networks: list[Trained]) -> None:
    found = [network for network in networks if network.kind == FOUND]
    random = [network for network in networks if network.kind == RANDOM]
    known = [network for network in networks if network.kind == KNOWN]
    if not found or len(random) < 2:
        return
    margin, noise = margin_over_random(found[0], random), pooled_variance(random)
    means = [network.mean for network in random]
    print(
        f"{target}: random mean {statistics.fmean(means):.2f}, std {statistics.stdev(means):.2f} over networks", end=""
    )
    print(f", {noise.variance**0.5:.2f} over seeds" if noise else "", end="; ")
    print(f"margin {margin.points:+.2f} ({margin.low:+.2f} to {margin.high:+.2f})" if margin else "", end="; ")
    print("above {} of {}".format(*standing(found[0], random)))
    print(Compared(found[0], random, known).text)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    steps = parser.add_subparsers(dest="step", required=True)
    step = steps.add_parser("lines")
    step.add_argument("project", type=Path)
    step.add_argument("--out", type=Path, required=True)
    step = steps.add_parser("summary")
    step.add_argument("--lines", type=Path, required=True)
    options = parser.parse_args()
    {"lines": write, "summary": summary}[options.step](options)


if __name__ == "__main__":
    main()
