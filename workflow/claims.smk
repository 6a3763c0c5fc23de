# `snakemake claims`: each claim of the paper re-tested over seeds (docs/claims.md); no other target runs anything here.
# A unit is a variant of the search, a kind of weight sharing and a seed; what it depends on is in tfnas/claims/variants.py.
from tfnas.claims.claims import needed_variants
from tfnas.claims.units import unit_path
from tfnas.claims.variants import required_claims, unit_values, variants
from tfnas.stages.params import files_in

UNITS = Path("results/claims/units")
UNIT_ROOMS = ("claims/unit.py", "search", "train", "data", "latency", "space", "compute")  # code that changes a unit


wildcard_constraints:
    variant="[a-z0-9_]+",
    sharing="none|entangled",
    number="[0-9]+",


def the_claims():
    """The section `claims`; an error only where a target of this file is asked for."""
    try:
        return required_claims(PARAMS, "params.yaml")
    except UserError as error:
        raise WorkflowError(str(error)) from None


def unit_code(_):
    rooms = (ROOT / "tfnas" / room for room in UNIT_ROOMS)
    return [os.path.relpath(file) for room in rooms for file in ([room] if room.is_file() else files_in(room))]


def page_code(_):
    return [os.path.relpath(file) for room in ("claims", "report") for file in files_in(ROOT / "tfnas" / room)]


def compared_unit(wildcards):
    """The unit that a variant's network is compared with; none for most."""
    name = variants(the_claims())[wildcards.variant].compared_at
    return [] if name is None else str(unit_path(UNITS, name, wildcards.sharing, wildcards.number))


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


# one claim needs it or several: a search and, for accuracies, the training of its network
rule claims_unit:
    input:
        code=unit_code,
        script=os.path.relpath(ROOT / "workflow/scripts/claims/unit.py"),
        table="results/profile_latency/latency_table.json",
        train="results/build_subset/train.csv",
        val="results/build_subset/val.csv",
        images="results/build_subset/images",
        class_accuracy="results/rank_classes/class_accuracy.csv",
        manifest="results/prepare_data/manifest.csv",
        all_images="results/prepare_data/images",
        compared=compared_unit,
    output:
        str(unit_path(UNITS, "{variant}", "{sharing}", "{number}")),
    log:
        "logs/claims/{variant}/{sharing}/seed_{number}.log",
    conda:
        "envs/tfnas.yaml"
    threads: threads_of("search")
    resources:
        **resources_of("search"),
    params:
        values=values_of_unit,
        compared=lambda wildcards, input: f"--compared {input.compared}" if input.compared else "",
    message:
        "claims: {wildcards.variant}, weight sharing {wildcards.sharing}, seed {wildcards.number}; log: {log}"
    shell:
        "python {input.script:q} --params params.yaml --variant {wildcards.variant} --sharing {wildcards.sharing}"
        " --number {wildcards.number} --table {input.table} --train {input.train} --val {input.val}"
        " --images {input.images} --class-accuracy {input.class_accuracy} --manifest {input.manifest}"
        " --all-images {input.all_images} {params.compared} --out $(dirname {output}) --log {log}"


# all verdicts on one page
rule claims:
    input:
        code=page_code,
        script=os.path.relpath(ROOT / "workflow/scripts/claims/page.py"),
        units=all_units,
        table="results/profile_latency/latency_table.json",
        manifest="results/prepare_data/manifest.csv",
    output:
        page="results/claims/claims.html",
        verdicts="results/claims/claims.json",
    log:
        "logs/claims/page.log",
    conda:
        "envs/tfnas.yaml"
    message:
        "claims: what holds, is not shown or is contradicted; log: {log}"
    shell:
        "python {input.script:q} --params params.yaml --units results/claims/units --table {input.table}"
        " --manifest {input.manifest} --out results/claims --log {log}"
