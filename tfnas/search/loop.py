"""The search: bi-sampling, sink-connecting and elasticity-scaling, epoch by epoch (Sec. 3.3)."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Protocol

import torch

from tfnas.compute import distributed
from tfnas.compute.seeding import derive_seed
from tfnas.data.images.loader import Loader
from tfnas.jobs.checkpoints import Checkpoints
from tfnas.jobs.errors import UserError
from tfnas.jobs.progress import track
from tfnas.latency import LatencyTable
from tfnas.search.epoch import EpochRunner, set_epoch
from tfnas.search.params import SearchParams
from tfnas.search.result import EpochRecord, SearchResult, WarmUp, search_result
from tfnas.search.state import SearchState
from tfnas.search.supernet.supernet import Supernet
from tfnas.space import Space

logger = logging.getLogger("tfnas.search")


class SearchCheckpoints(Checkpoints, Protocol):
    """Checkpoints that can also be named in a message."""

    def newest(self) -> object | None:
        """Where the last saved state is; None when there is none."""


def search(
    space: Space,
    train_loader: Loader,
    val_loader: Loader,
    table: LatencyTable,
    target_ms: float,
    *,
    params: SearchParams,
    num_classes: int | None = None,
    seed: int = 0,
    device: torch.device | str = "cpu",
    precision: str = "float32",
    name: str = "search",
    warm_up: WarmUp | None = None,
    checkpoints: SearchCheckpoints | None = None,
    on_epoch: Callable[[EpochRecord], None] | None = None,
) -> SearchResult:
    """Search the most accurate network of a space within a latency target.

    An epoch is a function of the state before it and of its number, since it seeds torch's random state (and every
    generator) from the seed and the number; so a search that goes on from a checkpoint ends, on a CPU, with the
    same bits. Searches for other targets see the same images and take the same paths while their alphas agree; their
    warm-ups are the same, and one can serve them all.

    Args:
        train_loader: batches of the 80 % that train the weights, at least two images each.
        val_loader: batches of the 20 % that train alpha and beta.
        table: latencies of the space's operations.
        num_classes: labels are 0 to num_classes - 1; None counts them in both loaders.
        name: of the job, on its progress bar and in errors.
        warm_up: what `run_warm_up` gave with the same arguments; None does those epochs here, with the same outcome.
        checkpoints: where to go on from, and to save to before the first and after every epoch.
        on_epoch: called with every epoch's record, those of a checkpoint or a warm-up first.

    Raises:
        UserError: no whole batch, a space that cannot be searched, or a loss that is not finite (names epoch, step
            and the last good checkpoint).
    """
    setting = _Setting(space, params, seed, torch.device(device), precision, name)
    loaders = (train_loader, val_loader)
    setting.check(*loaders)
    if num_classes is None:
        num_classes = _count_classes(loaders, name) if warm_up is None else warm_up.num_classes
    state = setting.begin(num_classes)
    runner = EpochRunner(state, *loaders, table, target_ms, params, precision, name)
    if warm_up is not None:
        state.begin_after(warm_up.state)
        worth = runner.latencies_of_warm_up()._asdict()
        state.history = [replace(record, **worth) for record in state.history]
    _run_epochs(setting, state, runner, params.epochs, len(train_loader), checkpoints, on_epoch)
    return search_result(state.supernet, target_ms, state.history)


def run_warm_up(
    space: Space,
    train_loader: Loader,
    val_loader: Loader,
    *,
    params: SearchParams,
    num_classes: int,
    seed: int = 0,
    device: torch.device | str = "cpu",
    precision: str = "float32",
    name: str = "warm_up",
    checkpoints: SearchCheckpoints | None = None,
    on_epoch: Callable[[EpochRecord], None] | None = None,
) -> WarmUp:
    """The first `params.warmup_epochs` epochs, in which alpha and beta are frozen: the same for every target.

    Args, Raises: as `search`.
    """
    setting = _Setting(space, params, seed, torch.device(device), precision, name)
    setting.check(train_loader, val_loader)
    state = setting.begin(num_classes)
    runner = EpochRunner(state, train_loader, val_loader, None, None, params, precision, name)
    _run_epochs(setting, state, runner, params.warmup_epochs, len(train_loader), checkpoints, on_epoch)
    return WarmUp(space, num_classes, params.depth_space, state.after_warm_up())


@dataclass(frozen=True)
class _Setting:
    """What every epoch of a search has in common."""

    space: Space
    params: SearchParams
    seed: int
    device: torch.device
    precision: str
    name: str

    def begin(self, num_classes: int) -> SearchState:
        """The state before the first epoch."""
        torch.manual_seed(derive_seed(self.seed, "search", "supernet"))
        supernet = Supernet(self.space, num_classes, self.params.depth_space)
        return SearchState(supernet.to(self.device), self.params, self.precision)

    def generator(self, epoch: int) -> torch.Generator:
        """Of an epoch's paths and noise; seeds torch's global random state as well."""
        torch.manual_seed(derive_seed(self.seed, "search", epoch))
        return torch.Generator().manual_seed(derive_seed(self.seed, "search", "paths", epoch))

    def check(self, train_loader: Loader, val_loader: Loader) -> None:
        for loader, part in ((train_loader, "train"), (val_loader, "val")):
            if len(loader) == 0:
                raise UserError(
                    f"{self.name}: search.batch_size {self.params.batch_size} is larger than the number of {part}"
                    " images; lower it"
                )
        if self.params.second_path != "none" and len(self.space.candidates) < 2:
            raise UserError(
                f"{self.name}: search.second_path {self.params.second_path} needs two candidates, space"
                f" {self.space.name} has {len(self.space.candidates)}; write none"
            )


def _resume(state: SearchState, checkpoints: SearchCheckpoints | None, name: str) -> None:
    """Load the newest checkpoint into the state, or save the first."""
    saved = checkpoints.load() if checkpoints is not None else None
    if saved is None:
        _save(state, checkpoints)
        return
    state.load_state_dict(saved)
    logger.info("%s: goes on after epoch %d", name, len(state.history))


def _save(state: SearchState, checkpoints: SearchCheckpoints | None) -> None:
    if checkpoints is not None and distributed.rank() == 0:
        checkpoints.save(state.state_dict())


def _run_epochs(
    setting: _Setting,
    state: SearchState,
    runner: EpochRunner,
    end: int,
    steps: int,
    checkpoints: SearchCheckpoints | None,
    on_epoch: Callable[[EpochRecord], None] | None,
) -> None:
    """Run the epochs that are left until `end` of them are done or the search has ended; resume, save after each.

    Args:
        steps: of an epoch.
    """
    on_epoch = on_epoch or _ignore
    _resume(state, checkpoints, setting.name)
    for record in state.history:
        on_epoch(record)
    ticks = _ticks((end - len(state.history)) * steps, setting.name)
    while len(state.history) < end and not state.has_ended():
        epoch = len(state.history)
        try:
            state.history.append(runner.run(epoch, setting.generator(epoch), ticks))
        except UserError as error:
            newest = checkpoints.newest() if checkpoints is not None else None
            where = f"{newest}, after epoch {epoch}" if newest is not None else "none was saved"
            raise UserError(f"{error}. Last good checkpoint: {where}") from None
        supernet = state.supernet
        distributed.check_equal(
            f"{setting.name}: alpha, beta or widths",
            [parameter.tolist() for parameter in supernet.architecture_parameters()] + supernet.widths(),
        )
        _save(state, checkpoints)
        on_epoch(state.history[-1])
    next(ticks, None)  # the last log line


def _ignore(record: EpochRecord) -> None:
    pass


def _ticks(left: int, name: str) -> Iterator[int]:
    return iter(track(range(left), label=name, total=left))


def _count_classes(loaders: tuple[Loader, Loader], name: str) -> int:
    """One more than the largest label."""
    largest = -1
    for loader in loaders:
        set_epoch(loader, 0)
        largest = max(largest, *(int(labels.max()) for _, labels in loader))
    if largest < 1:
        raise UserError(f"{name}: the labels are all {max(largest, 0)}; a search needs 2 classes or more")
    return 1 + largest
