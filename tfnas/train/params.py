"""The sections `retrain` and `transfer` of params.yaml: one recipe."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from tfnas.data.params import AugmentationParams
from tfnas.jobs.sections import Count, CountOrZero, NonNegative, Positive, Rate, Section

SCRATCH, SUPERNET = "scratch", "supernet"  # values of retrain.initial, besides a file
NO_TEACHER, RANKING = "none", "ranking"  # values of retrain.teacher.network, besides a file


class ExtrasParams(Section):
    """Extras that the paper's recipe does not have; its values are zero, and true for the decay."""

    ema_decay: Rate  # of an exponential moving average of the weights, which is validated and written instead
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
    gradient_clip: NonNegative  # largest L2 norm of the gradient of all weights together; 0: none
    keep: Literal["last", "best"]  # the epoch whose weights are written; best: of highest validation top-1
    sampler: Literal["as_is", "balanced"]  # balanced: each class as often as any other
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


class TeacherParams(Section):
    """A trained network whose predictions the network learns as well (Hinton et al., arXiv 1503.02531)."""

    network: str  # none | ranking (that of rank_classes) | a file
    model: str | None  # torchvision:NAME or timm:NAME, whose weights the file holds; None: a torch.export program
    temperature: Positive
    weight: Rate  # of the distillation loss; 1 less it: of the cross-entropy

    @model_validator(mode="after")
    def _consistent(self) -> TeacherParams:
        if self.network in (NO_TEACHER, RANKING) and self.model is not None:
            raise ValueError(
                f"model {self.model!r} says what a file holds, and network is {self.network}; write model: null"
            )
        if self.model is not None and not self.model.startswith(("torchvision:", "timm:")):
            raise ValueError(f"model {self.model!r} is neither torchvision:NAME nor timm:NAME")
        if self.network != NO_TEACHER and self.weight == 0:
            raise ValueError("weight 0 leaves the teacher without effect; write more, or network: none")
        return self


class RetrainParams(RecipeParams):
    seeds: Count  # trainings from different random numbers; the first one's weights are written
    initial: str  # scratch | supernet | a file of weights
    teacher: TeacherParams

    @property
    def inherits(self) -> bool:
        """Whether training starts from the supernet's weights, where the network comes from one."""
        return self.initial == SUPERNET


class TransferParams(RecipeParams):
    layers: Literal["all", "head"]  # that are trained
    targets: list[str]
    datasets: list[Literal["shifted-digits", "cifar10", "cifar100"]]
    root: str | None
    resolution: Count
