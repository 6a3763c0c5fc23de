"""Distillation: a trained network, the teacher, whose predictions a network learns as well as the labels.

Hinton, Vinyals, Dean, Distilling the Knowledge in a Neural Network (arXiv 1503.02531).

N batch, H W size, K classes.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional

from tfnas.data.ranking import CLASSIFIER, build_ranking_network, unverified_order
from tfnas.jobs.checkpoints import read_tensors
from tfnas.jobs.errors import UserError
from tfnas.jobs.state_dicts import find_mismatch, read_state_dict
from tfnas.train.params import RANKING, TeacherParams

NETWORK, MODEL = "retrain.teacher.network", "retrain.teacher.model"
CLASS_NAMES = "classes.txt"  # next to a teacher's file, as `tfnas export` writes it


def distillation_loss(logits: Tensor, teacher_logits: Tensor, temperature: float) -> Tensor:
    """T^2 KL(softmax(teacher / T) || softmax(student / T)), mean over the batch; two (N, K) to ().

    Sec. 2 of the paper, with the divergence in place of the cross-entropy, which differs by a constant: T^2 keeps the
    size of the gradient when T changes. In float32 at least.
    """
    student, teacher = ((x.float() if x.dtype.itemsize < 4 else x) / temperature for x in (logits, teacher_logits))
    divergence = functional.kl_div(
        student.log_softmax(-1), teacher.log_softmax(-1), reduction="batchmean", log_target=True
    )
    return temperature**2 * divergence


@dataclass(frozen=True)
class Distillation:
    """How much of a training's loss is the teacher's.

    Attributes:
        teacher: (N, 3, H, W) images to (N, K) logits, in evaluation mode, on the network's device.
        weight: of the distillation loss, from 0 to 1.
    """

    teacher: Callable[[Tensor], Tensor]
    temperature: float
    weight: float

    def loss(self, cross_entropy: Tensor, logits: Tensor, images: Tensor) -> Tensor:
        """(1 - weight) cross-entropy + weight `distillation_loss`, ().

        Args:
            logits: (N, K) of the network that is trained.
            images: (N, 3, H, W) that it saw, augmented and mixed: the teacher sees the same.
        """
        with torch.no_grad():
            predicted = self.teacher(images)
        return (1.0 - self.weight) * cross_entropy + self.weight * distillation_loss(
            logits, predicted, self.temperature
        )


class Program(nn.Module):
    """A torch.export program as a module; whether it is in evaluation mode was fixed when it was exported."""

    def __init__(self, program: torch.export.ExportedProgram) -> None:
        super().__init__()
        self._program = program
        self._module = program.module()

    def forward(self, x: Tensor) -> Tensor:
        """(N, 3, H, W) images to (N, K) logits."""
        return self._module(x)

    def train(self, mode: bool = True) -> Program:
        """Nothing changes."""
        return self

    def on(self, device: torch.device) -> Program:
        """The program on a device, with the tensors that it makes."""
        from torch.export.passes import move_to_device_pass

        return self if device.type == "cpu" else Program(move_to_device_pass(self._program, str(device)))


@dataclass(frozen=True)
class Teacher:
    """A teacher on the CPU, checked.

    Attributes:
        source: the file that it is from.
    """

    network: nn.Module
    source: Path
    params: TeacherParams

    def ready(self, device: torch.device, *, channels_last: bool) -> nn.Module:
        """The network in evaluation mode on a device; nothing of it is trained."""
        if isinstance(self.network, Program):
            return self.network.on(device)
        order = torch.channels_last if channels_last else torch.contiguous_format
        return self.network.to(device).to(memory_format=order).requires_grad_(False).eval()

    def distillation(self, ready: nn.Module) -> Distillation:
        return Distillation(ready, self.params.temperature, self.params.weight)

    def check_order(self, top1_percent: float, num_classes: int) -> None:
        """Raise UserError when a file's teacher is no better than chance: it knows other classes, or another order.

        Args:
            top1_percent: on the validation images.
        """
        if self.params.network != RANKING and top1_percent <= 100.0 / num_classes:
            raise UserError(
                f"{self.source} ({NETWORK}): classifies {top1_percent:.2f} % of the validation images, no more than"
                f" chance: its classes are others or in another order than the data set's, which are sorted by name;"
                f" pass a teacher of these classes in this order"
            )


def read_teacher(params: TeacherParams, ranking: Path, classes: Sequence[str], resolution: int) -> Teacher:
    """The teacher, tried on two images.

    Args:
        ranking: network.pt of rank_classes.
        classes: of the data set, in the order of labels.

    Raises:
        UserError: a file is missing or cannot be read, is of another model, or knows other classes.
    """
    source = ranking if params.network == RANKING else Path(params.network)
    if not source.is_file():
        raise UserError(f"{source}: is missing ({NETWORK}); put the teacher there, or write {NETWORK}: none")
    if params.network == RANKING:
        network = _ranking(source, len(classes))
    elif params.model is None:
        network = _program(source)
    else:
        network = _model(params.model, source, len(classes))
    _try(network.eval(), source, len(classes), resolution)
    if params.network != RANKING:
        _check_names(source, classes)
    return Teacher(network, source, params)


def _ranking(path: Path, num_classes: int) -> nn.Module:
    state = read_tensors(path)
    network = build_ranking_network(num_classes)
    if CLASSIFIER not in state or len(state[CLASSIFIER]) != num_classes:
        raise UserError(f"{path}: ranks other classes than the data set has; run rank_classes again")
    network.load_state_dict(state)
    return network


def _program(path: Path) -> Program:
    try:
        return Program(torch.export.load(path))
    except Exception:  # a damaged file can raise nearly anything
        raise UserError(
            f"{path} ({NETWORK}): is not a torch.export program that this torch reads; if it holds a state dict, say of"
            f" which network: {MODEL}: torchvision:NAME or timm:NAME"
        ) from None


def _model(name: str, path: Path, num_classes: int) -> nn.Module:
    """A model of torchvision or timm with the weights of a file."""
    build = _builder(name)
    state = read_state_dict(path, fix=f"pass {NETWORK} a state dict of {name}")
    network = build(num_classes)
    for key, value in network.state_dict().items():
        if key in state and _classifies_others(state[key], value, num_classes):
            raise _other_classes(path, len(state[key]), num_classes)
    mismatch = find_mismatch(network.state_dict(), state)
    if mismatch is not None:
        raise UserError(f"{path} ({NETWORK}): is not of {MODEL}: {name}: {mismatch}; name its own model")
    network.load_state_dict(state)
    return network


def _classifies_others(theirs: Tensor, ours: Tensor, num_classes: int) -> bool:
    """Whether two tensors differ in the number of classes alone."""
    return ours.shape[:1] == (num_classes,) and len(theirs) != num_classes and theirs.shape[1:] == ours.shape[1:]


def _builder(name: str) -> Callable[[int], nn.Module]:
    """What builds a model of torchvision or timm, with fresh weights, for a number of classes.

    Raises:
        UserError: no such model, or timm is not installed.
    """
    library, _, model = name.partition(":")
    unknown = UserError(f"params.yaml: {MODEL}: {library} has no classifier {model!r}; write a name that it lists")
    if library == "timm":
        if importlib.util.find_spec("timm") is None:
            raise UserError(f"params.yaml: {MODEL}: {name}: timm is not installed; pip install timm")
        import timm

        if not timm.is_model(model):
            raise unknown
        return lambda num_classes: timm.create_model(model, pretrained=False, num_classes=num_classes)
    from torchvision import models

    if model not in models.list_models(module=models):
        raise unknown
    return lambda num_classes: models.get_model(model, weights=None, num_classes=num_classes)


def _try(network: nn.Module, path: Path, num_classes: int, resolution: int) -> None:
    """Classify two images, then three: any batch must do."""
    for count in (2, 3):
        images = torch.zeros(count, 3, resolution, resolution)
        try:
            with torch.no_grad():
                logits = network(images)
        except Exception as error:  # whatever a network of somebody else raises
            reason = (str(error).strip() or type(error).__name__).splitlines()[0]
            raise UserError(
                f"{path} ({NETWORK}): cannot classify {count} images of {resolution} x {resolution} ({reason}); pass a"
                " teacher that takes (N, 3, R, R) images of any N at R = resolution"
            ) from None
        if not (isinstance(logits, Tensor) and logits.ndim == 2):
            raise UserError(f"{path} ({NETWORK}): gives something other than (N, K) logits; pass a classifier")
        if logits.shape[1] != num_classes:
            raise _other_classes(path, logits.shape[1], num_classes)


def _check_names(path: Path, classes: Sequence[str]) -> None:
    """Compare the classes with ImageNet's where they look like it, and those of a `classes.txt` next to the file."""
    mismatch = unverified_order(classes)
    if mismatch is not None:
        raise UserError(f"{path} ({NETWORK}): knows ImageNet's classes by their order, but {mismatch}; write none")
    names = path.with_name(CLASS_NAMES)
    if not names.is_file():
        return
    known = names.read_text(encoding="utf-8").splitlines()
    pairs = zip(known, classes, strict=False)
    odd = next((f"{ours!r} where the data set has {theirs!r}" for ours, theirs in pairs if ours != theirs), None)
    if odd is not None or len(known) != len(classes):
        raise UserError(
            f"{names}: names the teacher's classes, {odd or f'{len(known)} of the {len(classes)}'}; pass a teacher of"
            f" the data set's classes in their order, or write {NETWORK}: none"
        )


def _other_classes(path: Path, known: int, wanted: int) -> UserError:
    return UserError(
        f"{path} ({NETWORK}): knows {known} classes, the data set has {wanted}; pass a teacher that was trained on the"
        " data set's classes in sorted order"
    )
