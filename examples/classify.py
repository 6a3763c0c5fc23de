"""Classify a picture with a network that the pipeline has found.

    python examples/classify.py                     # after `make run`: a digit of the validation set
    python examples/classify.py PICTURE --target B

Any other trained network is loaded in the same way: `load_network("TF-NAS-A", "weights.pt")`.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from tfnas.data import manifest_classes, read_manifest
from tfnas.deploy import classify, load_network
from tfnas.jobs.errors import UserError
from tfnas.stages.params import load_params

RESULTS = Path("results")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("picture", nargs="?", type=Path)
    parser.add_argument("--target", default="A")
    options = parser.parse_args()
    picture = options.picture or next((RESULTS / "prepare_data/images/val").rglob("*.png"))

    target = options.target
    network = load_network(RESULTS / f"derive/{target}/architecture.json", RESULTS / f"retrain/{target}/weights.pt")
    classes = manifest_classes(read_manifest(RESULTS / "prepare_data/manifest.csv"))
    params = load_params("params.yaml")
    found = classify(network, picture, classes, resolution=params.resolution, exif=params.prepare_data.exif)
    for name, probability in found:
        print(f"{100 * probability:6.2f} %  {name}")


if __name__ == "__main__":
    try:
        main()
    except UserError as error:
        sys.exit(f"error: {error}")
