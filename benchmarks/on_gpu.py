"""One command for a machine with a GPU: tests, latency table, search steps, a short search, retraining; 8 minutes.

PYTHONPATH=. python benchmarks/on_gpu.py --out on_gpu.json
PYTHONPATH=. python benchmarks/on_gpu.py --authors FOLDER --images FOLDER   # a checkout of github.com/AberHu/TF-NAS
PYTHONPATH=. python benchmarks/on_gpu.py --device cpu --tiny                # whether it works, in under a minute

It needs PyTorch, NumPy, pydantic, PyYAML and tqdm. Each part is a process of its own with its own time limit. A part
that fails or takes too long leaves the rows that it has and its error, the others go on, and the exit code is 1. The
images are Fashion-MNIST's IDX files where they are found, else made ones.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
PARTS = {  # seconds that each may take at most, and the function in on_gpu_parts.py
    "device": (20, "measure_device"),
    "tests": (70, "run_tests"),
    "latency": (90, "measure_latency"),
    "steps": (150, "measure_steps"),
    "search": (100, "run_search"),
    "retrain": (50, "measure_retraining"),
}
LONGEST_SECONDS = 475.0  # of all together
TINY_FACTOR = 10  # the limits of tiny sizes, which tests run on machines that may be busy
LOG_CHARACTERS = 4000  # of a part that failed
HEADER = ("part", "what", "value", "unit", "")


def work(options: argparse.Namespace) -> None:
    """The side of a part's own process: rows as lines of JSON in a file."""
    import on_gpu_parts

    measure = getattr(on_gpu_parts, PARTS[options.part][1])
    with options.rows.open("a") as file:
        for row in measure(options):
            print(json.dumps(row._asdict()), file=file, flush=True)


def run_part(name: str, arguments: list[str], limit_s: float) -> dict[str, Any]:
    """A part in a process of its own: its rows, seconds, and its error or None."""
    start = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        rows, log = Path(folder) / "rows", Path(folder) / "log"
        rows.touch()
        command = [sys.executable, __file__, *arguments, "--part", name, "--rows", str(rows)]
        with log.open("w") as stream:
            error = wait(command, stream, limit_s) if limit_s > 0 else "no time left"
        said = log.read_text(errors="replace").strip()
        if error is not None and error.startswith("exit code"):
            error = (said.splitlines() or [error])[-1]
        found = [json.loads(line) for line in rows.read_text().splitlines()]
    seconds = round(time.monotonic() - start, 1)
    result = {"part": name, "seconds": seconds, "limit_s": round(limit_s, 1), "error": error, "rows": found}
    return {**result, "log": said[-LOG_CHARACTERS:]} if error else result


def wait(command: list[str], stream: Any, limit_s: float) -> str | None:
    """Run a command to its end or its limit, when it is killed with all that it has started; what went wrong."""
    paths = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}
    process = subprocess.Popen(command, stdout=stream, stderr=stream, env=environment, start_new_session=True)
    try:
        code = process.wait(limit_s)
    except subprocess.TimeoutExpired:
        return f"stopped at its limit of {limit_s:.0f} s"
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
    return f"exit code {code}" if code else None


def table_of(parts: list[dict[str, Any]]) -> str:
    """All rows in columns; a part's error is a row."""
    lines = [HEADER]
    for part in parts:
        for row in part["rows"]:
            value = f"{row['value']:.4g}" if isinstance(row["value"], float) else str(row["value"])
            lines.append((part["part"], row["what"], value, row["unit"], row["note"]))
        if part["error"]:
            lines.append((part["part"], "FAILED", part["error"], "", f"after {part['seconds']} s"))
    widths = [max(len(line[i]) for line in lines if line[1] != "FAILED" or i != 2) for i in range(len(HEADER))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in lines
    )


def parse_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda", help="cpu, cuda or cuda:N (default: cuda)")
    parser.add_argument("--tiny", action="store_true", help="tiny sizes: whether it works; its numbers mean nothing")
    parser.add_argument("--authors", type=Path, help="folder of the authors' code")
    parser.add_argument("--images", type=Path, help="folder of Fashion-MNIST's IDX files")
    parser.add_argument("--only", nargs="+", choices=PARTS, default=list(PARTS), help="some of the parts")
    parser.add_argument("--out", type=Path, default=Path("on_gpu.json"), help="default: on_gpu.json")
    parser.add_argument("--part", choices=PARTS, help=argparse.SUPPRESS)
    parser.add_argument("--rows", type=Path, help=argparse.SUPPRESS)
    return parser.parse_args()


def main() -> int:
    options = parse_options()
    if options.part:
        work(options)
        return 0
    start, parts, factor = time.monotonic(), [], TINY_FACTOR if options.tiny else 1
    for name in options.only:
        left_s = factor * LONGEST_SECONDS - (time.monotonic() - start)
        parts.append(run_part(name, sys.argv[1:], min(factor * PARTS[name][0], left_s)))
        print(
            f"{name}: {parts[-1]['seconds']} s{', FAILED' if parts[-1]['error'] else ''}", file=sys.stderr, flush=True
        )
        options.out.write_text(
            json.dumps({"kind": "on_gpu", "format_version": 1, "arguments": sys.argv[1:], "parts": parts}, indent=1)
        )
    print(table_of(parts))
    return int(any(part["error"] for part in parts))


if __name__ == "__main__":
    sys.exit(main())
