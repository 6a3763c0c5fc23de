"""params.yaml as frozen types: every key, its type and its range.

The source of each default stands beside the value in params.yaml and in `presets/`.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, field_validator, model_validator

Positive = Annotated[float, Field(gt=0)]
NonNegative = Annotated[float, Field(ge=0), AfterValidator(abs)]  # abs: -0.0 is 0.0, for both engines
Rate = Annotated[float, Field(ge=0, lt=1), AfterValidator(abs)]
Fraction = Annotated[float, Field(gt=0, le=1)]
Count = Annotated[int, Field(ge=1)]
CountOrZero = Annotated[int, Field(ge=0)]
AS_LIST = Field(strict=False)  # of a tuple: YAML has lists only


class Section(BaseModel):
    """Unknown keys are errors; values cannot change after loading.

    Strict: DVC compares the values as they are written, Snakemake the validated ones, so nothing may become another
    value here. An integer for a float may: Python calls the two equal.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


class DeviceParams(Section):
    """Where rank_classes, search, retrain and transfer compute."""

    name: Annotated[str, Field(pattern=r"^(cpu|cuda(:\d+)?)$")]
    threads: Count  # CPU threads of one job
    precision: Literal["float32", "bfloat16", "float16"]
    workers: CountOrZero  # data loading processes of one job


class TrackingParams(Section):
    experiment: Annotated[str, Field(max_length=500)]  # as long as MLflow takes
    timeout_seconds: Count
    max_retries: CountOrZero

    @field_validator("experiment")
    @classmethod
    def _is_a_name(cls, name: str) -> str:
        if not name.strip() or not name.isprintable():
            raise ValueError("experiment must be a name of printable characters, on one line")
        return name


class JobResources(Section):
    """What a job of one stage asks of a cluster; a GPU is asked for where its device is one."""

    mem_mb: Count
    minutes: Count  # the scheduler stops a job that takes longer; the next try goes on from its checkpoint


class ResourcesParams(Section):
    prepare_data: JobResources
    rank_classes: JobResources
    build_subset: JobResources
    profile_latency: JobResources
    warm_up: JobResources
    search: JobResources
    derive: JobResources
    retrain: JobResources
    transfer: JobResources
    report: JobResources


class ConstraintParams(Section):
    """Either an absolute latency, or a place between the fastest network of the space (0) and the slowest (1)."""

    latency_ms: Positive | None = None
    relative: Annotated[float, Field(ge=0, le=1), AfterValidator(abs)] | None = None

    @model_validator(mode="after")
    def _exactly_one(self) -> ConstraintParams:
        if len(self.model_fields_set) != 1 or self.latency_ms == self.relative:  # equal: both are None
            raise ValueError("write exactly one of latency_ms and relative")
        return self


class TargetParams(Section):
    constraint: ConstraintParams
    dropout: Rate


class AugmentationParams(Section):
    """Training augmentation: RandomResizedCrop, horizontal flip, colour jitter."""

    crop_scale: Annotated[tuple[Fraction, Fraction], AS_LIST]
    flip: bool
    color_jitter: Annotated[tuple[NonNegative, NonNegative, NonNegative, NonNegative], AS_LIST]
    # brightness, contrast, saturation, hue

    @model_validator(mode="after")
    def _ordered(self) -> AugmentationParams:
        if self.crop_scale[0] > self.crop_scale[1]:
            raise ValueError("crop_scale must be [smallest, largest]")
        return self


class PrepareDataParams(Section):
    source: Literal["digits", "imagefolder", "imagenet", "cifar10", "cifar100"]
    root: str | None
    val_fraction: Rate  # of each class of an image folder without train/ and val/
    verify: bool  # decode every image
    on_bad_image: Literal["error", "skip"]
    exif: Literal["apply", "ignore"]  # orientation of image files
    download: bool  # CIFAR, also for transfer

    @model_validator(mode="after")
    def _root_given(self) -> PrepareDataParams:
        if self.source != "digits" and not self.root:
            raise ValueError(f"root is missing: write the folder that holds {self.source}")
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


class MaterializeParams(Section):
    """A copy of the subset's images in a few large files, smaller where they are larger."""

    format: Literal["none", "jpeg", "raw"]  # raw: RGB bytes, nothing to decode
    shorter_side: Annotated[int, Field(ge=8)]  # pixels, at most
    quality: Annotated[int, Field(ge=1, le=100)]  # of jpeg


class BuildSubsetParams(Section):
    strategy: Literal["ranked_groups", "random", "class_list"]
    groups: Count  # classes of ranked_groups and random
    class_list: str | None  # a file that names the classes
    train_fraction: Annotated[float, Field(gt=0, lt=1)]
    materialize: MaterializeParams

    @model_validator(mode="after")
    def _list_given(self) -> BuildSubsetParams:
        if (self.strategy == "class_list") != (self.class_list is not None):
            raise ValueError("write a file as class_list with strategy: class_list, and class_list: null without")
        return self


class ProfileLatencyParams(Section):
    table: str | None  # made elsewhere; null: measured here
    device: Annotated[str, Field(pattern=r"^(cpu|cuda(:\d+)?)$")]
    backend: str  # a shipped one or an entry point of the group tfnas.latency_backends
    precision: Literal["float32", "bfloat16", "float16"]
    channels_last: bool
    threads: Count
    batch_size: Count
    num_classes: Count
    minutes: Positive  # budget of the measuring
    tolerance: Annotated[float, Field(gt=0, lt=1)]  # relative; of each knot, and of the lines between knots
    warmup_runs: CountOrZero
    repeats: Count  # runs in a row each time a point is visited
    validation_networks: CountOrZero
    calibrated: bool  # correct the table by the validation networks
    on_busy: Literal["warn", "refuse"]  # when other programs load the machine


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


class TemperatureParams(Section):
    initial: Positive
    decay: Fraction


class EarlyStoppingParams(Section):
    """Stop when the ranking of alpha has settled (Appendix E)."""

    layers: Fraction  # of the searchable layers that must have kept their ranking
    epochs: Count  # for so many


class SearchParams(Section):
    epochs: Count
    warmup_epochs: CountOrZero
    batch_size: Count
    weights: WeightStepParams
    architecture: ArchitectureStepParams
    temperature: TemperatureParams
    lambda_: Annotated[NonNegative, Field(alias="lambda")]
    latency_loss: Literal["target", "target_abs", "log", "linear"]
    lambda_2: Positive  # exponent of latency_loss log
    depth_space: Literal["sink", "skip_in", "skip_out"]
    second_path: Literal["random", "gumbel", "min_alpha", "max_alpha", "none"]
    elasticity_scaling: bool | Literal["integer_ratio"]  # true: exact; integer_ratio: the authors' steps
    early_stopping: EarlyStoppingParams | None
    gradient_clip: NonNegative
    reset_optimizers: bool
    recompute: bool  # in architecture steps: less memory, more time
    augmentation: AugmentationParams

    @model_validator(mode="after")
    def _searches(self) -> SearchParams:
        if self.warmup_epochs >= self.epochs:
            raise ValueError("warmup_epochs must be less than epochs, or alpha and beta are never trained")
        return self


class DeriveParams(Section):
    measure_repeats: Count


class ExtrasParams(Section):
    """What the paper's recipe does not have; zero, or true for the decay, is the paper's."""

    ema_decay: Rate  # of an exponential moving average of the weights, which is then validated and written
    mixup: NonNegative  # alpha of the Beta distribution that the mixing rate comes from; 0: no mixing
    cutmix: NonNegative  # the same, for pasted rectangles
    rand_augment: Annotated[int, Field(ge=0, le=30)]  # magnitude of two random changes of each image; 0: none
    decay_norm_and_bias: bool  # weight decay on BatchNorm's parameters and on biases


class RecipeParams(Section):
    """Training of a derived network (Appendix B)."""

    epochs: Count
    batch_size: Annotated[int, Field(ge=2)]  # BatchNorm needs two
    learning_rate: Positive
    warmup_epochs: CountOrZero
    momentum: Rate
    nesterov: bool
    weight_decay: NonNegative
    label_smoothing: Rate
    drop_connect: Rate
    augmentation: AugmentationParams
    extras: ExtrasParams
    accumulate: Count  # parts of a batch, one after the other; BatchNorm sees a part
    channels_last: bool
    compile: bool  # torch.compile
    sync_batchnorm: bool  # one BatchNorm over all processes of torchrun
    checkpoint_every_steps: CountOrZero  # within an epoch; 0: only after it

    @model_validator(mode="after")
    def _consistent(self) -> RecipeParams:
        if self.batch_size % self.accumulate or self.batch_size // self.accumulate < 2:
            raise ValueError(
                f"accumulate {self.accumulate} must divide batch_size {self.batch_size} into equal parts of 2 or more"
            )
        if self.nesterov and self.momentum == 0:
            raise ValueError("nesterov needs a momentum above 0")
        return self

    @model_validator(mode="after")
    def _reaches_the_cosine(self) -> RecipeParams:
        if self.warmup_epochs > self.epochs:
            raise ValueError("warmup_epochs must not be more than epochs, or the learning rate never reaches its value")
        return self


class RetrainParams(RecipeParams):
    pass


class TransferParams(RecipeParams):
    layers: Literal["all", "head"]  # that are trained
    targets: list[str]
    datasets: list[Literal["shifted-digits", "cifar10", "cifar100"]]
    root: str | None
    resolution: Count


class ReportParams(Section):
    title: Annotated[str, Field(pattern=r"^\P{Cc}+$")]  # no control characters
    comparison: str | None  # a comparison.csv; null: none is shown


class Params(Section):
    seed: CountOrZero
    space: str
    resolution: Annotated[int, Field(ge=8)]
    device: DeviceParams
    tracking: TrackingParams
    resources: ResourcesParams
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
