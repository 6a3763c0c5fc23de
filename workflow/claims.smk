# `snakemake claims`: each claim of the paper re-tested over seeds (docs/claims.md); no other target runs anything here.
# A unit is a variant of the search, a kind of weight sharing and a seed; what it depends on is in tfnas/claims/variants.py.
include: "claims_inputs.smk"


wildcard_constraints:
    variant="[a-z0-9_]+",
    sharing="none|entangled",
    number="[0-9]+",


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
