"""params.yaml: every mistake is one line with file, key, value and fix; values follow the keys of a stage."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from dvc.utils.serialize import load_yaml as load_as_dvc
from hypothesis import given
from hypothesis import strategies as st

from tfnas.engines.trust import values_as_text
from tfnas.jobs.errors import UserError
from tfnas.jobs.sections import read_yaml
from tfnas.space import zoo
from tfnas.space.space import halve
from tfnas.stages.params import (
    Params,
    check_given_networks,
    check_named_files,
    load_params,
    named_files,
    spared_supernet,
    stage_params,
)
from tfnas.stages.registry import NAMED_FILES, STAGES

PARAMS = Path(__file__).parents[2] / "params.yaml"

SHIPPED = Path(__file__).parents[2] / "params.yaml"


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
        ("search.epochs", -1, ["search.epochs", "greater than or equal to 0", "-1"]),
        ("search.epochs", 0, ["search.epochs: 0 searches nothing", "target A asks for a latency"]),
        ("targets.A.constraint", {"architecture": "tfnas_cpu_b"}, ["constraint.architecture", "TF-NAS-CPU-B?"]),
        (
            "targets.A.constraint",
            {"architecture": "TF-NAS-A", "relative": 0.5},
            ["targets.A.constraint", "exactly one"],
        ),
        ("targets.A.constraint", {"architecture": None}, ["targets.A.constraint", "exactly one"]),
        ("baselines.targets", ["C"], ["baselines.targets names 'C'", "not in targets (A, B)"]),
        ("baselines.networks", ["random_0"], ["baselines.networks", "'random_0' is neither", "mobilenet_v2"]),
        ("baselines.networks", ["mobilenet_v9"], ["baselines.networks", "'mobilenet_v9' is neither", "random_N"]),
        ("baselines.networks", ["any_1", "any_1"], ["baselines.networks", "'any_1' twice"]),
        ("targets.B.constraint", {"architecture": "TF-NAS-A"}, ["baselines.targets names 'B'", "network is given"]),
        ("retrain.seeds", 0, ["retrain.seeds", "greater than or equal to 1"]),
        ("search.warmup_epochs", 16, ["warmup_epochs must be less than epochs"]),
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
    assert values["targets.A.constraint"] == raw["targets"]["A"]["constraint"] | {
        "latency_ms": None,
        "architecture": None,
    }
    assert values["search"]["lambda"] == raw["search"]["lambda"]
    assert list(values) == [key.format(target="A") for key in STAGES["search"].keys]


def test_a_change_reaches_the_stages_that_depend_on_it_only(params_file) -> None:
    before = load_params(params_file())
    for key, value, stages in [
        ("search.lambda", 0.2, {"search"}),
        ("search.latency_loss", "log", {"search"}),
        ("search.temperature.decay", 0.9, {"search"}),
        ("search.weights.momentum", 0.8, {"warm_up", "search"}),
        ("search.epochs", 20, {"warm_up", "search", "rank_baselines"}),
        ("targets.A.dropout", 0.3, {"retrain", "transfer", "train_baseline", "report"}),
        ("targets.A.constraint.relative", 0.9, {"search", "derive", "scale_baseline", "rank_baselines", "report"}),
        ("retrain.epochs", 20, {"retrain", "train_baseline"}),
        ("baselines.networks", ["random_1"], {"rank_baselines", "report"}),
        ("device.workers", 3, set()),
        ("tracking.experiment", "other", set()),
        ("build_subset.groups", 3, {"build_subset"}),
        ("report.title", "other", {"report"}),
        (
            "space",
            "mobilenet-v2",
            {"profile_latency", "warm_up", "search", "derive", "scale_baseline", "rank_baselines"},
        ),
    ]:
        after = load_params(params_file(key, value))
        changed = {stage for stage in STAGES if stage_params(before, stage, "A") != stage_params(after, stage, "A")}
        assert changed == stages, key


WORDS = "no yes ON Off y true Null ~ 010 0o17 0x1F 0b11 08 1_000 12:30 190:20:30.15 .5e1 1e3 4e-05 .inf 2024-01-01"


@pytest.fixture(scope="module")
def any_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("yaml") / "any.yaml"


@given(st.sampled_from(WORDS.split()) | st.text("0123456789eExXo._+-:nyfalstru~", min_size=1, max_size=7))
def test_a_scalar_is_what_dvc_reads_or_is_refused(any_file, text) -> None:
    any_file.write_text(f"key: {text}\n")
    try:
        ours = read_yaml(any_file)
    except UserError as error:
        assert "\n" not in str(error)
        return
    assert repr(ours) == repr(load_as_dvc(str(any_file)))


@pytest.mark.parametrize(
    ("right", "other", "words"),
    [
        ("weight_decay: 1.0e-5", "weight_decay: 1e-5", "search.weights.weight_decay: 1e-5 is '1e-5' for Snakemake"),
        (
            "flip: false",
            "flip: no",
            "search.augmentation.flip: no is false for Snakemake and 'no' for DVC; write false",
        ),
        ("\nseed: 0", "\nseed: 010", "line {line}: seed: 010 is 8 for Snakemake and 10 for DVC; write 8 or 10"),
        ("epochs: 16 ", "epochs: 16.0 ", "search.epochs: input should be a valid integer, got 16.0; write 16"),
        ("epochs: 16 ", "epochs: '16' ", "got '16'; write 16 without quotes"),
        ("epochs: 16 ", "epochs: !!str 16 ", "search.epochs: '16' has a tag (!!str); leave the tag out"),
        ("epochs: 16 ", "epochs: true ", "search.epochs"),
        ("flip: false", "flip: 'off'", "got 'off'; write false"),
        ("lambda: 0.1", "lambda: .nan", "finite"),
        ("lambda: 0.1", "lambda_: 0.1", "unknown key 'search.lambda_'"),
        ("{relative: 0.3}", "{relative: 0.3, latency_ms: null}", "exactly one"),
        ("title: TF-NAS", "title: =\n  #", "write '=' in quotes"),
        *(
            ("\n  A:\n", f"\n  {name}:\n", f"'{name}'")
            for name in ("no", "on", "15", "015", "1e3", "null", "2024-01-01")
        ),
    ],
)
def test_a_value_with_two_meanings_is_refused_with_the_fix(tmp_path, right, other, words) -> None:
    text = PARAMS.read_text()
    assert right in text
    path = tmp_path / "params.yaml"
    path.write_text(text.replace(right, other, 1))
    line = text.partition(right)[0].count("\n") + right.count("\n") + 1
    with pytest.raises(UserError) as caught:
        load_params(path)
    assert words.replace("{line}", str(line)) in str(caught.value) and "\n" not in str(caught.value), caught.value


@pytest.mark.parametrize(
    ("right", "other"),
    [
        ("lambda: 0.1", "lambda: 1.0e-1"),
        ("lambda: 0.1", "lambda: 0.15"),
        ("epochs: 16 ", "epochs: 0x10 "),
        ("weight_decay: 1.0e-5", "weight_decay: 0.00001"),
        ("flip: false", "flip: FALSE"),
        ("flip: false", "flip: true"),
        ("color_jitter: [0, 0, 0, 0]", "color_jitter: [0.0, -0.0, 0, 0]"),
        ("{relative: 0.3}", "{relative: 3.0e-1}"),
        ("{relative: 0.3}", "{latency_ms: 0.3}"),
        ("  A:\n", "  A:\n    <<: {dropout: 0.2}\n"),
        ("title: TF-NAS on digits", "title: 'TF-NAS on digits'"),
    ],
)
def test_a_value_is_another_for_snakemake_where_it_is_for_dvc(tmp_path, right, other) -> None:
    """DVC compares what it reads, by Python's ==; Snakemake compares a text."""
    path, texts, values = tmp_path / "params.yaml", [], []
    for text in (PARAMS.read_text(), PARAMS.read_text().replace(right, other, 1)):
        path.write_text(text)
        params, read = load_params(path), load_as_dvc(str(path))
        texts.append([values_as_text(params, stage, "A") for stage in STAGES])
        values.append([_values_of_stage(read, stage) for stage in STAGES])
    assert [a == b for a, b in zip(*texts, strict=True)] == [a == b for a, b in zip(*values, strict=True)]


def _values_of_stage(read: Any, stage: str) -> list[Any]:
    found = []
    for key in STAGES[stage].keys:
        value = read
        for part in key.format(target="A").split("."):
            value = value[part]
        found.append(value)
    return found


def test_merge_keys_are_read(tmp_path) -> None:
    text = PARAMS.read_text().replace("  A:\n", "  A: &first\n", 1)
    second = re.compile(r"  B:\n    constraint: \{relative: 0\.1\} .*\n    dropout: 0\.2 .*\n")
    assert second.search(text)
    path = tmp_path / "params.yaml"
    path.write_text(second.sub("  B:\n    <<: *first\n    constraint: {relative: 0.1}\n", text))
    assert load_params(path) == load_params(PARAMS)
    path.write_text("a: &a {x: 1}\nb: {<<: *a, <<: *a}\n")
    with pytest.raises(UserError, match="'<<' is written twice"):
        read_yaml(path)


@pytest.mark.parametrize(
    ("encoding", "words"), [("latin-1", "line {title}: is not UTF-8 (byte 0xfc)"), ("utf-16", "line 1: is not UTF-8")]
)
def test_another_encoding_is_named(tmp_path, encoding, words) -> None:
    path = tmp_path / "params.yaml"
    lines = PARAMS.read_text().splitlines()
    title = 1 + next(number for number, line in enumerate(lines) if "TF-NAS on" in line)
    path.write_bytes(PARAMS.read_text().replace("TF-NAS on", "für").encode(encoding))
    with pytest.raises(UserError) as caught:
        load_params(path)
    assert words.format(title=title) in str(caught.value) and "save the file as UTF-8" in str(caught.value)


@pytest.mark.parametrize("change", [lambda text: "\ufeff" + text, lambda text: text.replace("\n", "\r\n")])
def test_a_mark_at_the_beginning_and_windows_line_ends_change_nothing(tmp_path, change) -> None:
    path = tmp_path / "params.yaml"
    path.write_bytes(change(PARAMS.read_text()).encode())
    assert load_params(path) == load_params(PARAMS)


def params_with(key: str, value: str | None) -> Params:
    raw = yaml.safe_load(SHIPPED.read_text())
    *sections, last = key.split(".")
    section = raw
    for name in sections:
        section = section[name]
    section[last] = value
    if last == "architecture":
        del section["relative"]
        raw["baselines"]["targets"] = []  # a given network has no latency to bring others to
    if key == "build_subset.class_list" and value is not None:
        section["strategy"] = "class_list"
    return Params.model_validate(raw)


@pytest.mark.parametrize("named", NAMED_FILES, ids=lambda named: named.key)
def test_a_file_is_watched_in_its_folder_and_refused_elsewhere(named) -> None:
    key, end = named.key.replace("*", "B"), "json" if named.per_target else "yaml"
    for path in (f"inputs/{named.folder}/a.{end}", f"./inputs/{named.folder}/deep/a.{end}"):
        params = params_with(key, path)
        check_named_files(params, "params.yaml")
        for stage in STAGES:
            assert (Path(path) in named_files(params, stage)) == (stage in named.stages)
            assert (Path(path) in named_files(params, stage, "B")) == (stage in named.stages)
            assert (Path(path) in named_files(params, stage, "A")) == (stage in named.stages and not named.per_target)
    for path in (
        f"a.{end}",
        f"/data/a.{end}",
        f"inputs/{named.folder}/../a.{end}",
        f"inputs/other/a.{end}",
        f"../inputs/a.{end}",
    ):
        with pytest.raises(UserError) as caught:
            check_named_files(params_with(key, path), "params.yaml")
        (line,) = str(caught.value).splitlines()
        assert line.startswith(f"params.yaml: {key}: ") and f"inputs/{named.folder}/{Path(path).name}" in line


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("space", "tf-nas"),
        ("space", "mobilenet-v2"),
        ("rank_classes.weights", "fit"),
        ("report.comparison", None),
        ("retrain.initial", "scratch"),
        ("retrain.initial", "supernet"),
        ("retrain.teacher.network", "ranking"),
        ("targets.A.constraint.architecture", "TF-NAS-CPU-B"),
    ],
)
def test_shipped_names_and_none_are_no_files(key: str, value: str | None) -> None:
    params = params_with(key, value)
    check_named_files(params, "params.yaml")
    assert [named_files(params, stage) for stage in STAGES] == [[]] * len(STAGES)


def test_each_target_may_have_its_own_file() -> None:
    params = params_with("retrain.initial", "inputs/weights/{target}/weights.pt")
    check_named_files(params, "params.yaml")
    own = {name: Path(f"inputs/weights/{name}/weights.pt") for name in params.targets}
    assert named_files(params, "retrain") == list(own.values()) and len(own) > 1
    for name, path in own.items():
        assert named_files(params, "retrain", name) == [path]


def test_a_stage_that_reads_a_file_depends_on_its_key() -> None:
    """So that naming another file re-runs it as well; and its folder is in the repository, or DVC would miss it."""
    for named in NAMED_FILES:
        own_key = named.key.replace("*", "{target}")
        for stage in named.stages:
            assert any(own_key == key or own_key.startswith(f"{key}.") for key in STAGES[stage].keys)
            assert f"inputs/{named.folder}" in STAGES[stage].user_folders
        assert (SHIPPED.parent / "inputs" / named.folder / ".gitkeep").exists()


def spoil(change) -> str:
    network = zoo.load("TF-NAS-CPU-B").to_dict()
    change(network)
    return json.dumps(network)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (None, "there is no such file"),
        ("{", "is not"),
        ("{}", "kind"),
        (spoil(lambda network: network["stem"].update(in_channels=1)), "stem.in_channels is 1, images have 3"),
        (spoil(lambda network: network["blocks"][0].update(kernel=4)), "blocks.0.kernel: expected an odd number"),
        (spoil(lambda network: network.update(blocks=[])), "a network has at least one block"),
    ],
)
def test_a_given_network_that_cannot_be_built_is_one_line(tmp_path, monkeypatch, content, words) -> None:
    monkeypatch.chdir(tmp_path)
    file = "inputs/architectures/mine.json"
    Path(file).parent.mkdir(parents=True)
    if content is not None:
        Path(file).write_text(content)
    with pytest.raises(UserError) as caught:
        check_given_networks(params_with("targets.B.constraint.architecture", file))
    (line,) = str(caught.value).splitlines()
    assert line.startswith(f"params.yaml: targets.B.constraint.architecture: {file}: ") and words in line


@pytest.mark.parametrize("name", zoo.names())
@pytest.mark.parametrize("resolution", [8, 33])
def test_every_published_network_can_be_given_at_any_resolution(name: str, resolution: int) -> None:
    """From the smallest that params.yaml allows; the sizes of maps are rounded up, so none vanishes."""
    check_given_networks(params_with("targets.B.constraint.architecture", name))
    network = zoo.load(name)
    size, block = list(network.block_resolutions(resolution))[-1]
    assert halve(size, block.stride) >= 1


def test_without_a_searched_target_no_epoch_is_needed() -> None:
    raw = yaml.safe_load(SHIPPED.read_text())
    raw["baselines"]["targets"] = []
    for target in raw["targets"].values():
        target["constraint"] = {"architecture": "TF-NAS-A"}
    hint = spared_supernet(Params.model_validate(raw))
    assert hint is not None and "search.epochs: 0" in hint
    raw["search"]["epochs"] = 0
    params = Params.model_validate(raw)
    assert params.search.warmup_epochs > 0 and spared_supernet(params) is None
    assert spared_supernet(load_params(SHIPPED)) is None


def test_the_search_of_a_given_network_depends_on_its_name_alone() -> None:
    params = params_with("targets.B.constraint.architecture", "TF-NAS-A")
    assert list(stage_params(params, "search", "B")) == ["targets.B.constraint"]
    assert set(stage_params(params, "search", "A")) == {key.format(target="A") for key in STAGES["search"].keys}
    assert {"derive", "seed"} <= set(stage_params(params, "derive", "B"))
