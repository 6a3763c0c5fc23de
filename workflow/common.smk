# What the rules share: parameters, code dependencies, targets. The Snakefile reads as the table of contents.
import os
import shlex
import sys
from pathlib import Path

from snakemake.exceptions import WorkflowError
from snakemake.logging import logger

from tfnas.engines.snakemake import begin
from tfnas.engines.snakemake import SYNCING
from tfnas.engines.dvc import keep_dvc_out
from tfnas.engines.sync import check_config, check_place, check_workdir_params, learn_from_dvc, repeat_errors, say_changed_images, tell_dvc
from tfnas.engines.trust import code_files, user_files, values_as_text
from tfnas.jobs.errors import UserError
from tfnas.compute.devices import visible_gpus
from tfnas.jobs.locks import ENGINE
from tfnas.jobs.user import provide_for_user

try:
    PARAMS = check_workdir_params()  # before Snakemake reads the file, whose own errors say less
except UserError as error:
    raise WorkflowError(str(error)) from None


configfile: "params.yaml"


provide_for_user()
ROOT = Path(workflow.basedir)

try:
    check_place(ROOT, Path.cwd())
    check_config(config)
    for line in begin(Path(".")) if workflow.is_main_process else []:  # not in jobs on other machines
        logger.info(line)
except UserError as error:
    raise WorkflowError(str(error)) from None

TARGETS = list(PARAMS.targets)
TRANSFER_TARGETS = PARAMS.transfer.targets
DATASETS = PARAMS.transfer.datasets

if workflow.deployment_settings.deployment_method:  # --software-deployment-method: the environment of each rule
    shell.prefix(f"export PYTHONPATH={shlex.quote(str(ROOT))} {ENGINE}={os.getpid()}; ")
else:  # the python that runs snakemake; and which snakemake, so that its jobs end with it
    shell.prefix(f'export PATH={shlex.quote(str(Path(sys.executable).parent))}:"$PATH" {ENGINE}={os.getpid()}; ')


onstart:
    if workflow.is_main_process and SYNCING not in os.environ:
        try:
            keep_dvc_out(Path("."))
        except UserError as error:
            raise WorkflowError(str(error)) from None


wildcard_constraints:
    target="[A-Za-z0-9_]+",
    dataset="[a-z0-9-]+",


def script_of(stage):
    return os.path.relpath(ROOT / "workflow" / "scripts" / f"{stage}.py")  # also right under snakemake --directory


def code(stage):
    """The files of the library whose change makes a stage's results stale, as its script does."""
    return code_files(ROOT, stage)


def values(stage):
    """The values in params.yaml that a stage depends on, the same that dvc.yaml lists."""
    return lambda wildcards: values_as_text(PARAMS, stage, wildcards.get("target"))


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


def limit_gpus():
    """On this machine run no more jobs side by side than it has GPUs, unless --resources gpu=N says how many."""
    devices = {PARAMS.device.name, PARAMS.profile_latency.device} - {"cpu"}
    if devices and cores() is not None and "gpu" not in workflow.global_resources:
        pinned = any(":" in device for device in devices)
        workflow.register_resource("gpu", 1 if pinned else max(1, len(visible_gpus())))


def mem_mb(stage):
    return getattr(PARAMS.resources, stage).mem_mb


def minutes(stage):
    return getattr(PARAMS.resources, stage).minutes


def agree_with_dvc():
    """Before the DAG is built, in the process that builds it for all jobs."""
    if not workflow.is_main_process:
        return
    try:
        say_changed_images(PARAMS, Path("."))
        learn_from_dvc(Path("."), everything(None))
    except UserError as error:
        raise WorkflowError(str(error)) from None


if workflow.is_main_process:
    limit_gpus()
