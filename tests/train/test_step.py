"""One step, against computation by hand."""

from __future__ import annotations

import copy
import functools

import pytest
import torch
from torch import nn

from tfnas.space import build_network
from tfnas.train.recipe import training_loss
from tfnas.train.step import TrainingStepper
from tfnas.train.weights import CLASSIFIER

CPU = torch.device("cpu")


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
