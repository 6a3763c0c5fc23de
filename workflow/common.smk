# What the rules share: parameters, dependencies, targets. The Snakefile is the table of contents.
import json
import os
import shlex
import sys
from pathlib import Path

from snakemake.exceptions import WorkflowError
from snakemake.logging import logger

from tfnas.engines.snakemake import SYNCING, prepare_run
from tfnas.engines.dvc import keep_dvc_out
from tfnas.engines.sync import (
    check_config,
    check_place,
    check_workdir_params,
    learn_from_dvc,
    repeat_errors,
    say_changed_images,
    say_spared_supernet,
    tell_dvc,
)
from tfnas.engines.trust import code_files, user_files, values_as_text
from tfnas.jobs.errors import UserError
from tfnas.jobs.extras import require
from tfnas.compute.devices import visible_gpus
from tfnas.jobs.locks import ENGINE
from tfnas.jobs.user import provide_for_user
from tfnas.stages.job import device_of
from tfnas.stages.params import searches_nothing
from tfnas.stages.registry import STAGES

try:
    require("pipeline", by="snakemake")
    PARAMS = check_workdir_params()  # before Snakemake reads the file: our errors say more
except UserError as error:
    raise WorkflowError(str(error)) from None


configfile: "params.yaml"


provide_for_user()
ROOT = Path(workflow.basedir)

try:
    check_place(ROOT, Path.cwd())
    check_config(config)
    for line in prepare_run(Path(".")) if workflow.is_main_process else []:  # not in jobs on other machines
        logger.info(line)
except UserError as error:
    raise WorkflowError(str(error)) from None

TARGETS = list(PARAMS.targets)

if workflow.deployment_settings.deployment_method:  # --software-deployment-method: each rule has its environment
    shell.prefix(f"export PYTHONPATH={shlex.quote(str(ROOT))} {ENGINE}={os.getpid()}; ")
else:  # the Python that runs Snakemake; and its process, so that jobs end with it
    shell.prefix(f'export PATH={shlex.quote(str(Path(sys.executable).parent))}:"$PATH" {ENGINE}={os.getpid()}; ')


onstart:
    if workflow.is_main_process and SYNCING not in os.environ:
        try:
            keep_dvc_out(Path("."))
        except UserError as error:
            raise WorkflowError(str(error)) from None


onsuccess:
    tell_dvc(Path("."))


onerror:
    tell_dvc(Path("."))
    repeat_errors(log)


wildcard_constraints:
    target="[A-Za-z0-9_]+",
    dataset="[a-z0-9-]+",
    network="[A-Za-z0-9_-]+",


def script_of(stage):
    return os.path.relpath(ROOT / "workflow" / "scripts" / f"{stage}.py")  # also right under snakemake --directory


def job_wildcards(stage):
    """A rule's wildcards: a target, a target and a data set or a network, or none."""
    return {name: f"{{{name}}}" for name in STAGES[stage].per}


def inputs_of(stage):
    """A stage's inputs by name: code, the user's own files, its script, other stages' results."""
    described = STAGES[stage]
    given = {
        option: unless_given(stage, path) for option, path in described.input_paths(**job_wildcards(stage)).items()
    }
    if described.reads_results:
        given = {"results": [path for earlier in described.earlier for path in results_of(earlier.name)]}
    return {"code": code_files(ROOT, stage), "own": own_files(stage), "script": script_of(stage), **given}


def unless_given(stage, path):
    """An input; none for the search of a target whose network is given."""
    if stage != "search":
        return path
    return lambda wildcards: [] if searches_nothing(PARAMS, stage, wildcards.target) else path


def own_files(stage):
    """The user's own files that a job depends on."""
    return lambda wildcards: user_files(stage, PARAMS, wildcards.get("target"))


def outputs_of(stage):
    """A stage's outputs by name, marked for `snakemake --report`."""
    return {
        output.key: marked(output, f"{STAGES[stage].folder(**job_wildcards(stage))}/{output.name}", STAGES[stage].per)
        for output in STAGES[stage].written
    }


def marked(output, path, per):
    if output.kind == "folder":
        return directory(path)
    if output.category is None:
        return path
    labels = {"target": "{target}", "data": "{dataset}" if "dataset" in per else "all classes"}
    labels = {
        name: label for name, label in labels.items() if per and (name == "target" or output.caption == "training")
    }
    return report(
        path, caption=f"workflow/report/{output.caption}.rst", category=output.category, labels=labels or None
    )


def results_of(stage):
    """All files that a stage's jobs write."""
    folder, listed_in = STAGES[stage].folder(**job_wildcards(stage)), STAGES[stage].listed_in
    if listed_in is None:
        wildcards = {name: TARGETS for name in STAGES[stage].per}
    else:
        wildcards = {name: getattr(getattr(PARAMS, listed_in), f"{name}s") for name in STAGES[stage].per}
    return [path for output in STAGES[stage].written for path in expand(f"{folder}/{output.name}", **wildcards)]


def everything(_):
    """Every declared file: an existing report must not hide a missing intermediate one."""
    return [path for stage in STAGES for path in results_of(stage)]


def log_of(stage):
    return STAGES[stage].log(**job_wildcards(stage))


def values_of(stage):
    """The values of params.yaml that a stage depends on, as listed in dvc.yaml."""
    return lambda wildcards: values_as_text(PARAMS, stage, wildcards.get("target"))


def message_of(stage):
    names = "".join(f" {{wildcards.{name}}}" for name in STAGES[stage].per)
    return f"{stage}{names}: {STAGES[stage].does}; log: {{log}}"


def command_of(stage):
    """The command line in dvc.yaml, with this checkout's script."""
    wildcards = {name: f"{{wildcards.{name}}}" for name in STAGES[stage].per}
    return STAGES[stage].command(script="{input.script:q}", **wildcards)


def threads_of(stage):
    """A measuring job takes all cores, so that nothing else runs meanwhile."""
    wanted = PARAMS.profile_latency.threads if STAGES[stage].measures else PARAMS.device.threads
    if STAGES[stage].device is None:
        return 1
    return lambda wildcards: cores() or wanted if STAGES[stage].measures else min(wanted, cores() or wanted)


def resources_of(stage):
    """One job's memory and time, and a GPU if its device is one."""
    asked = getattr(PARAMS.resources, stage)
    return {"gpu": int(device_of(STAGES[stage], PARAMS) != "cpu"), "mem_mb": asked.mem_mb, "runtime": asked.minutes}


def cores():
    """The number given by --cores; None on a cluster, where each job has its own cores."""
    return workflow.resource_settings.cores


def limit_gpus():
    """On this machine run no more jobs side by side than it has GPUs, unless --resources gpu=N says how many."""
    devices = {PARAMS.device.name, PARAMS.profile_latency.device} - {"cpu"}
    if devices and cores() is not None and "gpu" not in workflow.global_resources:
        pinned = any(":" in device for device in devices)
        workflow.register_resource("gpu", 1 if pinned else max(1, len(visible_gpus())))


def finish_rules():
    """Give every rule its environment; and let the engines agree, before the DAG is built."""
    for described in workflow.rules:
        if described.shellcmd is not None and described.conda_env is None:  # claims.smk names its own
            described.conda_env = "workflow/envs/tfnas.yaml"  # under --software-deployment-method conda
    if workflow.is_main_process:  # which builds the DAG for all jobs
        agree_with_dvc()


def agree_with_dvc():
    try:
        say_changed_images(PARAMS, Path("."))
        say_spared_supernet(PARAMS)
        learn_from_dvc(Path("."), everything(None))
    except UserError as error:
        raise WorkflowError(str(error)) from None


if workflow.is_main_process:
    limit_gpus()
