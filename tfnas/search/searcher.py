"""The search: bi-sampling, sink-connecting and elasticity-scaling, epoch by epoch (Sec. 3.3)."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any, Protocol

import torch

from tfnas.latency import LatencyTable
from tfnas.runtime.errors import UserError
from tfnas.runtime.progress import track
from tfnas.runtime.schema import SearchParams
from tfnas.runtime.seeding import derive_seed
from tfnas.search.epoch import EpochRunner, Loader
from tfnas.search.history import EpochRecord
from tfnas.search.result import SearchResult, search_result
from tfnas.search.state import SearchState
from tfnas.search.supernet import Supernet
from tfnas.space import Space

logger = logging.getLogger("tfnas.search")


class Checkpoints(Protocol):
    """What `tfnas.runtime.checkpoints.CheckpointFolder` gives."""

    def load(self) -> dict[str, Any] | None: ...

    def save(self, state: dict[str, Any]) -> None: ...


def search(
    space: Space,
    train_loader: Loader,
    val_loader: Loader,
    table: LatencyTable,
    target_ms: float,
    *,
    params: SearchParams,
    num_classes: int,
    seed: int,
    device: torch.device,
    precision: str = "float32",
    name: str = "search",
    checkpoints: Checkpoints | None = None,
    on_epoch: Callable[[EpochRecord], None] | None = None,
) -> SearchResult:
    """Search the most accurate network of a space within a latency target.

    An epoch is a function of the state before it and of its number, since it seeds torch's random state (and every
    generator) from the seed and the number; so a search that goes on from a checkpoint ends, on a CPU, with the
    same bits. Searches for other targets see the same images and take the same paths while their alphas agree.

    Args:
        train_loader: batches of the 80 % that train the weights, at least two images each.
        val_loader: batches of the 20 % that train alpha and beta.
        table: latencies of the space's operations.
        name: of the job, on its progress bar and in errors.
        checkpoints: where to go on from, and to save to after every epoch.
        on_epoch: called with every epoch's record, those of a checkpoint first.

    Raises:
        UserError: no whole batch, a space that cannot be searched, or a loss that is not finite (names epoch, step).
    """
    _check(space, train_loader, val_loader, params, name)
    torch.manual_seed(derive_seed(seed, "search", "supernet"))
    state = SearchState(Supernet(space, num_classes).to(device), params, precision)
    runner = EpochRunner(state, train_loader, val_loader, table, target_ms, params, precision, name)
    saved = checkpoints.load() if checkpoints is not None else None
    if saved is not None:
        state.load_state_dict(saved)
        logger.info("%s: goes on after epoch %d", name, len(state.history))
    on_epoch = on_epoch or _ignore
    for record in state.history:
        on_epoch(record)
    left = (params.epochs - len(state.history)) * len(train_loader)
    ticks = iter(track(range(left), label=name, total=left))
    for epoch in range(len(state.history), params.epochs):
        torch.manual_seed(derive_seed(seed, "search", epoch))
        generator = torch.Generator().manual_seed(derive_seed(seed, "search", "paths", epoch))
        state.history.append(runner.run(epoch, generator, ticks))
        if checkpoints is not None:
            checkpoints.save(state.state_dict())
        on_epoch(state.history[-1])
    next(ticks, None)  # the last log line
    return search_result(state.supernet, target_ms, state.history)


def _check(space: Space, train_loader: Loader, val_loader: Loader, params: SearchParams, name: str) -> None:
    for loader, part in ((train_loader, "train"), (val_loader, "val")):
        if len(loader) == 0:
            raise UserError(
                f"{name}: search.batch_size {params.batch_size} is larger than the number of {part} images; lower it"
            )
    if params.second_path != "none" and len(space.candidates) < 2:
        raise UserError(
            f"{name}: search.second_path {params.second_path} needs two candidates, space {space.name} has"
            f" {len(space.candidates)}; write none"
        )


def _ignore(record: EpochRecord) -> None:
    pass
