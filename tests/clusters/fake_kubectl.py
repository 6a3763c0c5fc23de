"""Stands in for kubectl: a Job's command runs on this machine, in the Job's folder; its manifest is kept."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

CLUSTER = Path(os.environ["TFNAS_FAKE_CLUSTER"])


def main() -> None:
    match sys.argv[1:]:
        case ["create", "-f", "-"]:
            job = json.load(sys.stdin)
            name, (container,) = job["metadata"]["name"], job["spec"]["template"]["spec"]["containers"]
            (CLUSTER / f"{name}.json").write_text(json.dumps(job))
            done = CLUSTER / f"{name}.code"
            shell = f"{' '.join(container['command'])} > {CLUSTER / name}.log 2>&1; echo $? > {done}"
            subprocess.Popen(
                ["sh", "-c", shell], cwd=container["workingDir"], stdout=subprocess.DEVNULL, start_new_session=True
            )
            print(f"job.batch/{name} created")
        case ["get", "job", name, *_]:
            done = CLUSTER / f"{name}.code"
            code = done.read_text().strip() if done.exists() else ""
            print(json.dumps({"status": {} if not code else {"succeeded": 1} if code == "0" else {"failed": 1}}))
        case ["delete", "job", "--selector", label, "--output=name"]:
            key, value = label.split("=")
            for path in CLUSTER.glob("*.json"):
                if json.loads(path.read_text())["metadata"]["labels"].get(key) == value:
                    print(f"job.batch/{path.stem}")


if __name__ == "__main__":
    main()
