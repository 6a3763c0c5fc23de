"""The time of a run: laws of the sum, steps as the loaders count them, and real measurements."""

from __future__ import annotations

from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from torch.utils.data import TensorDataset

from tfnas.cli import main
from tfnas.cli.estimate import duration
from tfnas.cli.estimate.measured import measure
from tfnas.cli.estimate.networks import TURNS, Reach, _interpolated, network_of_size, wide_network
from tfnas.cli.estimate.schedule import (
    ImageCounts,
    StepTimes,
    job_times,
    search_steps,
    stage_seconds,
    total_seconds,
    training_steps,
)
from tfnas.cli.estimate.step_times import seconds_of
from tfnas.cli.init.presets import render_preset
from tfnas.data.images.loader import make_loader
from tfnas.latency.params import ConstraintParams
from tfnas.space import count_macs, load_space
from tfnas.space.membership import violations
from tfnas.stages.params import Params, load_params
from tfnas.stages.registry import STAGES

COUNTS = ImageCounts({"a": 40, "b": 90, "c": 333}, 57, 3 * 96 * 96)
MAPPINGS = ("training_step", "training_batch", "latency")
TIMES = StepTimes(
    **{
        field.name: ({"A": 0.7, "B": 0.3} if field.name in MAPPINGS else 0.01 * number)
        for number, field in enumerate(fields(StepTimes), start=1)
    }
)


def params_with(folder: Path, **changes: Any) -> Params:
    """The digits' parameters with some values changed: `search__epochs=9`."""
    plain = yaml.safe_load(render_preset("digits"))
    for key, value in changes.items():
        *parents, leaf = key.split("__")
        section = plain
        for parent in parents:
            section = section[parent]
        section[leaf] = value
    (folder / "params.yaml").write_text(yaml.safe_dump(plain))
    return load_params(folder / "params.yaml")


def total(params: Params, cores: int = 2, times: StepTimes = TIMES) -> float:
    return total_seconds(job_times(params, COUNTS, times, cores), params, cores)


def test_every_job_of_a_run_is_there(tmp_path) -> None:
    params = params_with(tmp_path)
    jobs = job_times(params, COUNTS, TIMES, 2)
    expected = [("search", ("A",)), ("search", ("B",)), ("transfer", ("B", "shifted-digits"))]
    assert set(expected) <= {(job.stage, job.names) for job in jobs}
    assert list(stage_seconds(jobs, params, 2)) == list(STAGES)
    assert all(job.seconds >= TIMES.start for job in jobs)


@pytest.mark.parametrize("key", ["search__epochs", "retrain__epochs", "transfer__epochs", "profile_latency__minutes"])
@pytest.mark.parametrize("workers", [0, 2])
def test_time_is_linear_in_epochs(tmp_path, key, workers) -> None:
    seconds = [total(params_with(tmp_path, **{key: value, "device__workers": workers})) for value in (20, 30, 40)]
    assert seconds[1] - seconds[0] == pytest.approx(seconds[2] - seconds[1])
    assert seconds[1] > seconds[0]


def test_a_search_is_its_warm_up_and_its_epochs(tmp_path) -> None:
    """One more epoch of warm-up makes warm_up longer and search shorter, each by one epoch of its own."""
    jobs = [
        {job.stage: job.seconds for job in job_times(params_with(tmp_path, search__warmup_epochs=n), COUNTS, TIMES, 2)}
        for n in (4, 5, 6)
    ]
    for stage, sign in (("warm_up", 1), ("search", -1)):
        first, second = (sign * (jobs[n + 1][stage] - jobs[n][stage]) for n in (0, 1))
        assert first == pytest.approx(second) and first > 0


def test_time_is_additive_in_step_times(tmp_path) -> None:
    """Without loading processes, the seconds of twice as slow steps are twice as many."""
    params = params_with(tmp_path, profile_latency__minutes=1e-9)
    doubled = StepTimes(
        **{
            field.name: (
                {name: 2 * value for name, value in getattr(TIMES, field.name).items()}
                if field.name in MAPPINGS
                else 2 * getattr(TIMES, field.name)
            )
            for field in fields(StepTimes)
        }
    )
    assert total(params, times=doubled) == pytest.approx(2 * total(params), rel=1e-6)


@pytest.mark.parametrize("workers", [0, 1, 4])
@pytest.mark.parametrize("threads", [1, 2, 3])
def test_more_cores_are_never_slower(tmp_path, workers, threads) -> None:
    params = params_with(tmp_path, device__workers=workers, device__threads=threads)
    seconds = [total(params, cores) for cores in range(1, 12)]
    assert seconds == sorted(seconds, reverse=True)


def test_two_targets_run_side_by_side_but_are_measured_in_turn(tmp_path) -> None:
    params = params_with(tmp_path)
    jobs = job_times(params, COUNTS, TIMES, 2)
    one, two = stage_seconds(jobs, params, 1), stage_seconds(jobs, params, 2)
    each = {stage: [job.seconds for job in jobs if job.stage == stage] for stage in two}
    assert two["search"] == pytest.approx(one["search"] / 2) and two["retrain"] == max(each["retrain"])
    assert one["retrain"] == pytest.approx(sum(each["retrain"]))
    assert one["derive"] == two["derive"] == pytest.approx(sum(each["derive"]))
    on_gpu = params.model_copy(update={"device": params.device.model_copy(update={"name": "cuda"})})
    assert stage_seconds(jobs, on_gpu, 8, gpus=1)["search"] == pytest.approx(sum(each["search"]))


@pytest.mark.parametrize("batch_size", [2, 7, 16])
def test_steps_are_those_of_the_loaders(tmp_path, batch_size) -> None:
    params = params_with(
        tmp_path,
        search__batch_size=batch_size,
        build_subset__groups=3,
        search__architecture={**yaml.safe_load(render_preset("digits"))["search"]["architecture"], "every": 4},
    )
    subset = (32 + 72 + 266, 8 + 18 + 67)  # 80 % of each class, rounded down
    steps, architecture_steps, batches = search_steps(params, COUNTS)
    assert (steps, batches) == tuple(loader_length(size, batch_size, drop_last=True) for size in subset)
    assert architecture_steps == len([step for step in range(steps) if step % 4 == 0])


@pytest.mark.parametrize(("batch_size", "accumulate"), [(8, 1), (16, 2), (64, 4)])
def test_training_steps_are_those_of_the_loaders(tmp_path, batch_size, accumulate) -> None:
    recipe = params_with(tmp_path, retrain__batch_size=batch_size, retrain__accumulate=accumulate).retrain
    part = batch_size // accumulate
    steps, batches = training_steps(recipe, 463, 57)
    assert steps == loader_length(463, part, drop_last=True) // accumulate
    assert batches == loader_length(57, part, drop_last=False)


def loader_length(images: int, batch_size: int, *, drop_last: bool) -> int:
    dataset = TensorDataset(torch.zeros(images, 1), torch.zeros(images))
    return len(make_loader(dataset, batch_size, shuffle=True, seed=0, drop_last=drop_last))


def test_loading_processes_hide_loading_only_as_far_as_cores_allow(tmp_path) -> None:
    slow = replace(TIMES, augment=1.0, plain=1.0)
    alone, helped = (total(params_with(tmp_path, device__workers=n), 4, slow) for n in (0, 3))
    assert helped < alone
    assert total(params_with(tmp_path, device__workers=3), 1, slow) >= 0.9 * total(params_with(tmp_path), 1, slow)


def test_a_position_is_between_the_ends_and_a_size_has_its_latency() -> None:
    reach = Reach((0.0, 0.5, 1.0), (4.0, 6.0, 14.0))
    assert reach.limit_ms(ConstraintParams(relative=0.3)) == pytest.approx(7.0)
    assert reach.limit_ms(ConstraintParams(latency_ms=5.0)) == 5.0
    sizes = [_interpolated(ms, reach.latencies_ms, reach.sizes) for ms in (1, 4, 5, 6, 14, 99)]
    assert sizes == [0, 0, 0.25, 0.5, 1, 1]


def test_networks_at_a_latency_are_wide_ones_where_a_wide_one_is_as_fast() -> None:
    space, reach = load_space("tf-nas"), Reach((0.0, 0.5, 1.0), (4.0, 6.0, 14.0), (5.0, 7.0, 15.0))
    assert reach.networks_at(space, 4.5) == [network_of_size(space, 0.125)]
    assert reach.networks_at(space, 6.0) == [wide_network(space, 0.25, turn) for turn in TURNS]


@pytest.mark.parametrize("name", ["tf-nas", "tf-nas-small-images", "mobilenet-v2"])
def test_wide_networks_are_members_that_grow_in_width_before_depth(name) -> None:
    space = load_space(name)
    networks = [wide_network(space, size, turn) for turn in TURNS for size in (0, 0.2, 0.5, 0.8, 1)]
    assert not [why for network in networks for why in violations(network, space)]
    for turn in TURNS:
        some = [wide_network(space, size, turn) for size in (0, 0.2, 0.5, 0.8, 1)]
        depths = [len(network.blocks) for network in some]
        assert depths[0] == depths[1] == depths[2] == len(network_of_size(space, 0).blocks)
        assert depths[2] < depths[3] < depths[4] == len(network_of_size(space, 1).blocks)
        macs = [count_macs(network, 96, 10) for network in some]
        assert macs == sorted(set(macs))


def test_a_wide_network_computes_more_than_a_deep_one_in_as_many_layers() -> None:
    """So its training step is longer than its place between fastest and slowest suggests."""
    space = load_space("tf-nas")
    fastest = count_macs(network_of_size(space, 0), 96, 10)
    assert all(count_macs(wide_network(space, 0.25, turn), 96, 10) > 1.4 * fastest for turn in TURNS)


@pytest.mark.parametrize("name", ["tf-nas", "tf-nas-small-images", "mobilenet-v2"])
def test_networks_of_a_size_are_members_and_grow(name) -> None:
    space = load_space(name)
    networks = [network_of_size(space, size) for size in (0, 0.3, 0.7, 1)]
    assert not [why for network in networks for why in violations(network, space)]
    widths = [sum(block.expand_channels for block in network.blocks) for network in networks]
    assert widths == sorted(set(widths))


def parts_of(params: Params, stage: str, *names: str) -> dict[str, float]:
    """The seconds of a job's parts."""
    job = next(job for job in job_times(params, COUNTS, TIMES, 2) if (job.stage, job.names) == (stage, names))
    return {part.what: part.count * part.seconds for part in job.parts}


def test_a_teacher_adds_its_forward_pass_to_every_step_and_a_validation(tmp_path) -> None:
    """Without loading processes, behind which a short pass may hide."""
    with_teacher = {"network": "ranking", "model": None, "temperature": 4.0, "weight": 0.5}
    for accumulate in (1, 2):
        alone, taught = (
            params_with(tmp_path, device__workers=0, retrain__batch_size=16, retrain__accumulate=accumulate, **change)
            for change in ({}, {"retrain__teacher": with_teacher})
        )
        steps, batches = training_steps(alone.retrain, 463, 57)
        loaded = min(16 // accumulate, 57) * TIMES.plain
        more = alone.retrain.epochs * steps * accumulate * TIMES.teacher_batch + batches * (
            TIMES.teacher_batch + loaded
        )
        for target in ("A", "B"):
            without, with_it = (sum(parts_of(params, "retrain", target).values()) for params in (alone, taught))
            assert with_it - without == pytest.approx(more)
        assert parts_of(alone, "transfer", "B", "shifted-digits") == parts_of(taught, "transfer", "B", "shifted-digits")


@pytest.mark.parametrize(("initial", "calibrates"), [("supernet", True), ("inputs/weights/a.pt", False)])
def test_a_start_adds_a_validation_and_a_supernets_its_statistics(tmp_path, initial, calibrates) -> None:
    given = {"architecture": "TF-NAS-CPU-B"}
    changes = {"targets__B__constraint": given, "baselines__targets": ["A"], "retrain__batch_size": 4}
    changes |= {"device__workers": 0}
    scratch, started = (params_with(tmp_path, retrain__initial=value, **changes) for value in ("scratch", initial))
    _, batches = training_steps(scratch.retrain, 463, 57)
    more = {"validation batch before": batches * (TIMES.training_batch["A"] + 4 * TIMES.plain)}
    if calibrates:
        more["batch for BatchNorm"] = 50 * (TIMES.training_batch["A"] + 4 * TIMES.augment)
    assert parts_of(started, "retrain", "A") == pytest.approx(parts_of(scratch, "retrain", "A") | more)
    is_same = parts_of(started, "retrain", "B") == parts_of(scratch, "retrain", "B")
    assert is_same == calibrates  # a given network comes from no supernet, but may have a file


def test_sampler_and_kept_epoch_change_no_time(tmp_path) -> None:
    """An epoch of `balanced` has as many images, so the loader as many batches."""
    plain, other = params_with(tmp_path), params_with(tmp_path, retrain__sampler="balanced", retrain__keep="best")
    assert job_times(plain, COUNTS, TIMES, 2) == job_times(other, COUNTS, TIMES, 2)
    dataset = TensorDataset(torch.zeros(45, 1), torch.zeros(45))
    dataset.labels = [0] * 40 + [1] * 5
    loaders = [
        make_loader(dataset, 8, shuffle=True, seed=0, drop_last=True, balanced=balanced) for balanced in (False, True)
    ]
    assert len(loaders[0]) == len(loaders[1])
    assert len(list(loaders[0])) == len(list(loaders[1]))


def test_a_given_network_is_not_searched_and_without_searches_no_supernet_trained(tmp_path) -> None:
    given = {"architecture": "TF-NAS-CPU-B"}
    one = params_with(tmp_path, targets__B__constraint=given, baselines__targets=["A"])
    assert parts_of(one, "search", "B") == {"start": TIMES.start}
    assert parts_of(one, "search", "A") == parts_of(params_with(tmp_path), "search", "A")
    assert parts_of(one, "derive", "B") == parts_of(params_with(tmp_path), "derive", "B")
    changes = {f"targets__{name}__constraint": given for name in "AB"} | {"baselines__targets": []}
    none = params_with(tmp_path, **changes, search__epochs=0)
    assert sum(parts_of(none, "warm_up").values()) == TIMES.start


def test_ranking_evaluates_each_random_network_on_every_held_out_batch(tmp_path) -> None:
    networks = ["random_1", "any_1", "mobilenet_v2", "random_2"]
    changes = {"baselines__networks": networks, "device__workers": 0, "search__batch_size": 4}
    params = params_with(tmp_path, **changes)
    _, _, batches = search_steps(params, COUNTS)
    parts = parts_of(params, "rank_baselines", "B")
    assert batches > 1
    assert parts["evaluated batch"] == pytest.approx(3 * batches * (TIMES.derived_batch + 4 * TIMES.plain))
    none = parts_of(params_with(tmp_path, baselines__networks=["mobilenet_v2"]), "rank_baselines", "B")
    assert sum(none.values()) == TIMES.start


def test_given_networks_and_a_teacher_are_measured(tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("tfnas.cli.estimate.step_times.MOST_CALLS", 1)
    monkeypatch.setattr("tfnas.cli.estimate.step_times.start_seconds", lambda: 1.0)
    given = {"constraint": {"architecture": "TF-NAS-CPU-B"}, "dropout": 0.2}
    params = params_with(
        tmp_path,
        targets={"A": given},
        transfer__targets=[],
        baselines__targets=[],
        search__epochs=0,
        retrain__batch_size=4,
        retrain__teacher={"network": "ranking", "model": None, "temperature": 4.0, "weight": 0.5},
        rank_classes__fit={"epochs": 1, "batch_size": 4, "learning_rate": 0.001},
    )
    reach = Reach((0.0, 1.0), (1.0, 2.0))
    times = measure(params, reach).times
    assert times.latency["A"] > 0 and times.training_step["A"] > 0 and times.teacher_batch > 0
    assert times.search_step == times.warm_up_step == 0


@pytest.mark.parametrize(("seconds", "words"), [(40.4, "40 s"), (91, "2 min"), (5399, "90 min"), (9000, "2.5 h")])
def test_durations_are_readable(seconds, words) -> None:
    assert duration(seconds) == words


def test_estimate_measures_the_digits(tmp_path, monkeypatch, capsys) -> None:
    """Real steps, on few images; every stage has its line."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("tfnas.cli.estimate.step_times.MOST_CALLS", 1)
    params_with(
        tmp_path,
        search__batch_size=4,
        retrain__batch_size=4,
        rank_classes__fit={"epochs": 1, "batch_size": 4, "learning_rate": 0.001},
    )
    assert main(["estimate", "--cores", "2"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines[2 : 3 + len(STAGES)]] == [*STAGES, "all"]


@pytest.mark.parametrize(
    ("arguments", "words"), [(["--params", "none.yaml"], "none.yaml"), (["--cores", "0"], "must be 1 or more")]
)
def test_mistakes_are_one_line(tmp_path, monkeypatch, capsys, arguments, words) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["estimate", *arguments]) == 2
    line = capsys.readouterr().err
    assert words in line and line.count("\n") == 1


@pytest.mark.parametrize(("first", "calls"), [(9.0, 1), (0.5, 1 + 2), (0.01, 1 + 5)])
def test_a_step_is_repeated_unless_it_is_long(monkeypatch, first, calls) -> None:
    """The first call, which sets up, counts only where it is long; a disturbed one is outvoted."""
    clock, lengths = [0.0], iter([first, *[0.3 if first == 0.5 else 0.01] * 4, 0.5])
    called = []

    def call() -> None:
        called.append(1)
        clock[0] += next(lengths)

    monkeypatch.setattr("tfnas.cli.estimate.step_times.time.perf_counter", lambda: clock[0])
    seconds = seconds_of(call)
    assert len(called) == calls
    assert seconds == pytest.approx({9.0: 9.0, 0.5: 0.3, 0.01: 0.01}[first])
