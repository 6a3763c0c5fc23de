# `snakemake claims`: each claim of the paper re-tested over seeds (docs/claims.md); no other target runs anything here.
# A unit is a variant of the search, a kind of weight sharing and a seed; what it depends on is in tfnas/claims/variants.py.
include: "claims_inputs.smk"


wildcard_constraints:
    variant="(?!warm_up/)[a-z0-9_]+",  # that unit has a rule of its own
    sharing="none|entangled",
    number="[0-9]+",


# alpha and beta frozen, once for the variants of a seed that have it in common
rule claims_warm_up:
    input:
        **unit_inputs(),
    output:
        unit=str(unit_path(UNITS, WARM_UP, "{sharing}", "{number}")),
        supernet=str(warm_up_path(UNITS, "{sharing}", "{number}")),
    log:
        "logs/claims/warm_up/{sharing}/seed_{number}.log",
    conda:
        "envs/tfnas.yaml"
    threads: threads_of("warm_up")
    resources:
        **resources_of("warm_up"),
    params:
        code=lambda _: unit_code(),
        values=values_of_warm_up,
        others="",
    message:
        "claims: warm-up, weight sharing {wildcards.sharing}, seed {wildcards.number}; log: {log}"
    shell:
        f"{UNIT_SHELL} --variant warm_up"


# one claim needs it or several: a search and, for accuracies, the training of its network
rule claims_unit:
    input:
        **unit_inputs(),
        warm_up=shared_warm_up,
        compared=compared_unit,
    output:
        unit=str(unit_path(UNITS, "{variant}", "{sharing}", "{number}")),
    log:
        "logs/claims/{variant}/{sharing}/seed_{number}.log",
    conda:
        "envs/tfnas.yaml"
    threads: threads_of("search")
    resources:
        **resources_of("search"),
    params:
        code=lambda _: unit_code(),
        values=values_of_unit,
        others=other_units,
    message:
        "claims: {wildcards.variant}, weight sharing {wildcards.sharing}, seed {wildcards.number}; log: {log}"
    shell:
        f"{UNIT_SHELL} --variant {{wildcards.variant}}"


# all units too: an existing page must not hide a missing one
localrules:
    claims,


rule claims:
    input:
        "results/claims/claims.html",
        all_units,
    message:
        "claims: every unit and the page are there"


# all verdicts on one page
rule claims_page:
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
