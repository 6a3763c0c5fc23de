"""Snakemake's jobs as Kubernetes Jobs, by kubectl: submit and status. cancel.sh cancels them.

Every pod mounts the same volume at the same path, so results, checkpoints and logs are where Snakemake looks, and a
retry finds the earlier checkpoint. Environment: TFNAS_IMAGE, an image with this project's environment;
TFNAS_CLAIM, a persistent volume claim (ReadWriteMany) that holds the project; TFNAS_MOUNT, the volume's path in the
pods and here (default: this folder).
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import subprocess
import sys
import uuid
from pathlib import Path
from typing import Any


def manifest(options: argparse.Namespace, environment: dict[str, str]) -> dict[str, Any]:
    """The Job that runs one of Snakemake's job scripts once."""
    folder = str(Path.cwd())
    wanted = {"cpu": str(options.cpus), "memory": f"{options.mem_mb}M"}
    if options.gpus:
        wanted["nvidia.com/gpu"] = str(options.gpus)
    container = {
        "name": "tfnas",
        "image": environment["TFNAS_IMAGE"],
        "command": ["sh", options.script],
        "workingDir": folder,
        "resources": {"requests": wanted, "limits": wanted},
        "volumeMounts": [{"name": "project", "mountPath": environment.get("TFNAS_MOUNT", folder)}],
    }
    pod = {
        "restartPolicy": "Never",
        "containers": [container],
        "volumes": [{"name": "project", "persistentVolumeClaim": {"claimName": environment["TFNAS_CLAIM"]}}],
    }
    # tfnas finds the jobs of a killed Snakemake by this label
    project = hashlib.sha256(folder.encode()).hexdigest()[:16]
    name = f"tfnas-{options.rule.replace('_', '-')}-{uuid.uuid4().hex[:8]}"
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {"name": name, "labels": {"app": "tfnas", "tfnas-project": project}},
        "spec": {
            "backoffLimit": 0,  # Snakemake retries
            "activeDeadlineSeconds": 60 * options.minutes,
            "ttlSecondsAfterFinished": 86400,
            "template": {"metadata": {"labels": {"app": "tfnas"}}, "spec": pod},
        },
    }


def submit(options: argparse.Namespace) -> None:
    """Create the Job and print its name."""
    missing = [name for name in ("TFNAS_IMAGE", "TFNAS_CLAIM") if name not in os.environ]
    if missing:
        sys.exit(f"error: {' and '.join(missing)} must be set (docs/clusters.md)")
    job = manifest(options, dict(os.environ))
    subprocess.run(["kubectl", "create", "-f", "-"], input=json.dumps(job), text=True, check=True, stdout=sys.stderr)
    print(job["metadata"]["name"])


def status(options: argparse.Namespace) -> None:
    """Print running, success or failed."""
    command = ["kubectl", "get", "job", options.name, "--ignore-not-found", "-o", "json"]
    shown = subprocess.run(command, capture_output=True, text=True)
    if shown.returncode != 0:  # the server does not answer; the job may still be running
        print("running")
        return
    counts = json.loads(shown.stdout)["status"] if shown.stdout.strip() else {"failed": 1}
    print("success" if counts.get("succeeded") else "failed" if counts.get("failed") else "running")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    commands = parser.add_subparsers(required=True)
    command = commands.add_parser("submit")
    command.add_argument("--rule", required=True)
    for name in ("--cpus", "--gpus", "--mem-mb", "--minutes"):
        command.add_argument(name, type=int, required=True)
    command.add_argument("script")
    command.set_defaults(run=submit)
    command = commands.add_parser("status")
    command.add_argument("name")
    command.set_defaults(run=status)
    options = parser.parse_args()
    options.run(options)


if __name__ == "__main__":
    main()
