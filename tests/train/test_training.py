"""Whole trainings: resumed ones repeat undisturbed ones, bit for bit."""

from __future__ import annotations

import copy
import csv
import dataclasses
from typing import Any

import pytest
import torch
from torch import nn

from tfnas.jobs.errors import NonFiniteLossError, UserError
from tfnas.space import build_network
from tfnas.train import loop
from tfnas.train.loop import CHECK_LOSS_EVERY, LossWatch, Setting, evaluate, train
from tfnas.train.metrics import Metrics, TrainingEpoch, write_training_history
from tfnas.train.step import step_learning_rate

CPU = torch.device("cpu")


class Stop(Exception):
    """The job is killed."""


class Memory:
    """Checkpoints in memory, as deep copies."""

    def __init__(self) -> None:
        self.state: dict[str, Any] | None = None

    def load(self) -> dict[str, Any] | None:
        return copy.deepcopy(self.state)

    def save(self, state: dict[str, Any]) -> None:
        self.state = copy.deepcopy(state)


def run(architecture, loaders, recipe, *, seed=0, checkpoints=None, on_epoch=None, network_seed=0, precision="float32"):
    torch.manual_seed(network_seed)
    network = build_network(architecture, 6, dropout=0.2, drop_connect=0.2)
    result = train(
        network,
        loaders,
        recipe,
        Setting(name="retrain/A", device=CPU, precision=precision, seed=seed),
        checkpoints=checkpoints,
        on_epoch=on_epoch,
    )
    return network.state_dict(), result


def timeless(history: list[TrainingEpoch]) -> list[TrainingEpoch]:
    return [dataclasses.replace(record, seconds=0.0) for record in history]


def assert_same(one, other) -> None:
    assert timeless(one[1].history) == timeless(other[1].history)
    assert one[1].final == other[1].final and one[1].kept_epoch == other[1].kept_epoch
    for key, value in one[0].items():
        assert torch.equal(value, other[0][key]), key


@pytest.mark.parametrize("killed_after", [1, 2, 3, 4])
def test_resumed_after_any_epoch_equals_undisturbed(architecture, loaders, make_recipe, killed_after) -> None:
    recipe, memory = make_recipe(epochs=4), Memory()

    def kill(record: TrainingEpoch) -> None:
        if record.epoch == killed_after:
            raise Stop

    with pytest.raises(Stop):
        run(architecture, loaders, recipe, checkpoints=memory, on_epoch=kill)
    seen: list[TrainingEpoch] = []
    # another initial network: everything that counts must come from the checkpoint
    resumed = run(architecture, loaders, recipe, checkpoints=memory, on_epoch=seen.append, network_seed=9)
    assert_same(resumed, run(architecture, loaders, recipe))
    assert [record.epoch for record in seen] == [1, 2, 3, 4]


def kill_at(checkpoints: Memory, count: int) -> Memory:
    """Checkpoints that kill the job at the end of its so many-th save."""
    save, saved = checkpoints.save, []

    def save_or_die(state: dict[str, Any]) -> None:
        save(state)
        saved.append(state)
        if len(saved) == count:
            raise Stop

    checkpoints.save = save_or_die  # type: ignore[method-assign]
    return checkpoints


EXTRAS = {"ema_decay": 0.5, "mixup": 0.3, "cutmix": 0.3}


@pytest.mark.parametrize(
    ("options", "killed_at"),
    [
        ({}, 1),
        ({}, 2),
        ({}, 5),
        ({"accumulate": 2}, 4),
        ({"extras": EXTRAS}, 5),
        ({"nesterov": True}, 7),
        ({"gradient_clip": 0.5}, 5),
        *(({"keep": "best"}, killed_at) for killed_at in (2, 3, 5, 8)),
    ],
)
def test_killed_in_the_middle_of_an_epoch_equals_undisturbed(
    architecture, loaders, make_recipe, options, killed_at
) -> None:
    """Three steps an epoch, a checkpoint after each; undisturbed means without any."""
    loaders[0].batch_size //= options.get("accumulate", 1)
    recipe = make_recipe(epochs=3, checkpoint_every_steps=1, **options)
    memory = Memory()
    with pytest.raises(Stop):
        run(architecture, loaders, recipe, checkpoints=kill_at(memory, killed_at))
    del memory.save  # type: ignore[method-assign]
    resumed = run(architecture, loaders, recipe, checkpoints=memory, network_seed=9)
    assert_same(resumed, run(architecture, loaders, recipe.model_copy(update={"checkpoint_every_steps": 0})))


def test_killed_twice_in_one_epoch_reads_no_image_again(architecture, loaders, make_recipe) -> None:
    recipe, memory, starts = make_recipe(epochs=1, warmup_epochs=0, checkpoint_every_steps=1), Memory(), []
    set_epoch = loaders[0].set_epoch
    loaders[0].set_epoch = lambda epoch, start=0: (starts.append((epoch, start)), set_epoch(epoch, start))
    for _ in range(2):
        with pytest.raises(Stop):
            run(architecture, loaders, recipe, checkpoints=kill_at(memory, 1))
        del memory.save  # type: ignore[method-assign]
    run(architecture, loaders, recipe, checkpoints=memory)
    assert starts == [(0, 0), (0, 1), (0, 2)]


def test_the_moving_average_is_validated_and_left_in_the_network(architecture, loaders, make_recipe) -> None:
    plain, averaged = (
        run(architecture, loaders, make_recipe(epochs=2, extras={"ema_decay": decay})) for decay in (0.0, 0.9)
    )
    assert timeless(plain[1].history)[0].train_loss == timeless(averaged[1].history)[0].train_loss
    assert plain[1].final != averaged[1].final
    assert not torch.equal(plain[0]["head.conv.weight"], averaged[0]["head.conv.weight"])


def test_the_seed_decides(architecture, loaders, make_recipe) -> None:
    recipe = make_recipe(epochs=2)
    once = run(architecture, loaders, recipe, seed=5)
    torch.randn(7)  # whatever else draws numbers before
    assert_same(once, run(architecture, loaders, recipe, seed=5))
    other = run(architecture, loaders, recipe, seed=6)
    assert not torch.equal(once[0]["head.conv.weight"], other[0]["head.conv.weight"])


class Validation:
    """Finds a given top-1 after each epoch, and notes the weights that it was given."""

    def __init__(self, top1: list[float], seen: list[dict[str, torch.Tensor]] | None = None) -> None:
        self.top1, self.seen = top1, [] if seen is None else seen

    def __call__(self, network, batches, **_: Any) -> Metrics:
        self.seen.append(copy.deepcopy(network.state_dict()))
        return Metrics(1 / len(self.seen), self.top1[len(self.seen) - 1], None)


@pytest.mark.parametrize("extras", [{}, {"ema_decay": 0.5}])
@pytest.mark.parametrize(
    ("top1", "best"), [([10, 30, 30, 20], 2), ([4, 3, 2, 1], 1), ([1, 2, 3, 4], 4), ([0, 0, 0, 0], 1)]
)
def test_the_first_epoch_of_the_highest_top1_is_kept(
    architecture, loaders, make_recipe, monkeypatch, extras, top1, best
) -> None:
    """Its weights and its numbers, whatever is kept, after the very same training; and after a kill."""
    recipe, memory = make_recipe(keep="best", extras=extras), Memory()
    made = {}
    for keep, kept in (("last", 4), ("best", best)):
        validation = Validation(top1)
        monkeypatch.setattr(loop, "evaluate", validation)
        state, result = made[keep] = run(architecture, loaders, recipe.model_copy(update={"keep": keep}))
        assert (result.kept_epoch, result.final) == (kept, Metrics(1 / kept, top1[kept - 1], None))
        assert all(torch.equal(value, validation.seen[kept - 1][name]) for name, value in state.items())
    assert timeless(made["last"][1].history) == timeless(made["best"][1].history)
    for saves in (1, 3):
        memory = Memory()
        monkeypatch.setattr(loop, "evaluate", Validation(top1, seen := []))
        with pytest.raises(Stop):
            run(architecture, loaders, recipe, checkpoints=kill_at(memory, saves))
        del memory.save  # type: ignore[method-assign]
        monkeypatch.setattr(loop, "evaluate", Validation(top1, seen))
        assert_same(run(architecture, loaders, recipe, checkpoints=memory, network_seed=9), made["best"])


def test_history_has_one_row_an_epoch_and_final_is_its_last(architecture, loaders, make_recipe, tmp_path) -> None:
    _, result = run(architecture, loaders, make_recipe(epochs=3))
    assert [record.epoch for record in result.history] == [1, 2, 3]
    assert result.final is not None
    assert result.history[-1].val_loss == result.final.loss
    assert result.history[-1].val_top1 == result.final.top1_percent
    write_training_history(result.history, tmp_path / "history.csv")
    with (tmp_path / "history.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [TrainingEpoch(int(row.pop("epoch")), **{k: float(v) for k, v in row.items()}) for row in rows] == (
        result.history
    )


def test_each_epoch_has_its_own_order_and_learning_rate(architecture, loaders, make_recipe) -> None:
    recipe, orders = make_recipe(epochs=3), []
    _, result = run(architecture, loaders, recipe, on_epoch=lambda _: orders.append(loaders[0].epoch))
    assert orders == [0, 1, 2]
    last_steps = [len(loaders[0]) * epoch - 1 for epoch in (1, 2, 3)]
    assert [record.learning_rate for record in result.history] == [
        step_learning_rate(step, len(loaders[0]), recipe) for step in last_steps
    ]


def test_training_fits_the_training_images(architecture, loaders, make_recipe) -> None:
    recipe = make_recipe(epochs=25, learning_rate=0.1)
    _, result = run(architecture, loaders, recipe)
    assert result.history[-1].train_loss < 0.8 * result.history[0].train_loss


def test_a_loss_that_is_not_finite_is_one_line(architecture, loaders, make_recipe) -> None:
    loaders[0].images[5] = float("nan")
    with pytest.raises(UserError, match=r"^retrain/A: the loss is nan at epoch 1, step [123]; .*\(0.05\)") as caught:
        run(architecture, loaders, make_recipe())
    assert "\n" not in str(caught.value)


def test_divergence_names_the_epoch(architecture, loaders, make_recipe) -> None:
    with pytest.raises(UserError, match=r"epoch 2, step"):
        poisoned = copy.deepcopy(loaders[0])

        def poison(record: TrainingEpoch) -> None:
            poisoned.images[:] = float("inf")

        run(architecture, (poisoned, loaders[1]), make_recipe(), on_epoch=poison)


def test_no_whole_batch_is_one_line(architecture, loaders, make_recipe) -> None:
    class Empty(type(loaders[0])):
        def __len__(self) -> int:
            return 0

    empty = Empty(0, 8, seed=0, shuffle=False)
    with pytest.raises(UserError, match="batch_size 8 is larger than the training set"):
        run(architecture, (empty, loaders[1]), make_recipe())


class Table(nn.Module):
    """Logits looked up by the first pixel of an image."""

    def __init__(self, logits: torch.Tensor) -> None:
        super().__init__()
        self.logits = logits

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        assert not self.training
        return self.logits[x[:, 0, 0, 0].long()]


def test_evaluate_equals_numpy_with_a_partial_last_batch(numpy_metrics) -> None:
    logits, labels = torch.randn(11, 7), torch.randint(7, (11,))
    images = torch.arange(11.0)[:, None, None, None].expand(11, 3, 2, 2)
    batches = list(zip(images.split(4), labels.split(4), strict=True))
    found = evaluate(Table(logits), batches, device=CPU, precision="float32")
    loss, top1, top5 = numpy_metrics(logits.double().numpy(), labels.numpy())
    assert found.loss == pytest.approx(loss, rel=1e-5)
    assert (found.top1_percent, found.top5_percent) == pytest.approx((top1, top5))


@pytest.mark.parametrize("bad_step", [1, 7, CHECK_LOSS_EVERY, CHECK_LOSS_EVERY + 1, CHECK_LOSS_EVERY + 4])
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_the_first_loss_that_is_not_finite_is_named(bad_step: int, value: float) -> None:
    watch = LossWatch()
    with pytest.raises(NonFiniteLossError) as caught:
        for step in range(1, CHECK_LOSS_EVERY + 5):
            watch.add(torch.tensor(value if step >= bad_step else 1.0))
        watch.check()
    assert caught.value.step == bad_step
