"""From own images to an ONNX file: draw a folder of photographs, suggest, run, export; estimated against true time.

    python benchmarks/pipeline/own_folder.py PROJECT [--hours 0.2] [--relative 0.2] [--cores 2] [--computing]

PROJECT is a clone of the repository without results. Seven classes of 20 to 400 pictures of 64 to 128 pixels are drawn
into PROJECT/own-images: shapes of any color, place and size on a smooth ground with noise. Some are turned by EXIF,
transparent, of 16 bits or a GIF, and three of train are in val as well. Printed: what `tfnas suggest` says, and a table
of each stage's estimate and its time by Snakemake's log, with the load of the machine before and after, and the seconds
that the stage's jobs computed. On a busy machine only these can be compared: with --computing, to an estimate of steps
measured in processor time instead of wall time, on one core. `profile_latency` has a budget of wall time either way.
"""

from __future__ import annotations

import argparse
import os
import re
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from datetime import datetime
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

CLASSES = {"disk": 400, "square": 200, "triangle": 120, "ring": 80, "cross": 60, "stripes": 40, "star": 20}
VAL_SHARE, TWINS = 0.2, 3
ORIENTATION = 0x0112
SECONDS = {"s": 1, "min": 60, "h": 3600}

# Found first by every Python below PYTHONPATH; notes what a stage's job and the processes that it waited for computed.
NOTING = """
import atexit, os, sys

def note():
    path = os.path.abspath(sys.argv[0])
    if os.path.basename(os.path.dirname(path)) == "scripts":
        with open(os.environ["OWN_FOLDER_NOTES"], "a") as file:
            file.write(f"{os.path.basename(path).removesuffix('.py')} {sum(os.times()[:4])}\\n")

atexit.register(note)
"""
# `tfnas estimate` by processor time.
ESTIMATE = """
import os, subprocess, sys, time
from types import SimpleNamespace
import tfnas.cli.estimate.step_times as step_times

def start_seconds():
    before = os.times()
    subprocess.run([sys.executable, "-c", step_times.STARTED], capture_output=True)
    return sum(os.times()[2:4]) - sum(before[2:4])

step_times.time = SimpleNamespace(perf_counter=time.process_time)
step_times.start_seconds = start_seconds
from tfnas.cli import main
sys.exit(main(["estimate", "--cores", "1"]))
"""


def draw_photograph(shape: str, random: np.random.Generator) -> Image.Image:
    """A shape on a smooth ground of its own colors, with noise."""
    height, width = (int(random.integers(64, 129)) for _ in range(2))
    coarse = random.integers(0, 200, (3, 3, 3), dtype=np.uint8)
    ground = Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)
    color = tuple(int(value) for value in random.integers(80, 256, 3))
    radius = min(height, width) * random.uniform(0.2, 0.42)
    x, y = random.uniform(radius, width - radius), random.uniform(radius, height - radius)
    _draw(ImageDraw.Draw(ground), shape, float(x), float(y), float(radius), random.uniform(0, 6.3), color)
    noisy = np.asarray(ground, dtype=np.float32) + random.normal(0, 14, (height, width, 3))
    return Image.fromarray(noisy.clip(0, 255).astype(np.uint8))


def _draw(draw: ImageDraw.ImageDraw, shape: str, x: float, y: float, r: float, turn: float, color: tuple) -> None:
    def corners(angles: np.ndarray, radii: np.ndarray) -> list[tuple[float, float]]:
        return [(x + s * np.cos(a + turn), y + s * np.sin(a + turn)) for a, s in zip(angles, radii, strict=True)]

    box = (x - r, y - r, x + r, y + r)
    if shape == "disk":
        draw.ellipse(box, fill=color)
    elif shape == "ring":
        draw.ellipse(box, outline=color, width=max(4, int(r / 3)))
    elif shape in ("square", "triangle"):
        count = 4 if shape == "square" else 3
        draw.polygon(corners(np.arange(count) * 2 * np.pi / count, np.full(count, r)), fill=color)
    elif shape == "star":
        draw.polygon(corners(np.arange(10) * np.pi / 5, np.where(np.arange(10) % 2, r / 2.4, r)), fill=color)
    else:
        for place in (0.0,) if shape == "cross" else (-0.7, 0.0, 0.7):
            ends = corners(np.array([0.0, np.pi]), np.array([r, r]))
            shift = (-np.sin(turn) * place * r, np.cos(turn) * place * r)
            draw.line([(a + shift[0], b + shift[1]) for a, b in ends], fill=color, width=max(4, int(r / 4)))
        if shape == "cross":
            draw.line(corners(np.array([0.5, 1.5]) * np.pi, np.array([r, r])), fill=color, width=max(4, int(r / 4)))


def save(picture: Image.Image, folder: Path, number: int) -> None:
    """As a JPEG; some turned by EXIF, transparent, of 16 bits or a GIF."""
    folder.mkdir(parents=True, exist_ok=True)
    if number % 7 == 3:
        exif = Image.Exif()
        exif[ORIENTATION] = 6  # shown turned by 90 degrees to the right
        picture.transpose(Image.Transpose.ROTATE_90).save(folder / f"{number:04d}.jpg", quality=92, exif=exif)
    elif number % 11 == 4:
        picture.putalpha(Image.new("L", picture.size, 200))
        picture.save(folder / f"{number:04d}.png")
    elif number % 13 == 5:
        gray = np.asarray(picture.convert("L"), dtype=np.uint16) * 257
        Image.fromarray(gray).save(folder / f"{number:04d}.png")
    elif number == 6:
        picture.save(folder / f"{number:04d}.gif", save_all=True, append_images=[picture.rotate(90)])
    else:
        picture.save(folder / f"{number:04d}.jpg", quality=92)


def write_folder(root: Path, seed: int = 0) -> int:
    """train/<class>/* and val/<class>/*; returns the number of pictures."""
    random = np.random.default_rng(seed)
    for shape, count in CLASSES.items():
        for number in range(count):
            split = "val" if number < VAL_SHARE * count else "train"
            save(draw_photograph(shape, random), root / split / shape, number)
    for path in sorted((root / "train" / "disk").iterdir())[:TWINS]:
        shutil.copy(path, root / "val" / "disk" / f"copy {path.name}")
    return sum(CLASSES.values()) + TWINS


def seconds_by_table(text: str) -> dict[str, float]:
    """The estimates that `tfnas suggest` prints."""
    rows = re.findall(r"^(\w+) +([\d.]+) (s|min|h)  ", text, re.MULTILINE)
    return {stage: float(number) * SECONDS[unit] for stage, number, unit in rows}


def seconds_by_log(text: str) -> dict[str, float]:
    """From the start of each rule's jobs to their end, added up, by Snakemake's log."""
    started: dict[str, tuple[str, datetime]] = {}
    taken: dict[str, float] = defaultdict(float)
    for stamp, block in re.findall(r"^\[(.*?)\]\n(.*?)(?=^\[|\Z)", text, re.MULTILINE | re.DOTALL):
        when = datetime.strptime(stamp, "%a %b %d %H:%M:%S %Y")
        if (end := re.search(r"Finished job(?:id)?: ?(\d+)", block)) is not None:
            rule, begun = started[end[1]]
            taken[rule] += (when - begun).total_seconds()
        elif job := re.search(r"(?:rule (\w+):|Job \d+: (\w+)).*?jobid: (\d+)|Job (\d+): (\w+)", block, re.DOTALL):
            rule, number = (job[1] or job[2], job[3]) if job[3] else (job[5], job[4])
            started[number] = rule, when
    return dict(taken)


def seconds_by_notes(text: str) -> dict[str, float]:
    """What each stage's jobs computed, added up, by the lines that NOTING writes."""
    computed: dict[str, float] = defaultdict(float)
    for stage, seconds in map(str.split, text.splitlines()):
        computed[stage] += float(seconds)
    return dict(computed)


def run_noting(project: Path, *command: str) -> tuple[float, float, dict[str, float]]:
    """A command's seconds, those that it computed, and those that each stage's jobs computed."""
    with tempfile.TemporaryDirectory() as folder:
        notes = Path(folder, "notes")
        Path(folder, "sitecustomize.py").write_text(NOTING)
        paths = os.pathsep.join(filter(None, (folder, os.environ.get("PYTHONPATH"))))
        _, wall, computed = run(project, *command, PYTHONPATH=paths, OWN_FOLDER_NOTES=str(notes))
        return wall, computed, seconds_by_notes(notes.read_text())


def print_table(estimates: dict[str, float], truths: dict[str, float], title: str) -> None:
    print(f"{title:16} {'estimated':>9} {'true':>9}")
    for stage, estimate in estimates.items():
        truth = truths.get(stage, float("nan"))
        print(f"{stage:16} {estimate:8.0f}s {truth:8.0f}s {100 * (estimate / truth - 1):+6.0f} %", flush=True)


def run(project: Path, *command: str, **variables: str) -> tuple[str, float, float]:
    """What a command printed, its seconds, and those that it computed."""
    before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    environment = os.environ | variables
    done = subprocess.run(
        command, cwd=project, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    wall, after = time.perf_counter() - start, resource.getrusage(resource.RUSAGE_CHILDREN)
    if done.returncode:
        sys.exit(f"{' '.join(command)}:\n{done.stdout}")
    return done.stdout, wall, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("project", type=Path)
    parser.add_argument("--hours", default="0.2")
    parser.add_argument("--relative", default="0.2")
    parser.add_argument("--cores", default=str(len(os.sched_getaffinity(0))))
    parser.add_argument("--computing", action="store_true", help="estimate by processor time as well")
    options = parser.parse_args()
    project = options.project.resolve()
    print(f"{write_folder(project / 'own-images')} pictures; load {os.getloadavg()[0]:.1f}", flush=True)
    said, wall, computed = run(
        project, "tfnas", "suggest", "--data", "own-images", "--relative", options.relative, "--hours", options.hours
    )
    print(f"{said}\nsuggest: {wall:.0f} s, {computed:.0f} s of computing; load {os.getloadavg()[0]:.1f}", flush=True)
    computing = run(project, sys.executable, "-c", ESTIMATE)[0] if options.computing else ""
    wall, computed, noted = run_noting(project, "snakemake", "--cores", options.cores)
    log = max((project / ".snakemake" / "log").glob("*.log"), key=lambda path: path.stat().st_mtime)
    print_table(seconds_by_table(said), seconds_by_log(log.read_text()) | {"all": wall}, "wall time")
    print_table(seconds_by_table(computing or said), noted | {"all": sum(noted.values())}, "computing")
    print(f"snakemake: {wall:.0f} s, {computed:.0f} s of computing; load {os.getloadavg()[0]:.1f}", flush=True)
    exported, wall, _ = run(project, "tfnas", "export", "results/retrain/own/weights.pt", "--out", "export/own")
    print(f"{exported}\nexport: {wall:.0f} s")


if __name__ == "__main__":
    main()
