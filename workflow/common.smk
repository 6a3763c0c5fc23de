# What the rules share: parameters, code dependencies, targets. The Snakefile reads as the table of contents.
import os
import sys
from pathlib import Path

from snakemake.exceptions import WorkflowError

from tfnas.engines.guard import check_dvc_is_in_step, check_workdir_params
from tfnas.engines.stages import code_files, values_as_text
from tfnas.runtime.errors import UserError


configfile: "params.yaml"


try:
    PARAMS = check_workdir_params(config)
    check_dvc_is_in_step(Path("."))
except UserError as error:
    raise WorkflowError(str(error)) from None

ROOT = Path(workflow.basedir)
TARGETS = list(PARAMS.targets)
TRANSFER_TARGETS = PARAMS.transfer.targets
DATASETS = PARAMS.transfer.datasets

if workflow.deployment_settings.deployment_method:  # --software-deployment-method: the environment of each rule
    shell.prefix(f"export PYTHONPATH={ROOT}; ")
else:
    shell.prefix(f"export PATH={Path(sys.executable).parent}:$PATH; ")  # the python that runs snakemake


wildcard_constraints:
    target="[A-Za-z0-9_]+",
    dataset="[a-z0-9-]+",


def script_of(stage):
    return os.path.relpath(ROOT / "workflow" / "scripts" / f"{stage}.py")  # also right under snakemake --directory


def code(*rooms):
    """The files of the library whose change makes a stage's results stale, as its script does."""
    return code_files(ROOT, rooms)


def values(stage):
    """The values in params.yaml that a stage depends on, the same that dvc.yaml lists."""
    return lambda wildcards: values_as_text(config, stage, wildcards.get("target"))


def outputs_of(*stages, **wildcards):
    return [path for stage in stages for path in expand(getattr(rules, stage).output, **wildcards)]


def everything(_):
    """Every declared file, so that a finished report never hides a missing intermediate one."""
    return (
        outputs_of("prepare_data", "rank_classes", "build_subset", "profile_latency", "warm_up")
        + outputs_of("search", "derive", "retrain", target=TARGETS)
        + outputs_of("transfer", target=TRANSFER_TARGETS, dataset=DATASETS)
        + outputs_of("report")
    )


def job_threads(wildcards):
    return min(PARAMS.device.threads, cores() or PARAMS.device.threads)


def all_threads(wildcards):
    return cores() or PARAMS.profile_latency.threads


def cores():
    """Of --cores; None on a cluster, where each job has its own."""
    return workflow.resource_settings.cores


def job_gpus(wildcards):
    return int(PARAMS.device.name != "cpu")


def profile_gpus(wildcards):
    return int(PARAMS.profile_latency.device != "cpu")
