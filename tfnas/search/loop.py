"""The search: bi-sampling, sink-connecting and elasticity-scaling, epoch by epoch (Sec. 3.3)."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import replace
from typing import Protocol

from tfnas.compute import distributed
from tfnas.jobs.checkpoints import Checkpoints
from tfnas.jobs.errors import UserError
from tfnas.jobs.progress import track
from tfnas.search.constraint import Constraint
from tfnas.search.epoch import EpochRunner, Loaders, set_epoch
from tfnas.search.params import UNTRAINED, untrained_above
from tfnas.search.result import EpochRecord, SearchResult, WarmUp, search_result
from tfnas.search.state import SearchState, Setting
from tfnas.space import Space

logger = logging.getLogger("tfnas.search")

OnEpoch = Callable[[EpochRecord], None]


class SearchCheckpoints(Checkpoints, Protocol):
    """Checkpoints that can also be named in a message."""

    def newest(self) -> object | None:
        """Where the last saved state is; None when there is none."""


def search(
    constraint: Constraint,
    loaders: Loaders,
    setting: Setting,
    *,
    warm_up: WarmUp | None = None,
    checkpoints: SearchCheckpoints | None = None,
    on_epoch: OnEpoch | None = None,
) -> SearchResult:
    """Search the most accurate network of a space within a limit on its latency.

    An epoch is a function of the state before it and of its number, since it seeds torch's random state (and every
    generator) from the seed and the number; so a search that resumes from a checkpoint ends, on a CPU, with the
    same bits. Searches for other targets see the same images and take the same paths while their alphas agree; their
    warm-ups are the same, and one can serve them all.

    Args:
        warm_up: what `run_warm_up` gave with the same setting; None runs those epochs first, with the same outcome.
        checkpoints: where to resume from, and to save to before the first and after every epoch.
        on_epoch: called with every epoch's record, those of a checkpoint or a warm-up first.

    Raises:
        UserError: no whole batch, a space that cannot be searched, or a loss that is not finite (names epoch, step
            and the last good checkpoint).
    """
    _validate(constraint.space, loaders, setting)
    if warm_up is not None:
        _validate_warm_up(warm_up, setting)
    if warm_up is not None and loaders.num_classes is None:
        loaders = replace(loaders, num_classes=warm_up.num_classes)
    state = SearchState.initial(constraint.space, _num_classes(loaders, setting.name), setting)
    runner = EpochRunner(state, loaders, setting, constraint)
    if warm_up is not None:
        runner.begin_after(warm_up.state)
    _run_epochs(runner, setting.params.epochs, checkpoints, on_epoch or _ignore)
    return search_result(state.supernet, constraint.limit, state.history)


def run_warm_up(
    space: Space,
    loaders: Loaders,
    setting: Setting,
    *,
    checkpoints: SearchCheckpoints | None = None,
    on_epoch: OnEpoch | None = None,
) -> WarmUp:
    """The first `params.warmup_epochs` epochs, in which alpha and beta are frozen: the same for every target.

    Args, Raises: as in `search`.
    """
    _validate(space, loaders, setting)
    num_classes = _num_classes(loaders, setting.name)
    state = SearchState.initial(space, num_classes, setting)
    _run_epochs(EpochRunner(state, loaders, setting), setting.params.warmup_epochs, checkpoints, on_epoch or _ignore)
    params = setting.params
    return WarmUp(space, num_classes, params.depth_space, params.weight_sharing, state.after_warm_up())


def _run_epochs(runner: EpochRunner, end: int, checkpoints: SearchCheckpoints | None, on_epoch: OnEpoch) -> None:
    """Run epochs until `end` of them are done or the rankings have settled; resume, and save after each."""
    state, name = runner.state, runner.setting.name
    _resume(state, checkpoints, name)
    for record in state.history:
        on_epoch(record)
    left = (end - len(state.history)) * len(runner.loaders.train)
    ticks = iter(track(range(left), label=name, total=left))
    while len(state.history) < end and not state.has_ended():
        epoch = len(state.history)
        if epoch == runner.setting.params.warmup_epochs:
            _warn_of_untrained(runner)
        try:
            state.history.append(runner.run(epoch, ticks))
        except UserError as error:
            raise UserError(f"{error}. Last good checkpoint: {_last_good(checkpoints, epoch)}") from None
        _check_processes_agree(state, name)
        _save(state, checkpoints)
        on_epoch(state.history[-1])
    next(ticks, None)  # the last log line


def _warn_of_untrained(runner: EpochRunner) -> None:
    """Say, when alpha starts, that the warm-up has hardly reduced the cross-entropy; without a warm-up say nothing."""
    state, params = runner.state, runner.setting.params
    limit = untrained_above(state.supernet.num_classes)
    loss = state.history[-1].train_loss if state.history else 0.0
    if loss <= limit or distributed.rank() > 0:
        return
    advice = [f"raise search.warmup_epochs ({params.warmup_epochs})"]
    if params.weight_sharing == "none":
        advice.append("write search.weight_sharing: entangled")
    advice.append(f"search a space of fewer than {len(state.supernet.space.candidates)} candidates")
    logger.warning(
        "%s: alpha starts on a supernet that has hardly learned: the warm-up ends at a cross-entropy of %.2f, above"
        " %.1f ln K = %.2f for K = %d classes (chance: ln K = %.2f), so the choice of operations will follow latency"
        " more than accuracy; %s, or %s",
        runner.setting.name, loss, UNTRAINED, limit, state.supernet.num_classes, limit / UNTRAINED,
        ", ".join(advice[:-1]), advice[-1],
    )  # fmt: skip


def _resume(state: SearchState, checkpoints: SearchCheckpoints | None, name: str) -> None:
    """Load the newest checkpoint into the state, or save the first."""
    saved = checkpoints.load() if checkpoints is not None else None
    if saved is None:
        _save(state, checkpoints)
        return
    state.load_state_dict(saved)
    logger.info("%s: resumes after epoch %d", name, len(state.history))


def _save(state: SearchState, checkpoints: SearchCheckpoints | None) -> None:
    if checkpoints is not None and distributed.rank() == 0:
        checkpoints.save(state.state_dict())


def _last_good(checkpoints: SearchCheckpoints | None, epoch: int) -> str:
    newest = checkpoints.newest() if checkpoints is not None else None
    return f"{newest}, after epoch {epoch}" if newest is not None else "none was saved"


def _check_processes_agree(state: SearchState, name: str) -> None:
    supernet = state.supernet
    values = [parameter.tolist() for parameter in supernet.architecture_parameters()] + supernet.widths()
    distributed.check_equal(f"{name}: alpha, beta or widths", values)


def _ignore(record: EpochRecord) -> None:
    pass


def _validate(space: Space, loaders: Loaders, setting: Setting) -> None:
    """Refuse images and spaces that cannot be searched."""
    for loader, part in ((loaders.train, "train"), (loaders.val, "val")):
        if len(loader) == 0:
            raise UserError(
                f"{setting.name}: search.batch_size {setting.params.batch_size} is larger than the number of {part}"
                " images; lower it"
            )
    second_path = setting.params.second_path
    if second_path != "none" and len(space.candidates) < 2:
        raise UserError(
            f"{setting.name}: search.second_path {second_path} needs two candidates, space {space.name} has"
            f" {len(space.candidates)}; write none"
        )


def _validate_warm_up(warm_up: WarmUp, setting: Setting) -> None:
    """Refuse a warm-up of another supernet."""
    for key in ("depth_space", "weight_sharing"):
        was, wanted = getattr(warm_up, key), getattr(setting.params, key)
        if was != wanted:
            raise UserError(
                f"{setting.name}: the warm-up was run with search.{key}: {was}, the search has {wanted}; run the"
                " warm-up again"
            )


def _num_classes(loaders: Loaders, name: str) -> int:
    """What the loaders say, or one more than the largest label."""
    if loaders.num_classes is not None:
        return loaders.num_classes
    largest = -1
    for loader in (loaders.train, loaders.val):
        set_epoch(loader, 0)
        largest = max(largest, *(int(labels.max()) for _, labels in loader))
    if largest < 1:
        raise UserError(f"{name}: the labels are all {max(largest, 0)}; a search needs 2 classes or more")
    return 1 + largest
