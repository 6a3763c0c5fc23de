# The pipeline, in the order of its data. Each rule runs workflow/scripts/<rule>.py on params.yaml and writes into
# results/<rule>. What a rule reads, writes and depends on is in tfnas/stages/registry.py, from which dvc.yaml is also
# generated. `snakemake --list-rules`, `snakemake -n -p` and docs/architecture.md show it.
include: "workflow/common.smk"


report: "workflow/report/run.rst"  # for `snakemake --report`; rule report makes our own page


rule all:
    input:
        everything,
    message:
        "all: every result is there"


# with priority, so that a broken image is reported before profile_latency takes its minutes
rule prepare_data:
    input:
        **inputs_of("prepare_data"),
    output:
        **outputs_of("prepare_data"),
    log:
        log_of("prepare_data"),
    priority: 1
    threads: threads_of("prepare_data")
    resources:
        **resources_of("prepare_data"),
    params:
        values=values_of("prepare_data"),
    message:
        message_of("prepare_data")
    shell:
        command_of("prepare_data")


# Appendix B: top-1 accuracy of each class over all training images
rule rank_classes:
    input:
        **inputs_of("rank_classes"),
    output:
        **outputs_of("rank_classes"),
    log:
        log_of("rank_classes"),
    threads: threads_of("rank_classes")
    resources:
        **resources_of("rank_classes"),
    params:
        values=values_of("rank_classes"),
    message:
        message_of("rank_classes")
    shell:
        command_of("rank_classes")


# Appendix B: one class from each accuracy group, split 80/20
rule build_subset:
    input:
        **inputs_of("build_subset"),
    output:
        **outputs_of("build_subset"),
    log:
        log_of("build_subset"),
    threads: threads_of("build_subset")
    resources:
        **resources_of("build_subset"),
    params:
        values=values_of("build_subset"),
    message:
        message_of("build_subset")
    shell:
        command_of("build_subset")


# Sec. 3.1: the lookup table; takes all cores, so that no other job disturbs the measurement
rule profile_latency:
    input:
        **inputs_of("profile_latency"),
    output:
        **outputs_of("profile_latency"),
    log:
        log_of("profile_latency"),
    threads: threads_of("profile_latency")
    resources:
        **resources_of("profile_latency"),
    params:
        values=values_of("profile_latency"),
    message:
        message_of("profile_latency")
    shell:
        command_of("profile_latency")


# Appendix B: the epochs with alpha and beta frozen, once for all targets
rule warm_up:
    input:
        **inputs_of("warm_up"),
    output:
        **outputs_of("warm_up"),
    log:
        log_of("warm_up"),
    threads: threads_of("warm_up")
    resources:
        **resources_of("warm_up"),
    params:
        values=values_of("warm_up"),
    message:
        message_of("warm_up")
    shell:
        command_of("warm_up")


# Sec. 3: bi-sampling, sink-connecting, elasticity-scaling
rule search:
    input:
        **inputs_of("search"),
    output:
        **outputs_of("search"),
    log:
        log_of("search"),
    threads: threads_of("search")
    resources:
        **resources_of("search"),
    params:
        values=values_of("search"),
    message:
        message_of("search")
    shell:
        command_of("search")


# Eq. 10, 11: the strongest network; measures it, so takes all cores
rule derive:
    input:
        **inputs_of("derive"),
    output:
        **outputs_of("derive"),
    log:
        log_of("derive"),
    threads: threads_of("derive")
    resources:
        **resources_of("derive"),
    params:
        values=values_of("derive"),
    message:
        message_of("derive")
    shell:
        command_of("derive")


# Appendix B: from scratch, on all classes
rule retrain:
    input:
        **inputs_of("retrain"),
    output:
        **outputs_of("retrain"),
    log:
        log_of("retrain"),
    threads: threads_of("retrain")
    resources:
        **resources_of("retrain"),
    params:
        values=values_of("retrain"),
    message:
        message_of("retrain")
    shell:
        command_of("retrain")


# Appendix F: on other data, starting from the retrained weights
rule transfer:
    input:
        **inputs_of("transfer"),
    output:
        **outputs_of("transfer"),
    log:
        log_of("transfer"),
    threads: threads_of("transfer")
    resources:
        **resources_of("transfer"),
    params:
        values=values_of("transfer"),
    message:
        message_of("transfer")
    shell:
        command_of("transfer")


# what the search has to beat: random and known networks at the target's latency; measures them, so takes all cores
rule scale_baseline:
    input:
        **inputs_of("scale_baseline"),
    output:
        **outputs_of("scale_baseline"),
    log:
        log_of("scale_baseline"),
    threads: threads_of("scale_baseline")
    resources:
        **resources_of("scale_baseline"),
    params:
        values=values_of("scale_baseline"),
    message:
        message_of("scale_baseline")
    shell:
        command_of("scale_baseline")


# by the recipe of retrain
rule train_baseline:
    input:
        **inputs_of("train_baseline"),
    output:
        **outputs_of("train_baseline"),
    log:
        log_of("train_baseline"),
    threads: threads_of("train_baseline")
    resources:
        **resources_of("train_baseline"),
    params:
        values=values_of("train_baseline"),
    message:
        message_of("train_baseline")
    shell:
        command_of("train_baseline")


# the same random networks with the weights of the searched supernet: does it rank them as training does?
rule rank_baselines:
    input:
        **inputs_of("rank_baselines"),
    output:
        **outputs_of("rank_baselines"),
    log:
        log_of("rank_baselines"),
    threads: threads_of("rank_baselines")
    resources:
        **resources_of("rank_baselines"),
    params:
        values=values_of("rank_baselines"),
    message:
        message_of("rank_baselines")
    shell:
        command_of("rank_baselines")


# all results on one page
rule report:
    input:
        **inputs_of("report"),
    output:
        **outputs_of("report"),
    log:
        log_of("report"),
    threads: threads_of("report")
    resources:
        **resources_of("report"),
    params:
        values=values_of("report"),
    message:
        message_of("report")
    shell:
        command_of("report")


include: "workflow/claims.smk"


finish_rules()
