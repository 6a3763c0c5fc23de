# The pipeline in the order of its data. dvc.yaml holds the same jobs; a test compares the two.
# Each rule runs workflow/scripts/<rule>.py on params.yaml and writes into results/<rule>.
include: "workflow/common.smk"


rule all:
    input:
        everything,


# before the minutes of profile_latency, so that a broken image is named at once
rule prepare_data:
    input:
        code("prepare_data", "data"),
    output:
        manifest="results/prepare_data/manifest.csv",
        classes="results/prepare_data/classes.csv",
        broken="results/prepare_data/broken.csv",
        images=directory("results/prepare_data/images"),
        transfer=directory("results/prepare_data/transfer"),
        provenance="results/prepare_data/provenance.json",
    log:
        "logs/prepare_data.log",
    priority: 1
    threads: 1
    params:
        values=values("prepare_data"),
    shell:
        "python {SCRIPTS}/prepare_data.py --params params.yaml --out results/prepare_data --log {log}"


# Appendix B: top-1 accuracy of each class over all training images
rule rank_classes:
    input:
        code("rank_classes", "data"),
        manifest="results/prepare_data/manifest.csv",
        images="results/prepare_data/images",
    output:
        accuracy="results/rank_classes/class_accuracy.csv",
        figure="results/rank_classes/class_accuracy.svg",
        metrics="results/rank_classes/metrics.json",
        provenance="results/rank_classes/provenance.json",
    log:
        "logs/rank_classes.log",
    threads: job_threads
    resources:
        gpu=job_gpus,
    params:
        values=values("rank_classes"),
    shell:
        "python {SCRIPTS}/rank_classes.py --params params.yaml"
        " --manifest {input.manifest} --images {input.images}"
        " --out results/rank_classes --log {log}"


# Appendix B: one class out of each accuracy group, split 80/20
rule build_subset:
    input:
        code("build_subset", "data"),
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
    threads: 1
    params:
        values=values("build_subset"),
    shell:
        "python {SCRIPTS}/build_subset.py --params params.yaml"
        " --class-accuracy {input.accuracy} --manifest {input.manifest} --images {input.images}"
        " --out results/build_subset --log {log}"


# Sec. 3.1: the lookup table; it takes all cores, so that no other job disturbs what it measures
rule profile_latency:
    input:
        code("profile_latency", "authors", "latency", "space"),
    output:
        table="results/profile_latency/latency_table.json",
        validation="results/profile_latency/validation.csv",
        metrics="results/profile_latency/metrics.json",
        provenance="results/profile_latency/provenance.json",
    log:
        "logs/profile_latency.log",
    threads: all_threads
    resources:
        gpu=profile_gpus,
    params:
        values=values("profile_latency"),
    shell:
        "python {SCRIPTS}/profile_latency.py --params params.yaml" " --out results/profile_latency --log {log}"


# Appendix B: the epochs with alpha and beta frozen, once for all targets
rule warm_up:
    input:
        code("warm_up", "search", "data", "space"),
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
    threads: job_threads
    resources:
        gpu=job_gpus,
    params:
        values=values("warm_up"),
    shell:
        "python {SCRIPTS}/warm_up.py --params params.yaml"
        " --train {input.train} --val {input.val} --images {input.images}"
        " --out results/warm_up --log {log}"


# Sec. 3: bi-sampling, sink-connecting, elasticity-scaling
rule search:
    input:
        code("search", "search", "data", "latency", "space"),
        train="results/build_subset/train.csv",
        val="results/build_subset/val.csv",
        images="results/build_subset/images",
        table="results/profile_latency/latency_table.json",
        warm_up="results/warm_up/supernet.pt",
    output:
        supernet="results/search/{target}/supernet.pt",
        history="results/search/{target}/history.csv",
        metrics="results/search/{target}/metrics.json",
        provenance="results/search/{target}/provenance.json",
    log:
        "logs/search/{target}.log",
    threads: job_threads
    resources:
        gpu=job_gpus,
    params:
        values=values("search"),
    shell:
        "python {SCRIPTS}/search.py --params params.yaml --target {wildcards.target}"
        " --train {input.train} --val {input.val} --images {input.images} --table {input.table}"
        " --warm-up {input.warm_up}"
        " --out results/search/{wildcards.target} --log {log}"


# Eq. 10, 11; it measures the network, so it takes all cores
rule derive:
    input:
        code("derive", "search", "latency", "space"),
        supernet="results/search/{target}/supernet.pt",
        table="results/profile_latency/latency_table.json",
    output:
        architecture="results/derive/{target}/architecture.json",
        metrics="results/derive/{target}/metrics.json",
        provenance="results/derive/{target}/provenance.json",
    log:
        "logs/derive/{target}.log",
    threads: all_threads
    resources:
        gpu=profile_gpus,
    params:
        values=values("derive"),
    shell:
        "python {SCRIPTS}/derive.py --params params.yaml --target {wildcards.target}"
        " --supernet {input.supernet} --table {input.table}"
        " --out results/derive/{wildcards.target} --log {log}"


# Appendix B: from scratch, on all classes
rule retrain:
    input:
        code("retrain", "train", "data", "space"),
        architecture="results/derive/{target}/architecture.json",
        manifest="results/prepare_data/manifest.csv",
        images="results/prepare_data/images",
    output:
        weights="results/retrain/{target}/weights.pt",
        history="results/retrain/{target}/history.csv",
        metrics="results/retrain/{target}/metrics.json",
        provenance="results/retrain/{target}/provenance.json",
    log:
        "logs/retrain/{target}.log",
    threads: job_threads
    resources:
        gpu=job_gpus,
    params:
        values=values("retrain"),
    shell:
        "python {SCRIPTS}/retrain.py --params params.yaml --target {wildcards.target}"
        " --architecture {input.architecture} --manifest {input.manifest} --images {input.images}"
        " --out results/retrain/{wildcards.target} --log {log}"


# Appendix F: other data, from the retrained weights
rule transfer:
    input:
        code("transfer", "train", "data", "space"),
        architecture="results/derive/{target}/architecture.json",
        weights="results/retrain/{target}/weights.pt",
        data="results/prepare_data/transfer",
    output:
        weights="results/transfer/{target}/{dataset}/weights.pt",
        history="results/transfer/{target}/{dataset}/history.csv",
        metrics="results/transfer/{target}/{dataset}/metrics.json",
        provenance="results/transfer/{target}/{dataset}/provenance.json",
    log:
        "logs/transfer/{target}/{dataset}.log",
    threads: job_threads
    resources:
        gpu=job_gpus,
    params:
        values=values("transfer"),
    shell:
        "python {SCRIPTS}/transfer.py --params params.yaml"
        " --target {wildcards.target} --dataset {wildcards.dataset}"
        " --architecture {input.architecture} --weights {input.weights} --data {input.data}"
        " --out results/transfer/{wildcards.target}/{wildcards.dataset} --log {log}"


rule report:
    input:
        code("report", "report", "latency", "space"),
        outputs_of("prepare_data", "rank_classes", "build_subset", "profile_latency", "warm_up"),
        outputs_of("search", "derive", "retrain", target=TARGETS),
        outputs_of("transfer", target=TRANSFER_TARGETS, dataset=DATASETS),
    output:
        page="results/report/report.html",
        summary="results/report/summary.json",
        table="results/report/summary.csv",
        provenance="results/report/provenance.json",
    log:
        "logs/report.log",
    threads: 1
    params:
        values=values("report"),
    shell:
        "python {SCRIPTS}/report.py --params params.yaml --results results" " --out results/report --log {log}"
