# What the rules share: parameters, code dependencies, targets. The Snakefile reads as the table of contents.
import os
import sys
from pathlib import Path

from snakemake.exceptions import WorkflowError

from tfnas.engines.guard import check_workdir_params, learn_from_dvc, tell_dvc
from tfnas.engines.stages import code_files, values_as_text
from tfnas.runtime.errors import UserError


configfile: "params.yaml"


try:
    PARAMS = check_workdir_params(config)
except UserError as error:
    raise WorkflowError(str(error)) from None

ROOT = Path(workflow.basedir)
SCRIPTS = os.path.relpath(ROOT / "workflow" / "scripts")  # also right under snakemake --directory
TARGETS = list(PARAMS.targets)
TRANSFER_TARGETS = PARAMS.transfer.targets
DATASETS = PARAMS.transfer.datasets

shell.prefix(f"export PATH={Path(sys.executable).parent}:$PATH; ")  # the python that runs snakemake


wildcard_constraints:
    target="[A-Za-z0-9_]+",
    dataset="[a-z0-9-]+",


def code(stage, *rooms):
    """The files whose change makes a stage's results stale: its script and its rooms of the library."""
    return code_files(ROOT, stage, rooms)


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
    return min(PARAMS.device.threads, workflow.cores or PARAMS.device.threads)


def all_threads(wildcards):
    return workflow.cores or PARAMS.profile_latency.threads


def job_gpus(wildcards):
    return int(PARAMS.device.name != "cpu")


def profile_gpus(wildcards):
    return int(PARAMS.profile_latency.device != "cpu")


def agree_with_dvc():
    """Before the DAG is built, in the process that builds it for all jobs."""
    if not workflow.is_main_process:
        return
    try:
        learn_from_dvc(Path("."), everything(None))
    except UserError as error:
        raise WorkflowError(str(error)) from None
