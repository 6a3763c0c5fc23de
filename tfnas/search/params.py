"""The sections `search` and `derive` of params.yaml."""

from __future__ import annotations

import math
from typing import Annotated, Literal

from pydantic import Field, model_validator

from tfnas.data.params import AugmentationParams
from tfnas.jobs.sections import AS_LIST, Count, CountOrZero, Fraction, NonNegative, Positive, Rate, Section

UNTRAINED = 0.9  # of ln K, the cross-entropy of guessing


def untrained_above(num_classes: int) -> float:
    """The cross-entropy above which a warm-up has taught the supernet hardly anything, as the log and report warn."""
    return UNTRAINED * math.log(num_classes)


class WeightStepParams(Section):
    """SGD on the supernet weights."""

    learning_rate: Positive
    momentum: Rate
    weight_decay: NonNegative


class ArchitectureStepParams(Section):
    """Adam on alpha and beta."""

    learning_rate: Positive
    betas: Annotated[tuple[Rate, Rate], AS_LIST]
    weight_decay: NonNegative
    every: Count  # weight steps
    log_softmax: bool  # replace alpha and beta by their log-softmax after each step
    paths: Literal["all", "one"]  # operations in the forward pass of an architecture step


class TemperatureParams(Section):
    initial: Positive
    decay: Fraction


class EvaluationParams(Section):
    """How each epoch's accuracies of the derived path and of random paths are taken."""

    random_paths: CountOrZero
    batches: Count  # of the 20 %, at most


class EarlyStoppingParams(Section):
    """Stop when the ranking of alpha has settled (Appendix E)."""

    layers: Fraction  # of the searchable layers that must have kept their ranking
    epochs: Count  # for this many in a row


class SearchParams(Section):
    epochs: CountOrZero  # 0: no supernet is trained, since every target names its network
    warmup_epochs: CountOrZero
    batch_size: Count
    weights: WeightStepParams
    architecture: ArchitectureStepParams
    temperature: TemperatureParams
    lambda_: Annotated[NonNegative, Field(alias="lambda")]
    latency_loss: Literal["target", "target_abs", "log", "linear"]
    lambda_2: Positive  # exponent of latency_loss log
    weight_sharing: Literal["none", "entangled"]
    channel_importance: Literal["depthwise", "projection", "product"]
    depth_space: Literal["sink", "skip_in", "skip_out"]
    second_path: Literal["random", "gumbel", "min_alpha", "max_alpha", "none"]
    elasticity_scaling: bool | Literal["integer_ratio"]  # true: exact; integer_ratio: the authors' steps
    evaluation: EvaluationParams
    early_stopping: EarlyStoppingParams | None
    gradient_clip: NonNegative
    reset_optimizers: bool
    recompute: bool  # in architecture steps: less memory, more time
    augmentation: AugmentationParams

    @model_validator(mode="after")
    def _searches(self) -> SearchParams:
        if 0 < self.epochs <= self.warmup_epochs:
            raise ValueError("warmup_epochs must be less than epochs, or alpha and beta are never trained")
        return self


class DeriveParams(Section):
    within: Literal["strongest", "budget"]
    measure_repeats: Count
