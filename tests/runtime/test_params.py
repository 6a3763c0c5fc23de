"""params.yaml: every mistake is one line with file, key, value and fix; values follow the keys of a stage."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from tfnas.runtime.errors import UserError
from tfnas.runtime.params import STAGE_KEYS, load_params, stage_params

PARAMS = Path(__file__).parents[2] / "params.yaml"


@pytest.fixture
def params_file(tmp_path):
    """Write params.yaml with one key set to a value; a key of None is taken out."""

    def write(key: str | None = None, value: Any = None, *, remove: bool = False) -> Path:
        params = yaml.safe_load(PARAMS.read_text())
        if key is not None:
            *parents, last = key.split(".")
            section = params
            for part in parents:
                section = section[part]
            if remove:
                del section[last]
            else:
                section[last] = value
        path = tmp_path / "params.yaml"
        path.write_text(yaml.safe_dump(params))
        return path

    return write


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("search.lamda", 0.1, ["search.lamda", "did you mean 'lambda'?"]),
        ("serach", {}, ["'serach'", "did you mean 'search'?"]),
        ("targets.A.constraint.realtive", 0.5, ["targets.A.constraint.realtive", "'relative'"]),
        ("search.epochs", "many", ["search.epochs", "'many'"]),
        ("search.epochs", 0, ["search.epochs", "greater than or equal to 1", "0"]),
        ("search.warmup_epochs", 14, ["warmup_epochs must be less than epochs"]),
        ("search.second_path", "randm", ["search.second_path", "'random'", "'randm'"]),
        ("build_subset.train_fraction", 1.0, ["build_subset.train_fraction", "less than 1"]),
        ("targets.A.constraint", {"latency_ms": 1.0, "relative": 0.5}, ["targets.A.constraint", "exactly one"]),
        ("targets.A.constraint.relative", 1.5, ["targets.A.constraint.relative", "1.5"]),
        ("targets", {}, ["targets", "at least 1"]),
        ("transfer.targets", ["A", "Z"], ["transfer.targets names 'Z'", "A, B"]),
        ("prepare_data.source", "imagefolder", ["prepare_data", "root is missing"]),
        ("device.name", "gpu", ["device.name", "'gpu'"]),
        ("resolution", 4, ["resolution", "8", "4"]),
        ("retrain.augmentation.crop_scale", [1.0, 0.5], ["retrain.augmentation", "[smallest, largest]"]),
    ],
)
def test_a_mistake_is_one_clear_line(params_file, key, value, words) -> None:
    path = params_file(key, value)
    with pytest.raises(UserError) as caught:
        load_params(path)
    line = str(caught.value)
    assert "\n" not in line
    for word in (str(path), *words):
        assert word in line, line


def test_a_missing_key_is_named(params_file) -> None:
    with pytest.raises(UserError, match=r"search\.lambda: is missing"):
        load_params(params_file("search.lambda", remove=True))


def test_a_missing_or_broken_file_is_named(tmp_path) -> None:
    with pytest.raises(UserError, match=r"none\.yaml: cannot be read .*tfnas init"):
        load_params(tmp_path / "none.yaml")
    broken = tmp_path / "broken.yaml"
    broken.write_text("search: [1\n")
    with pytest.raises(UserError, match=r"broken\.yaml: is not valid YAML"):
        load_params(broken)
    broken.write_text("seed: 0\nseed: 1\n")
    with pytest.raises(UserError, match=r"key 'seed' is written twice"):
        load_params(broken)


def test_params_cannot_be_changed(params_file) -> None:
    params = load_params(params_file())
    with pytest.raises(ValueError, match="frozen"):
        params.seed = 1  # type: ignore[misc]


def test_a_stage_sees_the_values_in_the_file(params_file) -> None:
    path = params_file()
    raw = yaml.safe_load(path.read_text())
    values = stage_params(load_params(path), "search", "A")
    assert values["targets.A.constraint"] == raw["targets"]["A"]["constraint"] | {"latency_ms": None}
    assert values["search"]["lambda"] == raw["search"]["lambda"]
    assert list(values) == [key.format(target="A") for key in STAGE_KEYS["search"]]


def test_a_change_reaches_the_stages_that_depend_on_it_only(params_file) -> None:
    before = load_params(params_file())
    for key, value, stages in [
        ("search.lambda", 0.2, {"search"}),
        ("search.latency_loss", "log", {"search"}),
        ("search.temperature.decay", 0.9, {"search"}),
        ("search.weights.momentum", 0.8, {"warm_up", "search"}),
        ("search.epochs", 20, {"warm_up", "search"}),
        ("targets.A.dropout", 0.3, {"retrain", "transfer", "report"}),
        ("targets.A.constraint.relative", 0.9, {"search", "derive", "report"}),
        ("device.workers", 3, set()),
        ("tracking.experiment", "other", set()),
        ("build_subset.groups", 3, {"build_subset"}),
        ("report.title", "other", {"report"}),
        ("space", "mobilenet-v2", {"profile_latency", "warm_up", "search", "derive"}),
    ]:
        after = load_params(params_file(key, value))
        changed = {stage for stage in STAGE_KEYS if stage_params(before, stage, "A") != stage_params(after, stage, "A")}
        assert changed == stages, key
