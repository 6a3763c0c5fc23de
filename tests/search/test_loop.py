"""The whole search on a tiny space and random images."""

from __future__ import annotations

import copy
import csv
import itertools
import math
from dataclasses import replace

import pytest
import torch
from torch.utils.data import DataLoader, TensorDataset

from tfnas.jobs.errors import UserError
from tfnas.latency import reachable_range_ms
from tfnas.search import Loaders, Setting, latency_constraint, run_warm_up, search, write_history
from tfnas.search.epoch import EpochRunner
from tfnas.search.result import load_warm_up, operation_names
from tfnas.search.scaling.widths import CHANNEL_IMPORTANCE, channel_order
from tfnas.search.state import SearchState
from tfnas.search.steps import Stepper
from tfnas.search.supernet.supernet import Supernet
from tfnas.space import Candidate


@pytest.fixture
def run(tiny_space, tiny_table, target_ms, loaders, make_params):
    def call(
        *, target_ms=target_ms, checkpoints=None, on_epoch=None, seed=0, space=tiny_space, warm_up=None, **changes
    ):
        return search(
            latency_constraint(space, tiny_table, target_ms),
            Loaders(*loaders, num_classes=3),
            Setting(make_params(**changes), seed),
            warm_up=warm_up,
            checkpoints=checkpoints,
            on_epoch=on_epoch,
        )

    return call


class Memory:
    """Checkpoints in memory, as deep copies."""

    def __init__(self) -> None:
        self.states = []

    def load(self):
        return copy.deepcopy(self.states[-1]) if self.states else None

    def save(self, state) -> None:
        self.states.append(copy.deepcopy(state))

    def newest(self):
        return f"state {len(self.states)}" if self.states else None


class Killed(Exception):
    pass


def assert_same_result(one, two) -> None:
    assert torch.equal(one.alphas, two.alphas)
    assert all(map(torch.equal, one.betas, two.betas))
    assert one.widths == two.widths
    assert one.weights.keys() == two.weights.keys()
    assert all(torch.equal(one.weights[name], two.weights[name]) for name in one.weights)
    assert timeless(one.history) == timeless(two.history)


def timeless(history):
    """Rows without durations."""
    return [{k: v for k, v in record.row().items() if not k.startswith("seconds")} for record in history]


STOPPING = {"depth_space": "skip_in", "early_stopping": {"layers": 0.2, "epochs": 1}}


ENTANGLED = {"weight_sharing": "entangled"}


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"reset_optimizers": True},
        {"depth_space": "skip_out"},
        ENTANGLED,
        ENTANGLED | {"architecture": {"paths": "one"}, "depth_space": "skip_in", "channel_importance": "product"},
    ],
    ids=["kept", "reset", "skip_out", "entangled", "entangled_one"],
)
def test_a_search_resumed_after_any_epoch_ends_with_the_same_bits(run, changes) -> None:
    whole = run(**changes)
    for last in range(1, 4):
        memory, seen = Memory(), []

        def kill(record, last=last) -> None:
            if record.epoch == last:
                raise Killed

        with pytest.raises(Killed):
            run(checkpoints=memory, on_epoch=kill, **changes)
        assert len(memory.states) == 1 + last
        assert_same_result(run(checkpoints=memory, on_epoch=seen.append, **changes), whole)
        assert [record.epoch for record in seen] == [1, 2, 3, 4]


def test_a_search_that_stopped_early_ends_there_when_resumed(run) -> None:
    memory = Memory()
    whole = run(checkpoints=memory, **STOPPING)
    assert 2 <= len(whole.history) < 4
    for states in (memory.states, memory.states[:-1]):
        again = Memory()
        again.states = list(states)
        assert_same_result(run(checkpoints=again, **STOPPING), whole)


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"warmup_epochs": 0},
        {"reset_optimizers": True},
        {"depth_space": "skip_in"},
        ENTANGLED,
        ENTANGLED | {"depth_space": "skip_out", "reset_optimizers": True},
    ],
)
def test_targets_forked_from_one_warm_up_end_as_searches_of_their_own(
    run, tiny_space, loaders, make_params, target_ms, tmp_path, changes
) -> None:
    params = make_params(**{"warmup_epochs": 2, **changes})
    warmed = run_warm_up(tiny_space, Loaders(*loaders, num_classes=3), Setting(params))
    for name in ("one", "two"):
        warmed.save(tmp_path / name, {"seed": 0})
        warmed = run_warm_up(tiny_space, Loaders(*loaders, num_classes=3), Setting(params))
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()
    for target in (target_ms, 0.8 * target_ms):
        forked = load_warm_up(tmp_path / "one", tiny_space, {"seed": 0})
        found = run(target_ms=target, warm_up=forked, **{"warmup_epochs": 2, **changes})
        assert_same_result(found, run(target_ms=target, **{"warmup_epochs": 2, **changes}))
        assert [r.seconds is None for r in found.history] == [r.epoch <= params.warmup_epochs for r in found.history]


def test_warm_up_of_other_parameters_is_a_user_error(tiny_space, loaders, make_params, tmp_path) -> None:
    warmed = run_warm_up(tiny_space, Loaders(*loaders, num_classes=3), Setting(make_params()))
    warmed.save(tmp_path / "supernet.pt", {"seed": 0, "search.epochs": 4})
    with pytest.raises(UserError, match=r"supernet\.pt: was warmed up with search\.epochs: 4, params\.yaml has 5; run"):
        load_warm_up(tmp_path / "supernet.pt", tiny_space, {"seed": 0, "search.epochs": 5})
    with pytest.raises(UserError, match="was searched in space 'tiny'"):
        load_warm_up(tmp_path / "supernet.pt", replace(tiny_space, candidates=tiny_space.candidates[:3]), {})


def test_the_seed_decides(run) -> None:
    assert_same_result(run(seed=3), run(seed=3))
    assert not torch.equal(run(seed=3).alphas, run(seed=4).alphas)


def test_architecture_waits_for_the_warmup(run) -> None:
    memory = Memory()
    result = run(checkpoints=memory, warmup_epochs=2)
    states = [state["supernet"] for state in memory.states[1:]]
    begin = torch.full((5, 4), -math.log(4))
    assert torch.equal(states[0]["alphas"], begin) and torch.equal(states[1]["alphas"], begin)
    assert not torch.equal(states[2]["alphas"], begin)
    assert memory.states[2]["widths"] == Supernet(result.space, 3).widths()
    for record in result.history[:2]:
        assert record.architecture_loss is None and record.latency_loss is None
        assert record.derived_latency_before_ms == record.derived_latency_after_ms
        assert record.temperature == 5.0
    assert result.history[2].temperature == 5.0  # decays after the first epoch that searches
    assert result.history[3].temperature == pytest.approx(4.8)


def test_derived_network_meets_the_target_after_every_searching_epoch(run, tiny_space, tiny_table, target_ms) -> None:
    result = run()
    for record in result.history[1:]:
        derived_high = record.derived_latency_after_ms
        assert derived_high <= target_ms
    architecture = result.derive("x").architecture
    assert tiny_table.latency_ms(architecture) == result.history[-1].derived_latency_after_ms
    last = result.history[-1].derived
    assert [last["stage3_depth"], last["stage4_depth"]] == [
        sum(block.stage == stage for block in architecture.blocks) for stage in (3, 4)
    ]
    assert last["stage3_layer1_width"] == architecture.blocks[1].expand_channels


def test_only_derived_operations_change_their_width(run, tiny_space) -> None:
    begin = Supernet(tiny_space, 3).widths()
    result = run(epochs=2)
    derived = result.derive("x")
    touched = {(layer, operation) for layer, operation, _ in derived.chosen(tiny_space)}
    changed = {(i, k) for i, k in itertools.product(range(5), range(4)) if result.widths[i][k] != begin[i][k]}
    assert changed and changed <= touched


@pytest.mark.parametrize("method", [False, "integer_ratio"])
def test_other_ways_of_scaling(run, tiny_space, target_ms, method) -> None:
    result = run(elasticity_scaling=method)
    begin = Supernet(tiny_space, 3).widths()
    assert (result.widths == begin) == (method is False)
    for record in result.history[1:]:
        if method is False:
            assert record.derived_latency_before_ms == record.derived_latency_after_ms
        else:
            assert record.derived_latency_after_ms <= target_ms


@pytest.mark.parametrize(("every", "expected"), [(1, 5), (2, 3), (3, 2)])
def test_architecture_steps_take_their_turn(run, monkeypatch, every, expected) -> None:
    taken = []
    original = Stepper.architecture_step
    monkeypatch.setattr(Stepper, "architecture_step", lambda self, *a: taken.append(a[0][1]) or original(self, *a))
    run(epochs=2, architecture={"every": every})
    assert len(taken) == expected


def test_the_twenty_percent_are_cycled_in_another_order(run, loaders, monkeypatch) -> None:
    images = []
    original = Stepper.architecture_step
    monkeypatch.setattr(
        Stepper, "architecture_step", lambda self, *a: images.append(a[0][0].clone()) or original(self, *a)
    )
    run(epochs=2, architecture={"every": 1})
    assert len(images) == 5  # two batches a round
    assert not torch.equal(images[0], images[2])
    assert torch.cat(images).shape == (20, 3, 16, 16)


@pytest.mark.parametrize(("second", "paths"), [("none", 1), ("random", 2), ("gumbel", 2)])
def test_number_of_paths_before_and_after_the_warmup(run, monkeypatch, second, paths) -> None:
    counts = []
    original = Stepper.weight_step
    monkeypatch.setattr(
        Stepper,
        "weight_step",
        lambda self, images, chosen: counts.append(len(chosen)) or original(self, images, chosen),
    )
    run(epochs=2, second_path=second)
    assert counts == [1] * 5 + [paths] * 5


@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
def test_mixed_precision_searches_too(tiny_space, tiny_table, target_ms, loaders, make_params, precision) -> None:
    result = search(
        latency_constraint(tiny_space, tiny_table, target_ms),
        Loaders(*loaders, num_classes=3),
        Setting(make_params(epochs=2), precision=precision),
    )
    assert all(tensor.dtype == torch.float32 and torch.isfinite(tensor).all() for tensor in result.weights.values())
    assert not torch.equal(result.alphas, Supernet(tiny_space, 3).alphas)


def test_entropy_begins_at_that_of_the_uniform_distribution(run) -> None:
    history = run().history
    assert history[0].alpha_entropy == pytest.approx(math.log(4))
    assert history[-1].alpha_entropy < math.log(4)
    for record in history:
        entropies = [value for name, value in record.derived.items() if name.endswith("_entropy")]
        assert len(entropies) == 5 and sum(entropies) / 5 == pytest.approx(record.alpha_entropy)


def test_an_epochs_metrics_are_numbers_operations_included(run, tiny_space) -> None:
    record = run(epochs=2).history[-1]
    metrics = record.metrics(operation_names(tiny_space))
    assert all(isinstance(value, (int, float)) for value in metrics.values())
    assert set(record.row()) - set(metrics) == {"epoch"}
    name = record.derived["stage4_layer2_op"]
    assert tiny_space.candidates[metrics["stage4_layer2_op"]].name == name
    assert metrics["train_top5"] == metrics["val_top5"] == 100.0  # of three classes
    assert metrics["seconds_per_architecture_step"] > 0 < metrics["seconds_per_weight_step"]


def test_plain_data_loaders_do_as_well(tiny_space, tiny_table, target_ms, loaders, make_params) -> None:
    def plain():
        sets = [TensorDataset(loader.images, loader.labels) for loader in loaders]
        return Loaders(*(DataLoader(images, batch_size=4, shuffle=True, drop_last=True) for images in sets))

    memory, setting = Memory(), Setting(make_params(epochs=3))
    constraint = latency_constraint(tiny_space, tiny_table, target_ms)
    whole = search(constraint, plain(), setting, checkpoints=memory)
    assert whole.num_classes == 3
    memory.states = memory.states[:2]
    torch.manual_seed(7)
    resumed = search(constraint, plain(), setting, checkpoints=memory)
    assert_same_result(resumed, whole)


def test_history_file_has_a_row_per_epoch_and_reads_back(run, tmp_path) -> None:
    result = run()
    write_history(result.history, tmp_path / "history.csv")
    with (tmp_path / "history.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 4
    assert rows[0]["latency_loss"] == "" and rows[1]["latency_loss"] != ""
    for row, record in zip(rows, result.history, strict=True):
        assert float(row["derived_latency_after_ms"]) == record.derived_latency_after_ms
        assert row["stage4_layer3_op"] in {"k3_e3", "k3_e6", "k5_e3", "k3_e3_se"}
        assert int(row["stage4_layer3_width"]) > 0


def test_a_loss_that_is_not_finite_stops_the_search(run, loaders) -> None:
    loaders[0].images[3] = torch.inf
    with pytest.raises(
        UserError, match=r"weight loss is nan at epoch 1, step [1-5]; lower.* checkpoint: none was saved"
    ):
        run()
    memory = Memory()
    loaders[0].images[3] = 0.0

    def spoil(record) -> None:
        loaders[0].images[3] = torch.inf if record.epoch == 2 else 0.0

    with pytest.raises(UserError, match=r"epoch 3, step .* Last good checkpoint: state 3, after epoch 2"):
        run(checkpoints=memory, on_epoch=spoil)


def test_a_candidate_with_a_kernel_of_7_is_a_row_of_the_space_and_no_more(
    tiny_space, loaders, make_params, make_table
) -> None:
    candidates = (*tiny_space.candidates, Candidate("k7_e3_se", 7, 3, (2, 4), 1))
    space = replace(tiny_space, candidates=candidates)
    table = make_table(space)
    low, high = reachable_range_ms(space, table)
    constraint = latency_constraint(space, table, 0.5 * (low + high))
    result = search(constraint, Loaders(*loaders, num_classes=3), Setting(make_params(epochs=2)))
    assert result.alphas.shape == (5, 5) and torch.isfinite(result.alphas).all()
    assert result.history[-1].derived_latency_after_ms <= constraint.limit


def test_too_small_sets_and_spaces_are_user_errors(run, loaders, tiny_space) -> None:
    with pytest.raises(UserError, match="second_path random needs two candidates"):
        run(space=replace(tiny_space, candidates=tiny_space.candidates[:1]))
    loaders[1].images = loaders[1].images[:3]
    with pytest.raises(UserError, match="larger than the number of val images"):
        run()


def test_validation_counts_every_image_once(tiny_space, tiny_table, target_ms, loaders, make_params) -> None:
    setting = Setting(make_params())
    torch.manual_seed(0)
    state = SearchState(Supernet(tiny_space, 3), setting)
    with torch.no_grad():
        state.supernet.classifier.weight.zero_()
        state.supernet.classifier.bias.copy_(torch.tensor([0.0, 1.0, 0.0]))
    constraint = latency_constraint(tiny_space, tiny_table, target_ms)
    runner = EpochRunner(state, Loaders(*loaders), setting, constraint)
    stepper = Stepper(state, setting, constraint)
    found, top5 = runner._validate(stepper, 0, torch.Generator().manual_seed(0))
    assert top5 == 100.0  # of three classes
    loaders[1].set_epoch(0)
    labels = torch.cat([labels for _, labels in loaders[1]])
    assert found == pytest.approx(100 * float((labels == 1).float().mean()))


@pytest.mark.parametrize("kind", CHANNEL_IMPORTANCE)
def test_scaling_keeps_the_channels_that_matter_by_the_measure_of_params(tiny_space, make_params, kind) -> None:
    state = SearchState.initial(tiny_space, 3, Setting(make_params(channel_importance=kind)))
    derived, operation = state.supernet.derive("x"), next(state.supernet.operations())
    before = {name: tensor.clone() for name, tensor in operation.named_buffers()}
    narrow = [replace(block, expand_channels=block.expand_channels - 3) for block in derived.architecture.blocks]
    state.apply_widths(derived, replace(derived.architecture, blocks=tuple(narrow)))
    kept = channel_order(before, operation.width, kind)[: operation.width]
    assert torch.equal(operation.weights["expand"], before["expand"][kept])
