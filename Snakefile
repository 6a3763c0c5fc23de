# The pipeline in the order of its data. dvc.yaml holds the same jobs; a test compares the two.
# Each rule runs workflow/scripts/<rule>.py on params.yaml and writes into results/<rule>.
include: "workflow/common.smk"


report: "workflow/report/run.rst"  # for snakemake --report; the page of rule report says more


rule all:
    input:
        everything,
    message:
        "all: every result is there"


# before the minutes of profile_latency, so that a broken image is named at once
rule prepare_data:
    input:
        code("prepare_data"),
        script=script_of("prepare_data"),
    output:
        manifest="results/prepare_data/manifest.csv",
        classes="results/prepare_data/classes.csv",
        broken="results/prepare_data/broken.csv",
        folders="results/prepare_data/folders.csv",
        images=directory("results/prepare_data/images"),
        transfer=directory("results/prepare_data/transfer"),
        provenance="results/prepare_data/provenance.json",
    log:
        "logs/prepare_data.log",
    priority: 1
    conda:
        "workflow/envs/tfnas.yaml"
    threads: 1
    resources:
        mem_mb=mem_mb("prepare_data"),
        runtime=minutes("prepare_data"),
    params:
        values=values("prepare_data"),
    message:
        "prepare_data: list the images; log: {log}"
    shell:
        "python {input.script:q} --params params.yaml --out results/prepare_data --log {log}"


# Appendix B: top-1 accuracy of each class over all training images
rule rank_classes:
    input:
        code("rank_classes"),
        user_files("rank_classes"),
        script=script_of("rank_classes"),
        manifest="results/prepare_data/manifest.csv",
        images="results/prepare_data/images",
    output:
        accuracy="results/rank_classes/class_accuracy.csv",
        figure=report(
            "results/rank_classes/class_accuracy.svg", caption="workflow/report/classes.rst", category="Classes"
        ),
        metrics="results/rank_classes/metrics.json",
        provenance="results/rank_classes/provenance.json",
    log:
        "logs/rank_classes.log",
    conda:
        "workflow/envs/tfnas.yaml"
    threads: job_threads
    resources:
        gpu=job_gpus,
        mem_mb=mem_mb("rank_classes"),
        runtime=minutes("rank_classes"),
    params:
        values=values("rank_classes"),
    message:
        "rank_classes: top-1 accuracy of each class; log: {log}"
    shell:
        "python {input.script:q} --params params.yaml"
        " --manifest {input.manifest} --images {input.images}"
        " --out results/rank_classes --log {log}"


# Appendix B: one class out of each accuracy group, split 80/20
rule build_subset:
    input:
        code("build_subset"),
        user_files("build_subset"),
        script=script_of("build_subset"),
        accuracy="results/rank_classes/class_accuracy.csv",
        manifest="results/prepare_data/manifest.csv",
        images="results/prepare_data/images",
    output:
        train="results/build_subset/train.csv",
        val="results/build_subset/val.csv",
        classes="results/build_subset/classes.csv",
        images=directory("results/build_subset/images"),
        provenance="results/build_subset/provenance.json",
    log:
        "logs/build_subset.log",
    conda:
        "workflow/envs/tfnas.yaml"
    threads: 1
    resources:
        mem_mb=mem_mb("build_subset"),
        runtime=minutes("build_subset"),
    params:
        values=values("build_subset"),
    message:
        "build_subset: one class out of each accuracy group; log: {log}"
    shell:
        "python {input.script:q} --params params.yaml"
        " --class-accuracy {input.accuracy} --manifest {input.manifest} --images {input.images}"
        " --out results/build_subset --log {log}"


# Sec. 3.1: the lookup table; it takes all cores, so that no other job disturbs what it measures
rule profile_latency:
    input:
        code("profile_latency"),
        user_files("profile_latency"),
        script=script_of("profile_latency"),
    output:
        table="results/profile_latency/latency_table.json",
        validation=report(
            "results/profile_latency/validation.csv",
            caption="workflow/report/validation.rst",
            category="Latency table",
        ),
        metrics="results/profile_latency/metrics.json",
        provenance="results/profile_latency/provenance.json",
    log:
        "logs/profile_latency.log",
    conda:
        "workflow/envs/tfnas.yaml"
    threads: all_threads
    resources:
        gpu=profile_gpus,
        mem_mb=mem_mb("profile_latency"),
        runtime=minutes("profile_latency"),
    params:
        values=values("profile_latency"),
    message:
        "profile_latency: measure the latency table, alone on all cores; log: {log}"
    shell:
        "python {input.script:q} --params params.yaml" " --out results/profile_latency --log {log}"


# Appendix B: the epochs with alpha and beta frozen, once for all targets
rule warm_up:
    input:
        code("warm_up"),
        user_files("warm_up"),
        script=script_of("warm_up"),
        train="results/build_subset/train.csv",
        val="results/build_subset/val.csv",
        images="results/build_subset/images",
    output:
        supernet="results/warm_up/supernet.pt",
        history="results/warm_up/history.csv",
        metrics="results/warm_up/metrics.json",
        provenance="results/warm_up/provenance.json",
    log:
        "logs/warm_up.log",
    conda:
        "workflow/envs/tfnas.yaml"
    threads: job_threads
    resources:
        gpu=job_gpus,
        mem_mb=mem_mb("warm_up"),
        runtime=minutes("warm_up"),
    params:
        values=values("warm_up"),
    message:
        "warm_up: train the supernet with alpha and beta frozen, once for all targets; log: {log}"
    shell:
        "python {input.script:q} --params params.yaml"
        " --train {input.train} --val {input.val} --images {input.images}"
        " --out results/warm_up --log {log}"


# Sec. 3: bi-sampling, sink-connecting, elasticity-scaling
rule search:
    input:
        code("search"),
        user_files("search"),
        script=script_of("search"),
        train="results/build_subset/train.csv",
        val="results/build_subset/val.csv",
        images="results/build_subset/images",
        table="results/profile_latency/latency_table.json",
        warm_up="results/warm_up/supernet.pt",
    output:
        supernet="results/search/{target}/supernet.pt",
        history=report(
            "results/search/{target}/history.csv",
            caption="workflow/report/search.rst",
            category="Search",
            labels={"target": "{target}"},
        ),
        metrics="results/search/{target}/metrics.json",
        provenance="results/search/{target}/provenance.json",
    log:
        "logs/search/{target}.log",
    conda:
        "workflow/envs/tfnas.yaml"
    threads: job_threads
    resources:
        gpu=job_gpus,
        mem_mb=mem_mb("search"),
        runtime=minutes("search"),
    params:
        values=values("search"),
    message:
        "search {wildcards.target}: operations, depths and widths for the target latency; log: {log}"
    shell:
        "python {input.script:q} --params params.yaml --target {wildcards.target}"
        " --train {input.train} --val {input.val} --images {input.images} --table {input.table}"
        " --warm-up {input.warm_up}"
        " --out results/search/{wildcards.target} --log {log}"


# Eq. 10, 11; it measures the network, so it takes all cores
rule derive:
    input:
        code("derive"),
        user_files("derive"),
        script=script_of("derive"),
        supernet="results/search/{target}/supernet.pt",
        table="results/profile_latency/latency_table.json",
    output:
        architecture=report(
            "results/derive/{target}/architecture.json",
            caption="workflow/report/architecture.rst",
            category="Networks",
            labels={"target": "{target}"},
        ),
        metrics="results/derive/{target}/metrics.json",
        provenance="results/derive/{target}/provenance.json",
    log:
        "logs/derive/{target}.log",
    conda:
        "workflow/envs/tfnas.yaml"
    threads: all_threads
    resources:
        gpu=profile_gpus,
        mem_mb=mem_mb("derive"),
        runtime=minutes("derive"),
    params:
        values=values("derive"),
    message:
        "derive {wildcards.target}: the strongest network, measured end to end; log: {log}"
    shell:
        "python {input.script:q} --params params.yaml --target {wildcards.target}"
        " --supernet {input.supernet} --table {input.table}"
        " --out results/derive/{wildcards.target} --log {log}"


# Appendix B: from scratch, on all classes
rule retrain:
    input:
        code("retrain"),
        script=script_of("retrain"),
        architecture="results/derive/{target}/architecture.json",
        manifest="results/prepare_data/manifest.csv",
        images="results/prepare_data/images",
    output:
        weights="results/retrain/{target}/weights.pt",
        history=report(
            "results/retrain/{target}/history.csv",
            caption="workflow/report/training.rst",
            category="Training",
            labels={"target": "{target}", "data": "all classes"},
        ),
        metrics="results/retrain/{target}/metrics.json",
        provenance="results/retrain/{target}/provenance.json",
    log:
        "logs/retrain/{target}.log",
    conda:
        "workflow/envs/tfnas.yaml"
    threads: job_threads
    resources:
        gpu=job_gpus,
        mem_mb=mem_mb("retrain"),
        runtime=minutes("retrain"),
    params:
        values=values("retrain"),
    message:
        "retrain {wildcards.target}: train the network from scratch; log: {log}"
    shell:
        "python {input.script:q} --params params.yaml --target {wildcards.target}"
        " --architecture {input.architecture} --manifest {input.manifest} --images {input.images}"
        " --out results/retrain/{wildcards.target} --log {log}"


# Appendix F: other data, from the retrained weights
rule transfer:
    input:
        code("transfer"),
        script=script_of("transfer"),
        architecture="results/derive/{target}/architecture.json",
        weights="results/retrain/{target}/weights.pt",
        data="results/prepare_data/transfer",
    output:
        weights="results/transfer/{target}/{dataset}/weights.pt",
        history=report(
            "results/transfer/{target}/{dataset}/history.csv",
            caption="workflow/report/training.rst",
            category="Training",
            labels={"target": "{target}", "data": "{dataset}"},
        ),
        metrics="results/transfer/{target}/{dataset}/metrics.json",
        provenance="results/transfer/{target}/{dataset}/provenance.json",
    log:
        "logs/transfer/{target}/{dataset}.log",
    conda:
        "workflow/envs/tfnas.yaml"
    threads: job_threads
    resources:
        gpu=job_gpus,
        mem_mb=mem_mb("transfer"),
        runtime=minutes("transfer"),
    params:
        values=values("transfer"),
    message:
        "transfer {wildcards.target} {wildcards.dataset}: fine-tune on other data; log: {log}"
    shell:
        "python {input.script:q} --params params.yaml"
        " --target {wildcards.target} --dataset {wildcards.dataset}"
        " --architecture {input.architecture} --weights {input.weights} --data {input.data}"
        " --out results/transfer/{wildcards.target}/{wildcards.dataset} --log {log}"


rule report:
    input:
        code("report"),
        user_files("report"),
        outputs_of("prepare_data", "rank_classes", "build_subset", "profile_latency", "warm_up"),
        outputs_of("search", "derive", "retrain", target=TARGETS),
        outputs_of("transfer", target=TRANSFER_TARGETS, dataset=DATASETS),
        script=script_of("report"),
    output:
        page=report("results/report/report.html", caption="workflow/report/page.rst", category="Overview"),
        summary="results/report/summary.json",
        table=report("results/report/summary.csv", caption="workflow/report/summary.rst", category="Overview"),
        provenance="results/report/provenance.json",
    log:
        "logs/report.log",
    conda:
        "workflow/envs/tfnas.yaml"
    threads: 1
    resources:
        mem_mb=mem_mb("report"),
        runtime=minutes("report"),
    params:
        values=values("report"),
    message:
        "report: one page of all results; log: {log}"
    shell:
        "python {input.script:q} --params params.yaml --results results" " --out results/report --log {log}"


agree_with_dvc()


onsuccess:
    tell_dvc(Path("."))


onerror:
    tell_dvc(Path("."))
    repeat_errors(log)
