"""The step of a search in the forms that `search_step.py` compares: ours, the authors' own code, a plain reference.

Every form has `weight_step()` (two paths, one backward, SGD) and `architecture_step()` (all candidates, Adam), on
random images of 224 x 224, in Table 1's space at its initial widths. The device of the images is the one it works on.
"""

from __future__ import annotations

import importlib
import random
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any, Protocol

import torch
import yaml
from torch import Tensor, nn
from torch.nn import functional

from tfnas.cli.init.presets import render_preset
from tfnas.latency import Curve, LatencyTable, OperationKey
from tfnas.search.constraint import latency_constraint
from tfnas.search.derivation.strongest import searchable_layers
from tfnas.search.sampling import gumbel_noise, gumbel_path, second_path
from tfnas.search.state import SearchState, Setting
from tfnas.search.steps import Stepper
from tfnas.search.supernet.mixed_op import CandidateOperation, MixedOp
from tfnas.search.supernet.sink_connecting import SinkConnectedStage
from tfnas.search.supernet.supernet import Supernet
from tfnas.space import load_space
from tfnas.stages.params import Params

NUM_CLASSES, TEMPERATURE, GRADIENT_CLIP = 100, 5.0, 5.0
OURS: dict[str, dict[str, Any]] = {
    "ours": {},
    "recompute": {"recompute": True},
    "entangled": {"weight_sharing": "entangled"},
    "entangled-recompute": {"weight_sharing": "entangled", "recompute": True},
    "entangled-one": {"weight_sharing": "entangled", "paths": "one"},
}


class Steps(Protocol):
    def weight_step(self) -> None: ...

    def architecture_step(self) -> None: ...


class Ours:
    """`tfnas.search.steps.Stepper` with the parameters of params.yaml."""

    def __init__(self, batch: tuple[Tensor, Tensor], precision: str, *, paths: str = "all", **changes: object) -> None:
        params = Params.model_validate(yaml.safe_load(render_preset("imagenet-gpu"))).search
        architecture = params.architecture.model_copy(update={"paths": paths})
        params = params.model_copy(update={"architecture": architecture, **changes})
        self._space, self._batch, self._generator = load_space("tf-nas"), batch, torch.Generator().manual_seed(0)
        setting = Setting(params, device=batch[0].device, precision=precision)
        state = SearchState.initial(self._space, NUM_CLASSES, setting)
        self._supernet = state.supernet
        constraint = latency_constraint(self._space, _table(), 15.0)
        self._stepper = Stepper(state, setting, constraint)

    def weight_step(self) -> None:
        alphas = self._supernet.alphas.detach()
        first = gumbel_path(alphas, TEMPERATURE, self._generator)
        second = second_path("random", alphas, first, TEMPERATURE, self._generator)
        self._stepper.weight_step(self._batch, [first, second])

    def architecture_step(self) -> None:
        noise = gumbel_noise(self._supernet.alphas.shape, self._generator)
        self._stepper.architecture_step(self._batch, TEMPERATURE, noise)


class _Trained:
    """Two optimizers, as the paper's and the authors' settings have them, and one step of each."""

    def __init__(
        self, batch: tuple[Tensor, Tensor], precision: str, weights: list[Tensor], alphas: list[Tensor]
    ) -> None:
        self._images, self._labels = batch
        self._precision, self._weights, self._alphas = precision, weights, alphas
        self._sgd = torch.optim.SGD(weights, 0.025, momentum=0.9, weight_decay=1e-5)
        self._adam = torch.optim.Adam(alphas, 0.01, betas=(0.5, 0.999), weight_decay=5e-4)

    def _step(self, losses: Callable[[], Tensor], *, weights: bool) -> None:
        for parameter in self._weights:
            parameter.requires_grad_(weights)
        for parameter in self._alphas:
            parameter.requires_grad_(not weights)
        optimizer, parameters = (self._sgd, self._weights) if weights else (self._adam, self._alphas)
        with self._autocast():
            loss = losses()
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(parameters, GRADIENT_CLIP)
        optimizer.step()
        loss.item()
        if not weights:
            for parameter in self._alphas:
                parameter.data = parameter.detach().log_softmax(-1)

    def _autocast(self) -> AbstractContextManager[object]:
        return (
            nullcontext() if self._precision == "float32" else torch.autocast(self._images.device.type, torch.bfloat16)
        )

    def _cross_entropy(self, logits: Tensor) -> Tensor:
        return functional.cross_entropy(logits, self._labels)


class _AnyLatency(dict[str, Any]):
    """Stands in for the authors' latency table: every operation takes 0.1 ms at every width."""

    def __missing__(self, key: object) -> Any:
        return _AnyLatency() if isinstance(key, str) else 0.1


class Authors(_Trained):
    """The network of the authors' repository, fetched to a folder; its own two loss terms."""

    def __init__(self, batch: tuple[Tensor, Tensor], precision: str, folder: Path) -> None:
        sys.path.insert(0, str(folder))
        model = importlib.import_module("models.model_search")
        widths: dict[str, dict[str, dict[int, int]]] = {}
        space = load_space("tf-nas")
        for stage, spec in enumerate(space.searchable_stages, 1):
            layers = [layer for layer in space.layers() if layer.stage == spec.stage]
            widths[f"stage{stage}"] = {
                f"block{i}": {
                    k: (8 if "e6" in name else 4) * layer.in_channels * 3 // 4
                    for k, name in enumerate(model.PRIMITIVES)
                }
                for i, layer in enumerate(layers, 1)
            }
        self._network = model.Network(NUM_CLASSES, widths, _AnyLatency(base=1.0))
        self._network.set_temperature(TEMPERATURE)
        self._network.to(batch[0].device)
        super().__init__(batch, precision, self._network.weight_parameters(), self._network.arch_parameters())

    def weight_step(self) -> None:
        def losses() -> Tensor:
            logits = [self._network(self._images, sampling=True, mode=mode)[0] for mode in ("gumbel", "random")]
            return sum((self._cross_entropy(scores) for scores in logits), torch.zeros(()))

        self._step(losses, weights=True)

    def architecture_step(self) -> None:
        def losses() -> Tensor:
            logits, latency_ms = self._network(self._images, sampling=False)
            return self._cross_entropy(logits) + 0.1 * (latency_ms / 15.0 - 1.0).abs()

        self._step(losses, weights=False)


class Plain(_Trained):
    """Our supernet's weights with one plain tensor operation after the other, in contiguous memory.

    It costs what the authors' code costs: Swish as two operations, and nothing shared between paths.
    """

    def __init__(self, batch: tuple[Tensor, Tensor], precision: str) -> None:
        self._supernet = Supernet(load_space("tf-nas"), NUM_CLASSES)
        for module in self._supernet.modules():
            if isinstance(module, nn.Sequential) and hasattr(module, "act") and isinstance(module.act, nn.SiLU):
                module.act = _Swish()
        super().__init__(batch, precision, self._supernet.weight_parameters(), self._supernet.architecture_parameters())

    def weight_step(self) -> None:
        def losses() -> Tensor:
            first = torch.randint(len(self._supernet.space.candidates), (len(self._supernet.alphas),))
            paths = first, (first + 1) % len(self._supernet.space.candidates)
            logits = [
                self._forward(lambda x, op, i, path=path: _plain(op.operation(int(path[i])), x)) for path in paths
            ]
            return sum((self._cross_entropy(scores) for scores in logits), torch.zeros(()))

        self._step(losses, weights=True)

    def architecture_step(self) -> None:
        weights = functional.gumbel_softmax(self._supernet.alphas, TEMPERATURE)

        def mixed(x: Tensor, op: MixedOp, i: int) -> Tensor:
            return sum((w * _plain(op.operation(k), x) for k, w in enumerate(weights[i])), torch.zeros(()))

        self._step(lambda: self._cross_entropy(self._forward(mixed)), weights=False)

    def _forward(self, run: Callable[[Tensor, MixedOp, int], Tensor]) -> Tensor:
        net, layer, stage = self._supernet, 0, 0
        x = net.stem(self._images)
        for module in net.stages:
            if not isinstance(module, SinkConnectedStage):
                x = module(x)
                continue
            outputs: list[Tensor] = []
            for op in module.mixed_ops():
                x = run(x, op, layer)
                outputs.append(x)
                layer += 1
            depths = net.betas[stage].softmax(-1)
            x = sum((v * out for v, out in zip(depths, outputs, strict=True)), torch.zeros(()))
            stage += 1
        return net.classifier(net.pool(net.head(x)).flatten(1))


class _Swish(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.mul_(x.sigmoid())


def _plain(operation: CandidateOperation, x: Tensor) -> Tensor:
    weights, layer = operation.weights, operation.layer
    act = functional.relu_ if layer.act == "relu" else _Swish()
    out = act(_norm(functional.conv2d(x, weights["expand"])))
    kernel = weights["depthwise"]
    out = functional.conv2d(out, kernel, stride=layer.stride, padding=kernel.shape[-1] // 2, groups=len(kernel))
    out = act(_norm(out))
    if "se_reduce" in weights:
        reduced = act(
            functional.conv2d(out.mean((2, 3), keepdim=True), weights["se_reduce"], weights["se_reduce_bias"])
        )
        out = out * functional.conv2d(reduced, weights["se_expand"], weights["se_expand_bias"]).sigmoid()
    out = _norm(functional.conv2d(out, weights["project"]))
    return x + out if layer.stride == 1 and layer.in_channels == layer.out_channels else out


def _norm(x: Tensor) -> Tensor:
    return functional.batch_norm(x, None, None, training=True)


def _table() -> LatencyTable:
    """1 ms for every operation at every width: the value changes no cost."""
    space, curves = load_space("tf-nas"), {}
    for layer in searchable_layers(space):
        for candidate in space.candidates:
            key = OperationKey.of_candidate(layer, candidate)
            curves[key] = Curve((1, 10_000), (1.0, 1.0))
    return LatencyTable(space.name, space.resolution, 1, "made", 1.0, curves)


def random_batch(size: int, resolution: int = 224) -> tuple[Tensor, Tensor]:
    """(N, 3, H, W) images and (N,) labels."""
    return torch.randn(size, 3, resolution, resolution), torch.randint(NUM_CLASSES, (size,))


def build(name: str, batch_size: int, precision: str, authors: Path | None) -> Steps:
    """A form of `OURS`, or `theirs` (the plain reference without a folder)."""
    random.seed(0)
    torch.manual_seed(0)
    batch = random_batch(batch_size)
    if name == "theirs":
        return Authors(batch, precision, authors) if authors else Plain(batch, precision)
    return Ours(batch, precision, **OURS[name])
