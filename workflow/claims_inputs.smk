# What the rules of claims.smk depend on.
from functools import cache

from tfnas.claims.claims import needed_variants
from tfnas.claims.units import unit_path, warm_up_path
from tfnas.claims.variants import WARM_UP, required_claims, unit_values, variants, warm_up_values
from tfnas.jobs.artifacts import digest_text
from tfnas.stages.params import digest_path, files_in

UNITS = Path("results/claims/units")
UNIT_ROOMS = ("claims/unit.py", "search", "train", "data", "latency", "space", "compute")  # code that changes a unit
UNIT_SHELL = (
    "python {input.script:q} --params params.yaml --sharing {wildcards.sharing} --number {wildcards.number}"
    " --table {input.table} --train {input.train} --val {input.val} --images {input.images}"
    " --class-accuracy {input.class_accuracy} --manifest {input.manifest} --all-images {input.all_images}"
    " {params.others} --out $(dirname {output.unit}) --log {log}"
)


def the_claims():
    """The section `claims`; an error only where a target of this file is asked for."""
    try:
        return required_claims(PARAMS, "params.yaml")
    except UserError as error:
        raise WorkflowError(str(error)) from None


@cache
def unit_code():
    """Digest of the code. As input files Snakemake would look at each, for each of the jobs, whenever a job ends."""
    return digest_text(" ".join(digest_path(ROOT / "tfnas" / room) for room in UNIT_ROOMS))


def unit_inputs():
    """The script, and the other stages' results."""
    return {
        "script": os.path.relpath(ROOT / "workflow/scripts/claims/unit.py"),
        "table": "results/profile_latency/latency_table.json",
        "train": "results/build_subset/train.csv",
        "val": "results/build_subset/val.csv",
        "images": "results/build_subset/images",
        "class_accuracy": "results/rank_classes/class_accuracy.csv",
        "manifest": "results/prepare_data/manifest.csv",
        "all_images": "results/prepare_data/images",
    }


def page_code(_):
    return [os.path.relpath(file) for room in ("claims", "report") for file in files_in(ROOT / "tfnas" / room)]


def shared_warm_up(wildcards):
    """What a variant's search starts from; none where it runs its own warm-up."""
    if not variants(the_claims())[wildcards.variant].shares_warm_up:
        return []
    seed = wildcards.sharing, wildcards.number
    return [str(unit_path(UNITS, WARM_UP, *seed)), str(warm_up_path(UNITS, *seed))]


def compared_unit(wildcards):
    """The unit that a variant's network is compared with; none for most."""
    name = variants(the_claims())[wildcards.variant].compared_at
    return [] if name is None else str(unit_path(UNITS, name, wildcards.sharing, wildcards.number))


def other_units(_, input):
    """Options that name them."""
    warm_up = f"--warm-up {input.warm_up[0]}" if input.warm_up else ""
    return f"{warm_up} --compared {input.compared}" if input.compared else warm_up


def values_of_warm_up(wildcards):
    values = warm_up_values(PARAMS, the_claims(), wildcards.sharing, int(wildcards.number))
    return json.dumps(values, sort_keys=True)


def values_of_unit(wildcards):
    values = unit_values(PARAMS, the_claims(), wildcards.variant, wildcards.sharing, int(wildcards.number))
    return json.dumps(values, sort_keys=True)


def all_units(_):
    """In the order of the seeds."""
    claims = the_claims()
    return [
        str(unit_path(UNITS, name, sharing, number))
        for number in range(claims.seeds)
        for sharing in claims.weight_sharing
        for name in needed_variants(claims)
    ]
