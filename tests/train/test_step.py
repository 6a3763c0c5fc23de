"""Laws of the learning rate and the loss; one step, against computation by hand."""

from __future__ import annotations

import copy
import functools
import math
from itertools import pairwise

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from tfnas.space import build_network
from tfnas.train.params import RecipeParams
from tfnas.train.step import TrainingStepper, make_optimizer, step_learning_rate, training_loss
from tfnas.train.weights import CLASSIFIER

OFF = {"ema_decay": 0, "mixup": 0, "cutmix": 0, "rand_augment": 0, "decay_norm_and_bias": True}
AUGMENTATION = {"crop_scale": (0.7, 1.0), "flip": False, "color_jitter": (0, 0, 0, 0)}

CPU = torch.device("cpu")


def recipe(epochs: int, warmup_epochs: int, peak: float = 0.2) -> RecipeParams:
    return RecipeParams(
        epochs=epochs,
        batch_size=8,
        learning_rate=peak,
        warmup_epochs=warmup_epochs,
        momentum=0.9,
        weight_decay=1e-5,
        label_smoothing=0.1,
        drop_connect=0.0,
        gradient_clip=0.0,
        keep="last",
        sampler="as_is",
        augmentation=AUGMENTATION,
        nesterov=False,
        extras=OFF,
        accumulate=1,
        channels_last=True,
        compile=False,
        sync_batchnorm=False,
        checkpoint_every_steps=0,
    )


def rates(epochs: int, warmup_epochs: int, steps: int, peak: float) -> list[float]:
    chosen = recipe(epochs, warmup_epochs, peak)
    return [step_learning_rate(step, steps, chosen) for step in range(epochs * steps + 1)]


plans = st.tuples(st.integers(0, 6), st.integers(1, 20), st.integers(1, 30), st.floats(1e-4, 10.0)).map(
    lambda plan: {"warmup_epochs": plan[0], "epochs": plan[0] + plan[1], "steps": plan[2], "peak": plan[3]}
)


@given(plans)
def test_warm_up_is_linear_in_steps_and_ends_at_the_peak(plan: dict) -> None:
    warmup = plan["warmup_epochs"] * plan["steps"]
    found = rates(**plan)[:warmup]
    assert found == pytest.approx([plan["peak"] * (i + 1) / warmup for i in range(warmup)])
    assert warmup == 0 or found[-1] == pytest.approx(plan["peak"])


@given(plans)
def test_cosine_starts_at_the_peak_falls_every_step_and_ends_at_zero(plan: dict) -> None:
    found = rates(**plan)[plan["warmup_epochs"] * plan["steps"] :]
    assert found[0] == pytest.approx(plan["peak"])
    assert all(later < earlier for earlier, later in pairwise(found))
    assert found[-1] == pytest.approx(0.0, abs=1e-12)


@given(plans)
def test_cosine_is_half_way_down_in_the_middle(plan: dict) -> None:
    chosen = recipe(plan["epochs"], plan["warmup_epochs"], plan["peak"])
    steps = 2 * plan["steps"]
    middle = (plan["warmup_epochs"] * steps + plan["epochs"] * steps) // 2
    assert step_learning_rate(middle, steps, chosen) == pytest.approx(plan["peak"] / 2)


def test_the_paper_s_schedule() -> None:
    """250 epochs, 0.2, 5 epochs of warm-up (Appendix B)."""
    chosen, steps = recipe(250, 5), 2502
    assert step_learning_rate(5 * steps - 1, steps, chosen) == pytest.approx(0.2)
    assert step_learning_rate(int(2.5 * steps) - 1, steps, chosen) == pytest.approx(0.1)
    assert step_learning_rate(250 * steps, steps, chosen) == pytest.approx(0.0, abs=1e-12)


@given(
    st.integers(2, 12),
    st.integers(1, 9),
    st.floats(0.0, 0.9),
    st.integers(0, 2**31 - 1),
)
def test_label_smoothing_is_cross_entropy_against_the_mixed_distribution(k: int, n: int, e: float, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(n, k, generator=generator, dtype=torch.float64)
    labels = torch.randint(k, (n,), generator=generator)
    manual = 0.0
    for row, label in zip(logits.tolist(), labels.tolist(), strict=True):
        log_sum = math.log(sum(math.exp(value) for value in row))
        smoothed = [(1 - e) * (i == label) + e / k for i in range(k)]
        manual -= sum(weight * (value - log_sum) for weight, value in zip(smoothed, row, strict=True)) / n
    assert training_loss(logits, labels, e).item() == pytest.approx(manual)


def test_two_optimizer_steps_equal_sgd_by_hand() -> None:
    """v <- m v + (g + d w), w <- w - r v, with a rate of its own for each step."""
    layer = torch.nn.Linear(3, 2, bias=False).double()
    chosen = recipe(5, 0).model_copy(update={"momentum": 0.8, "weight_decay": 0.01})
    optimizer = make_optimizer(layer, chosen)
    weight = layer.weight.detach().clone()
    velocity = torch.zeros_like(weight)
    for rate in (0.3, 0.05):
        gradient = torch.randn(2, 3, dtype=torch.float64)
        layer.weight.grad = gradient.clone()
        optimizer.param_groups[0]["lr"] = rate
        optimizer.step()
        velocity = 0.8 * velocity + gradient + 0.01 * weight
        weight = weight - rate * velocity
        torch.testing.assert_close(layer.weight.detach(), weight)


class Normless(nn.Module):
    """A network whose images do not influence each other, under the names that ours have."""

    def __init__(self) -> None:
        super().__init__()
        self.classifier = nn.Sequential()
        self.classifier.add_module("linear", nn.Linear(3 * 16 * 16, 6))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.classifier(x.flatten(1))


def stepper(network: nn.Module, recipe, precision: str = "float32") -> TrainingStepper:
    made = TrainingStepper(network, recipe, device=CPU, precision=precision)
    made.train_mode()
    return made


def test_a_step_is_gradient_descent_by_hand(architecture, make_recipe, loaders) -> None:
    torch.manual_seed(3)
    network = build_network(architecture, 6)
    twin = copy.deepcopy(network)
    images, labels = next(iter(loaders[0]))
    recipe = make_recipe(momentum=0.0, weight_decay=0.01)
    (computed,) = stepper(network, recipe).step([(images, labels)], 0.3)
    logits = twin.train()(images)
    training_loss(logits, labels, 0.1).backward()
    torch.testing.assert_close(computed.logits, logits.detach(), rtol=1e-4, atol=1e-6)
    for (name, after), before in zip(network.named_parameters(), twin.parameters(), strict=True):
        expected = before - 0.3 * (before.grad + 0.01 * before)
        torch.testing.assert_close(after, expected, rtol=1e-4, atol=1e-6, msg=name)


@pytest.mark.parametrize("parts", [2, 4])
def test_parts_of_a_batch_make_its_step(make_recipe, loaders, parts) -> None:
    """With BatchNorm they would differ: it sees a part."""
    whole, divided = (stepper(Normless().double(), make_recipe(accumulate=n)) for n in (1, parts))
    divided.network.load_state_dict(whole.network.state_dict())
    for images, labels in loaders[0]:
        images = images.double()
        (one,) = whole.step([(images, labels)], 0.1)
        size = len(labels) // parts
        some = divided.step(list(zip(images.split(size), labels.split(size), strict=True)), 0.1)
        torch.testing.assert_close(torch.cat([part.logits for part in some]), one.logits)
    for key, value in whole.network.state_dict().items():
        torch.testing.assert_close(divided.network.state_dict()[key], value, msg=key)


def test_decay_of_matrices_alone(architecture, make_recipe, loaders) -> None:
    """One step with decay moves the others as a step without it."""
    batch = next(iter(loaders[0]))
    torch.manual_seed(0)
    network = build_network(architecture, 6)
    after = {}
    for decay in (0.0, 0.5):
        for everything in (True, False):
            recipe = make_recipe(weight_decay=decay, extras={"decay_norm_and_bias": everything})
            made = stepper(copy.deepcopy(network), recipe)
            made.step([batch], 0.1)
            after[decay, everything] = dict(made.network.named_parameters())
    for name, parameter in network.named_parameters():
        without, some, everything = (after[key][name] for key in ((0.0, True), (0.5, False), (0.5, True)))
        assert torch.equal(some, everything if parameter.ndim > 1 else without), name


def test_moving_average_by_hand(make_recipe, loaders) -> None:
    made = stepper(Normless(), make_recipe(extras={"ema_decay": 0.75}))
    expected: dict[str, torch.Tensor] = {}  # from the first step's weights on
    for batch in loaders[0]:
        made.step([batch], 0.1)
        for key, value in made.network.state_dict().items():
            expected[key] = 0.75 * expected[key] + 0.25 * value if key in expected else value.clone()
    for key, value in made.evaluated.state_dict().items():
        torch.testing.assert_close(value, expected[key], msg=key)
        assert not torch.equal(value, made.network.state_dict()[key]), key


@pytest.mark.parametrize("extras", [{"mixup": 0.4}, {"cutmix": 1.0}, {"mixup": 0.4, "cutmix": 1.0}])
def test_mixed_batches_train_and_follow_from_the_seed(architecture, make_recipe, loaders, extras) -> None:
    states = []
    for seed in (1, 1, 2):
        torch.manual_seed(0)
        made = stepper(build_network(architecture, 6), make_recipe(extras=extras))
        torch.manual_seed(seed)
        for batch in loaders[0]:
            (computed,) = made.step([batch], 0.1)
            assert torch.equal(computed.labels, batch[1])  # accuracy is against the unmixed ones
        states.append(made.network.state_dict()[CLASSIFIER])
    assert torch.equal(states[0], states[1]) and not torch.equal(states[0], states[2])


def test_compiled_steps_equal_eager_ones(make_recipe, loaders, monkeypatch) -> None:
    """Compiled without code generation, which takes half a minute."""
    monkeypatch.setattr(torch, "compile", functools.partial(torch.compile, backend="aot_eager"))
    eager, compiled = (stepper(Normless(), make_recipe(compile=on)) for on in (False, True))
    compiled.load_state_dict(eager.state_dict())
    for batch in loaders[0]:
        (one,), (other,) = eager.step([batch], 0.1), compiled.step([batch], 0.1)
        torch.testing.assert_close(one.loss, other.loss)
    assert eager.network.state_dict().keys() == compiled.network.state_dict().keys()


def test_memory_order_is_an_option(architecture, make_recipe) -> None:
    for on, order in ((True, torch.channels_last), (False, torch.contiguous_format)):
        made = stepper(build_network(architecture, 6), make_recipe(channels_last=on))
        images, _ = made.to_device(torch.randn(2, 3, 16, 16), torch.zeros(2))
        assert images.is_contiguous(memory_format=order)
        assert made.network.get_parameter("head.conv.weight").is_contiguous(memory_format=order)


@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
def test_autocast_trains_float32_weights(architecture, make_recipe, loaders, precision) -> None:
    torch.manual_seed(0)
    made = stepper(build_network(architecture, 6), make_recipe(), precision)
    losses = [sum(made.step([batch], 0.05)[0].loss.item() for batch in loaders[0]) for _ in range(15)]
    assert losses[-1] < losses[0]
    assert all(p.dtype == torch.float32 for p in made.network.parameters())
