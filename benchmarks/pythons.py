"""The matrix of Pythons: install, import, tests and `make run` from a fresh environment of each; hours.

For each Python a clone of HEAD with an environment of its own, of 6 GB, deleted at the end unless --keep is given.
What a step prints is beside it, in pythons-VERSION-STEP.log.
Results are appended to a file of JSON lines, so the same command resumes after an interruption: steps that have passed
on this commit are not repeated. Run it on an idle machine: tests of timing expect that, and times are reported.

    python benchmarks/pythons.py                              # 3.11 to 3.14, all steps, in /var/tmp
    python benchmarks/pythons.py --pythons 3.12 --steps core,pipeline,import
    python benchmarks/pythons.py --show                       # the rows as a table
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import shutil
import subprocess
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks" / "results" / "pythons.jsonl"
PYTHONS = "3.11,3.12,3.13,3.14"
PIP = "-m pip install --quiet --no-cache-dir --constraint constraints.txt"
FIRST = "import tfnas.search; from tfnas.space import count_macs, zoo; print(count_macs(zoo.load('TF-NAS-A')))"
STEPS = {  # of the clone, with {python} that of its environment; in the order in which they build on each other
    "core": "{python} " + PIP + " .",
    "pipeline": "{python} " + PIP + " .[pipeline]",
    "import": f'{{python}} -c "{FIRST}"',
    "tests": "make test PYTHON={given}",
    "quick-tests": "PYTEST_ADDOPTS=\"-m 'not slow'\" make test PYTHON={given}",  # for want of time
    "run": "make run PYTHON={given}",
}
DEFAULT = ",".join(step for step in STEPS if step != "quick-tests")
OWN = ("core", "pipeline", "import")  # by pip alone; `make` starts afresh, in the same place


def find(version: str) -> str | None:
    """An interpreter of that version: on the path, or of pyenv."""
    places = sorted(Path.home().glob(f".pyenv/versions/{version}.*/bin/python"))
    for candidate in (f"python{version}", *map(str, places)):
        code = f"import ensurepip, sys; sys.exit(not sys.version.startswith('{version}.'))"
        if shutil.which(candidate) and subprocess.run([candidate, "-c", code], capture_output=True).returncode == 0:
            return candidate
    return None


def megabytes(folder: Path) -> float:
    """Of files that lie there once."""
    return sum(path.lstat().st_size for path in folder.rglob("*") if not path.is_symlink()) / 1e6


def measured(command: str, folder: Path, log: Path) -> dict[str, object]:
    """Run a shell command; its exit code, seconds, CPU seconds of all its processes, and its last lines."""
    before, started = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
    with log.open("w") as file:
        done = subprocess.run(command, shell=True, cwd=folder, stdout=file, stderr=subprocess.STDOUT)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return {
        "passed": done.returncode == 0,
        "seconds": round(time.monotonic() - started, 1),
        "cpu_seconds": round(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime, 1),
        "load": os.getloadavg()[0],
        "tail": log.read_text(errors="replace").splitlines()[-5:],
    }


def try_python(version: str, steps: list[str], commit: str, place: Path, keep: bool) -> None:
    """All steps of one Python, each recorded when it ends; an installation that fails ends them."""
    given = find(version)
    if given is None:
        print(f"{version}: not on this machine")
        return
    with ExitStack() as stack:
        name = tempfile.mkdtemp(dir=place, prefix=f"tfnas-{version}-")
        if not keep:
            stack.callback(shutil.rmtree, name)
        clone = Path(name) / "tfnas"
        subprocess.run(["git", "clone", "--quiet", str(ROOT), str(clone)], check=True)
        environment = clone / ".venv"
        for step in steps:
            if step in OWN and not environment.exists():
                subprocess.run([given, "-m", "venv", str(environment)], check=True)
            elif step not in OWN and not (environment / "installed").exists():
                shutil.rmtree(environment, ignore_errors=True)
            empty = megabytes(environment) if environment.exists() else 0.0
            log = place / f"pythons-{version}-{step}.log"
            command = STEPS[step].format(python=environment / "bin" / "python", given=given)
            row = {"python": version, "step": step, "commit": commit, **measured(command, clone, log)}
            row["megabytes"] = round(megabytes(environment) - empty)
            with RESULTS.open("a") as file:
                file.write(json.dumps(row) + "\n")
            print(f"{version} {step}: {'passed' if row['passed'] else 'FAILED'} in {row['seconds']} s")
            if not row["passed"]:
                print(f"see {log}")
                if step in OWN:
                    return


def rows() -> list[dict[str, object]]:
    return [json.loads(line) for line in RESULTS.read_text().splitlines()] if RESULTS.exists() else []


def show() -> None:
    """The rows as lines of a Markdown table."""
    print("| Python | step | passed | s | CPU s | MB added |\n|---|---|---|---|---|---|")
    for row in rows():
        print(
            "|",
            " | ".join(str(row[key]) for key in ("python", "step", "passed", "seconds", "cpu_seconds", "megabytes")),
            "|",
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pythons", default=PYTHONS, help=f"versions (default: {PYTHONS})")
    parser.add_argument("--steps", default=DEFAULT, help=f"of {', '.join(STEPS)} (default: all but quick-tests)")
    parser.add_argument("--place", type=Path, default=Path("/var/tmp"), help="for clones, 7 GB (default: /var/tmp)")
    parser.add_argument("--keep", action="store_true", help="leave clones and environments there")
    parser.add_argument("--show", action="store_true", help="print what has been found so far")
    options = parser.parse_args()
    if options.show:
        show()
        return
    commit = subprocess.run(["git", "rev-parse", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    for version in options.pythons.split(","):
        passed = {
            row["step"]
            for row in rows()
            if (row["python"], row["commit"], row["passed"]) == (version, commit.strip(), True)
        }
        steps = [step for step in options.steps.split(",") if step not in passed]
        if "pipeline" in steps and "core" in passed:
            steps = ["core", *steps]  # the size of one is on top of the other's
        if "import" in steps and "pipeline" not in steps:
            steps = ["pipeline", *steps]
        if steps:
            try_python(version, steps, commit.strip(), options.place, options.keep)
    show()


if __name__ == "__main__":
    main()
