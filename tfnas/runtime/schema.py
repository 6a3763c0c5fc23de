"""params.yaml as frozen types: every key, its type and its range.

The source of each default stands beside the value in params.yaml and in `presets/`.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

Positive = Annotated[float, Field(gt=0)]
NonNegative = Annotated[float, Field(ge=0)]
Rate = Annotated[float, Field(ge=0, lt=1)]
Fraction = Annotated[float, Field(gt=0, le=1)]
Count = Annotated[int, Field(ge=1)]
CountOrZero = Annotated[int, Field(ge=0)]


class Section(BaseModel):
    """Unknown keys are errors; values cannot change after loading."""

    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True)


class DeviceParams(Section):
    """Where rank_classes, search, retrain and transfer compute."""

    name: Annotated[str, Field(pattern=r"^(cpu|cuda(:\d+)?)$")]
    threads: Count  # CPU threads of one job
    precision: Literal["float32", "bfloat16", "float16"]
    workers: CountOrZero  # data loading processes of one job


class TrackingParams(Section):
    experiment: str
    timeout_seconds: Count
    max_retries: CountOrZero


class ConstraintParams(Section):
    """Either an absolute latency or a fraction of that of the widest, deepest network."""

    latency_ms: Positive | None = None
    relative: Fraction | None = None

    @model_validator(mode="after")
    def _exactly_one(self) -> ConstraintParams:
        if (self.latency_ms is None) == (self.relative is None):
            raise ValueError("write exactly one of latency_ms and relative")
        return self


class TargetParams(Section):
    constraint: ConstraintParams
    dropout: Rate


class AugmentationParams(Section):
    """Training augmentation: RandomResizedCrop, horizontal flip, colour jitter."""

    crop_scale: tuple[Fraction, Fraction]
    flip: bool
    color_jitter: tuple[NonNegative, NonNegative, NonNegative, NonNegative]  # brightness, contrast, saturation, hue

    @model_validator(mode="after")
    def _ordered(self) -> AugmentationParams:
        if self.crop_scale[0] > self.crop_scale[1]:
            raise ValueError("crop_scale must be [smallest, largest]")
        return self


class PrepareDataParams(Section):
    source: Literal["digits", "imagefolder"]
    root: str | None

    @model_validator(mode="after")
    def _root_given(self) -> PrepareDataParams:
        if self.source == "imagefolder" and not self.root:
            raise ValueError("root is missing: write the folder that holds train/ and val/")
        if self.source == "digits" and self.root is not None:
            raise ValueError("digits are made here and have no root: write root: null, or source: imagefolder")
        return self


class FitParams(Section):
    epochs: Count
    batch_size: Count
    learning_rate: Positive


class RankClassesParams(Section):
    weights: str  # imagenet | fit | a file
    batch_size: Count
    fit: FitParams


class BuildSubsetParams(Section):
    groups: Count
    train_fraction: Annotated[float, Field(gt=0, lt=1)]


class ProfileLatencyParams(Section):
    table: str | None  # made elsewhere; null: measured here
    device: Annotated[str, Field(pattern=r"^(cpu|cuda(:\d+)?)$")]
    backend: str  # a shipped one or an entry point of the group tfnas.latency_backends
    precision: Literal["float32", "bfloat16", "float16"]
    channels_last: bool
    threads: Count
    batch_size: Count
    num_classes: Count
    widths_per_operation: Annotated[int, Field(ge=2)]
    warmup_runs: CountOrZero
    repeats: Count
    validation_networks: CountOrZero


class WeightStepParams(Section):
    """SGD on the supernet weights."""

    learning_rate: Positive
    momentum: Rate
    weight_decay: NonNegative


class ArchitectureStepParams(Section):
    """Adam on alpha and beta."""

    learning_rate: Positive
    betas: tuple[Rate, Rate]
    weight_decay: NonNegative
    every: Count  # weight steps
    log_softmax: bool  # replace alpha and beta by their log-softmax after each step


class TemperatureParams(Section):
    initial: Positive
    decay: Fraction


class SearchParams(Section):
    epochs: Count
    warmup_epochs: CountOrZero
    batch_size: Count
    weights: WeightStepParams
    architecture: ArchitectureStepParams
    temperature: TemperatureParams
    lambda_: Annotated[float, Field(ge=0, alias="lambda")]
    latency_loss: Literal["target", "target_abs"]
    second_path: Literal["random", "gumbel", "min_alpha", "max_alpha", "none"]
    elasticity_scaling: bool | Literal["integer_ratio"]  # true: exact; integer_ratio: the authors' steps
    gradient_clip: NonNegative
    reset_optimizers: bool
    augmentation: AugmentationParams

    @model_validator(mode="after")
    def _searches(self) -> SearchParams:
        if self.warmup_epochs >= self.epochs:
            raise ValueError("warmup_epochs must be less than epochs, or alpha and beta are never trained")
        return self


class DeriveParams(Section):
    measure_repeats: Count


class RecipeParams(Section):
    """Training of a derived network (Appendix B)."""

    epochs: Count
    batch_size: Annotated[int, Field(ge=2)]  # BatchNorm needs two
    learning_rate: Positive
    warmup_epochs: CountOrZero
    momentum: Rate
    weight_decay: NonNegative
    label_smoothing: Rate
    drop_connect: Rate
    augmentation: AugmentationParams

    @model_validator(mode="after")
    def _reaches_the_cosine(self) -> RecipeParams:
        if self.warmup_epochs > self.epochs:
            raise ValueError("warmup_epochs must not be more than epochs, or the learning rate never reaches its value")
        return self


class RetrainParams(RecipeParams):
    pass


class TransferParams(RecipeParams):
    targets: list[str]
    datasets: list[Literal["shifted-digits", "cifar10", "cifar100"]]
    root: str | None
    resolution: Count


class ReportParams(Section):
    title: str


class Params(Section):
    seed: CountOrZero
    space: str
    resolution: Annotated[int, Field(ge=8)]
    device: DeviceParams
    tracking: TrackingParams
    targets: Annotated[dict[Annotated[str, Field(pattern=r"^[A-Za-z0-9_]+$")], TargetParams], Field(min_length=1)]
    prepare_data: PrepareDataParams
    rank_classes: RankClassesParams
    build_subset: BuildSubsetParams
    profile_latency: ProfileLatencyParams
    search: SearchParams
    derive: DeriveParams
    retrain: RetrainParams
    transfer: TransferParams
    report: ReportParams

    @model_validator(mode="after")
    def _transfer_targets_exist(self) -> Params:
        for name in self.transfer.targets:
            if name not in self.targets:
                raise ValueError(
                    f"transfer.targets names {name!r}, which is not in targets ({', '.join(self.targets)})"
                )
        return self
