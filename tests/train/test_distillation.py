"""Distillation: laws of the loss, of a step with a teacher, and what is refused as one."""

from __future__ import annotations

import copy
import sys
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.nn import functional
from torchvision.models import resnet18

from tests.train.test_training import Memory, Stop, assert_same, kill_at
from tfnas.data.ranking import build_ranking_network
from tfnas.deploy.export import export_program
from tfnas.jobs.checkpoints import write_tensors
from tfnas.jobs.errors import UserError
from tfnas.space import build_network
from tfnas.train.distillation import Distillation, Teacher, distillation_loss, read_teacher
from tfnas.train.loop import Setting, train
from tfnas.train.params import TeacherParams
from tfnas.train.step import TrainingStepper

CPU = torch.device("cpu")
CLASSES = ("a", "b", "c")


def logits(seed: int, rows: int = 5) -> torch.Tensor:
    return 3 * torch.randn(rows, 4, dtype=torch.double, generator=torch.Generator().manual_seed(seed))


# The loss


@pytest.mark.parametrize("temperature", [0.5, 1.0, 4.0])
def test_the_loss_is_the_divergence_written_out(temperature: float) -> None:
    student, teacher = logits(0), logits(1)
    p, q = (teacher / temperature).softmax(-1), (student / temperature).softmax(-1)
    expected = temperature**2 * (p * (p / q).log()).sum(-1).mean()
    torch.testing.assert_close(distillation_loss(student, teacher, temperature), expected)
    assert distillation_loss(student, student + 7.0, temperature).item() == pytest.approx(0.0, abs=1e-12)


def test_its_gradient_is_that_of_the_soft_cross_entropy() -> None:
    """Eq. 2 of the paper: the gradient of a logit is T (q - p), of the mean over the batch."""
    student, teacher = logits(0).requires_grad_(), logits(1)
    distillation_loss(student, teacher, 3.0).backward()
    expected = 3.0 * ((student / 3.0).softmax(-1) - (teacher / 3.0).softmax(-1)) / len(teacher)
    torch.testing.assert_close(student.grad, expected.detach())


def test_in_the_limit_of_a_high_temperature_it_matches_logits() -> None:
    """Eq. 4 of the paper: the squared distance of centered logits over 2 K, with one half of it as ours."""
    student, teacher = logits(0), logits(1)
    centered = (x - x.mean(-1, keepdim=True) for x in (student, teacher))
    expected = (next(centered) - next(centered)).square().sum(-1).mean() / (2 * 4)
    torch.testing.assert_close(distillation_loss(student, teacher, 1e4), expected, rtol=1e-3, atol=0.0)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_logits_are_compared_in_float32(dtype: torch.dtype) -> None:
    student, teacher = logits(0).to(dtype), logits(1).to(dtype)
    found = distillation_loss(student, teacher, 4.0)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, distillation_loss(student.float(), teacher.float(), 4.0))


# A step


@pytest.fixture
def teacher(architecture) -> nn.Module:
    torch.manual_seed(7)
    return build_network(architecture, 6, dropout=0.5, drop_connect=0.5).eval().requires_grad_(False)


@pytest.fixture
def run(architecture, loaders):
    def call(recipe, distillation, *, precision="float32", checkpoints=None, network_seed=0):
        torch.manual_seed(network_seed)
        network = build_network(architecture, 6, dropout=0.2, drop_connect=0.2)
        setting = Setting(name="retrain/A", device=CPU, precision=precision, seed=0)
        result = train(network, loaders, recipe, setting, distillation=distillation, checkpoints=checkpoints)
        return network.state_dict(), result

    return call


@pytest.mark.parametrize("changes", [{}, {"extras": {"mixup": 0.4, "cutmix": 0.4}}, {"label_smoothing": 0.0}])
def test_the_loss_of_a_step_by_hand(architecture, make_recipe, loaders, teacher, changes) -> None:
    """The teacher sees what the network sees: the mixed images."""
    torch.manual_seed(0)
    recipe = make_recipe(drop_connect=0.0, **changes)
    stepper = TrainingStepper(
        build_network(architecture, 6), recipe, device=CPU, precision="float32",
        distillation=Distillation(teacher, temperature=3.0, weight=0.3),
    )  # fmt: skip
    before = copy.deepcopy(stepper.network).train()
    images, labels = next(iter(loaders[0]))
    stepper.train_mode()
    torch.manual_seed(5)
    (computed,) = stepper.step([(images, labels)], 0.1)
    torch.manual_seed(5)
    shares = labels
    if recipe.extras.mixup:
        images, shares = stepper._mix(images, labels)
        assert shares.shape == (8, 6)
    student = before(images)
    cross_entropy = functional.cross_entropy(student, shares, label_smoothing=recipe.label_smoothing)
    expected = 0.7 * cross_entropy + 0.3 * distillation_loss(student, teacher(images), 3.0)
    torch.testing.assert_close(computed.loss, expected.detach(), rtol=1e-4, atol=1e-5)


def test_a_teacher_of_no_weight_changes_no_bit(run, make_recipe, teacher) -> None:
    recipe = make_recipe(epochs=2)
    assert_same(run(recipe, Distillation(teacher, 4.0, 0.0)), run(recipe, None))


def test_with_a_weight_of_one_the_labels_say_nothing(run, make_recipe, teacher, loaders) -> None:
    recipe, first = make_recipe(epochs=1), loaders[0].labels
    states = []
    for labels in (first, first.roll(1)):
        loaders[0].labels = labels
        states.append([run(recipe, Distillation(teacher, 4.0, weight))[0] for weight in (1.0, 0.9)])
    (alone, both), (alone_again, both_again) = states
    assert all(torch.equal(value, alone_again[name]) for name, value in alone.items())
    assert not all(torch.equal(value, both_again[name]) for name, value in both.items())


def test_the_teacher_stays_as_it_is(run, make_recipe, teacher) -> None:
    before = copy.deepcopy(teacher.state_dict())
    run(make_recipe(epochs=1, accumulate=1), Distillation(teacher, 4.0, 0.5))
    assert all(torch.equal(value, before[name]) for name, value in teacher.state_dict().items())
    assert not teacher.training and all(p.grad is None for p in teacher.parameters())


def test_parts_of_a_batch_have_the_loss_of_the_whole(architecture, make_recipe, loaders, teacher) -> None:
    """Of a network without BatchNorm, which sees a part."""
    torch.manual_seed(0)
    start = nn.Sequential(nn.Flatten(), nn.Linear(3 * 16 * 16, 6))
    images, labels = next(iter(loaders[0]))
    states = []
    for parts in (1, 4):
        stepper = TrainingStepper(
            copy.deepcopy(start), make_recipe(accumulate=parts), device=CPU, precision="float32",
            distillation=Distillation(teacher, 2.0, 0.5),
        )  # fmt: skip
        stepper.step(list(zip(images.chunk(parts), labels.chunk(parts), strict=True)), 0.1)
        states.append(stepper.network.state_dict())
    for name, value in states[0].items():
        torch.testing.assert_close(states[1][name], value, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_killed_in_the_middle_of_an_epoch_equals_undisturbed(run, make_recipe, teacher, precision) -> None:
    recipe = make_recipe(epochs=2, checkpoint_every_steps=1, extras={"mixup": 0.3, "ema_decay": 0.5})
    distillation, memory = Distillation(teacher, 4.0, 0.5), Memory()
    with pytest.raises(Stop):
        run(recipe, distillation, precision=precision, checkpoints=kill_at(memory, 5))
    del memory.save
    resumed = run(recipe, distillation, precision=precision, checkpoints=memory, network_seed=9)
    assert_same(resumed, run(recipe, distillation, precision=precision))


@pytest.mark.slow
def test_a_compiled_network_learns_the_same_from_an_eager_teacher(run, make_recipe, teacher) -> None:
    plain, compiled = (
        run(make_recipe(epochs=1, compile=on, drop_connect=0.0), Distillation(teacher, 4.0, 0.5))[1].history[0]
        for on in (False, True)
    )
    assert compiled.train_loss == pytest.approx(plain.train_loss, rel=0.05)


# What is read as a teacher


def params(network: str, model: str | None = None) -> TeacherParams:
    return TeacherParams(network=network, model=model, temperature=4.0, weight=0.5)


def read(path: Path, model: str | None = None, classes=CLASSES, resolution: int = 32) -> Teacher:
    return read_teacher(params(str(path), model), Path("network.pt"), classes, resolution)


def refused(path: Path, *words: str, **options) -> None:
    with pytest.raises(UserError) as caught:
        read(path, **options)
    (line,) = str(caught.value).splitlines()
    assert all(word in line for word in (*words, "retrain.teacher.")), line


@pytest.fixture
def images() -> torch.Tensor:
    return torch.randn(5, 3, 32, 32, generator=torch.Generator().manual_seed(0))


def test_the_ranking_network_is_a_teacher(tmp_path: Path, images) -> None:
    torch.manual_seed(0)
    network = build_ranking_network(3)
    write_tensors(network.state_dict(), tmp_path / "network.pt")
    found = read_teacher(params("ranking"), tmp_path / "network.pt", CLASSES, 32)
    ready = found.ready(CPU, channels_last=True)
    torch.testing.assert_close(ready(images), network.eval()(images), rtol=1e-3, atol=1e-4)
    assert not any(p.requires_grad for p in ready.parameters())
    found.check_order(0.0, 3)  # its classes are the data set's
    with pytest.raises(UserError, match=r"network.pt: ranks other classes .*run rank_classes again"):
        read_teacher(params("ranking"), tmp_path / "network.pt", (*CLASSES, "d"), 32)


def test_a_model_of_torchvision_is_a_teacher(tmp_path: Path, images) -> None:
    torch.manual_seed(0)
    network, path = resnet18(num_classes=3), tmp_path / "resnet.pth"
    torch.save(network.state_dict(), path)
    ready = read(path, "torchvision:resnet18").ready(CPU, channels_last=False)
    torch.testing.assert_close(ready(images), network.eval()(images))
    refused(path, "knows 3 classes", "has 4", model="torchvision:resnet18", classes=(*CLASSES, "d"))
    refused(
        path, "is not of retrain.teacher.model: torchvision:resnet34", "has no layer1", model="torchvision:resnet34"
    )
    refused(path, "no classifier 'resnet19'", model="torchvision:resnet19")
    refused(path, "no classifier 'fcn_resnet50'", model="torchvision:fcn_resnet50")
    refused(path, "is not a torch.export program", "torchvision:NAME")


def test_a_model_of_timm_is_a_teacher(tmp_path: Path, images, monkeypatch) -> None:
    timm = pytest.importorskip("timm")
    network, path = timm.create_model("resnet10t", num_classes=3), tmp_path / "timm.pth"
    torch.save(network.state_dict(), path)
    torch.testing.assert_close(
        read(path, "timm:resnet10t").ready(CPU, channels_last=False)(images), network.eval()(images)
    )
    refused(path, "timm has no classifier 'hf-hub:x/y'", model="timm:hf-hub:x/y")
    monkeypatch.setitem(sys.modules, "timm", None)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    refused(path, "timm is not installed", "pip install timm", model="timm:resnet10t")


def test_a_program_is_a_teacher(tmp_path: Path, architecture, images) -> None:
    torch.manual_seed(0)
    network = build_network(architecture, 3).eval()
    export_program(network, 32, tmp_path / "model.pt2")
    found = read(tmp_path / "model.pt2")
    ready = found.ready(CPU, channels_last=True)
    torch.testing.assert_close(ready.train()(images), network(images), rtol=1e-4, atol=1e-5)
    refused(tmp_path / "model.pt2", "knows 3 classes", "has 4", classes=(*CLASSES, "d"))
    refused(tmp_path / "model.pt2", "cannot classify 2 images of 16 x 16", resolution=16)
    found.check_order(33.4, 3)
    with pytest.raises(UserError, match=r"model.pt2 \(retrain.teacher.network\): classifies 33.33 % .*no more than"):
        found.check_order(100 / 3 - 1e-9, 3)


def test_a_program_of_one_batch_size_is_refused(tmp_path: Path, architecture) -> None:
    program = torch.export.export(build_network(architecture, 3).eval(), (torch.zeros(2, 3, 32, 32),))
    torch.export.save(program, tmp_path / "fixed.pt2")
    refused(tmp_path / "fixed.pt2", "cannot classify 3 images", "any N")


def test_names_next_to_the_file_must_be_the_data_sets(tmp_path: Path) -> None:
    path = tmp_path / "resnet.pth"
    torch.save(resnet18(num_classes=3).state_dict(), path)
    (tmp_path / "classes.txt").write_text("a\nb\nc\n")
    read(path, "torchvision:resnet18")
    (tmp_path / "classes.txt").write_text("a\nc\nb\n")
    refused(path, "classes.txt", "'c' where the data set has 'b'", model="torchvision:resnet18")
    (tmp_path / "classes.txt").write_text("a\nb\n")
    refused(path, "classes.txt", "2 of the 3", model="torchvision:resnet18")


def test_imagenets_classes_are_known_by_their_order(tmp_path: Path) -> None:
    path = tmp_path / "resnet.pth"
    torch.save(resnet18(num_classes=1000).state_dict(), path)
    wnids = [f"n{number:08d}" for number in range(1000)]
    refused(path, "WordNet ids are not among ImageNet's", model="torchvision:resnet18", classes=wnids)


@pytest.mark.parametrize("content", [b"", b"no weights", None])
def test_other_files_are_one_line(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "teacher.pth"
    refused(path, "teacher.pth: is missing")
    if content is None:
        torch.save({"state_dict": {"a": torch.zeros(1)}, "epoch": 3}, path)
    else:
        path.write_bytes(content)
    refused(path, "teacher.pth", "has no conv1.weight" if content is None else "weights", model="torchvision:resnet18")
    refused(path, "teacher.pth", "is not a torch.export program")
