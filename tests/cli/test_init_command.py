"""`tfnas init` and the presets that it writes."""

from __future__ import annotations

import json
import re
from functools import reduce
from pathlib import Path

import pytest

from tfnas.cli import main
from tfnas.cli.init import preset_names, read_preset
from tfnas.space import load_space
from tfnas.stages.params import load_params

ROOT = Path(__file__).parents[2]
WITH_IMAGES = [name for name in preset_names() if name != "digits"]


@pytest.fixture
def folder(tmp_path, monkeypatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "my images").mkdir()
    (tmp_path / "cifar").mkdir()
    return tmp_path


@pytest.mark.parametrize("name", preset_names())
def test_every_preset_is_valid(name) -> None:
    params = load_params(ROOT / "presets" / f"{name}.yaml")
    load_space(params.space)
    assert read_preset(name).startswith("# ")


def test_presets_are_those_that_the_readme_names() -> None:
    assert preset_names() == ["digits", "imagefolder", *sorted(n for n in preset_names() if n.startswith("imagenet"))]
    readme = (ROOT / "README.md").read_text()
    for name in WITH_IMAGES:
        assert f"`{name}`" in readme or f"tfnas init {name}" in readme, name


def test_the_default_is_the_digits_preset() -> None:
    assert (ROOT / "params.yaml").read_text() == read_preset("digits")


@pytest.mark.parametrize("name", preset_names())
def test_every_number_has_its_source(name) -> None:
    """Each line with a number says beside it where it comes from."""
    for line in read_preset(name).splitlines():
        value = line.partition(":")[2].partition("#")[0]
        if re.search(r"(^|[\s\[])\d", value) and not line.startswith(("#", "seed")):
            assert re.search(r"# .*(\[\w+\]|Sec\.|Table|Eq\.|of the classifier|the device)", line), line


GPU, CPU, MBV2 = (18.0, 15.0, 12.0, 10.0), (60.0, 40.0), (15.0, 10.0)  # ms: Sec. 4.2, Appendices G and H
DROPOUTS = {GPU: (0.2, 0.2, 0.2, 0.1), CPU: (0.2, 0.2), MBV2: (0.2, 0.1)}  # Appendices B, G and H
PAPER = {  # Appendix B, typed from its text
    "resolution": 224,
    "build_subset.strategy": "ranked_groups",
    "build_subset.groups": 100,
    "build_subset.train_fraction": 0.8,
    "rank_classes.weights": "imagenet",
    "profile_latency.threads": 1,
    "search.epochs": 90,
    "search.warmup_epochs": 10,
    "search.batch_size": 32,
    "search.weights.learning_rate": 0.025,
    "search.weights.momentum": 0.9,
    "search.weights.weight_decay": 1e-5,
    "search.architecture.learning_rate": 0.01,
    "search.architecture.betas": (0.5, 0.999),
    "search.architecture.weight_decay": 5e-4,
    "search.temperature.initial": 5.0,
    "search.temperature.decay": 0.96,
    "search.lambda_": 0.1,
    "search.latency_loss": "target",
    "search.depth_space": "sink",
    "search.second_path": "random",
    "search.elasticity_scaling": True,
    "retrain.epochs": 250,
    "retrain.batch_size": 512,
    "retrain.learning_rate": 0.2,
    "retrain.warmup_epochs": 5,
    "retrain.momentum": 0.9,
    "retrain.nesterov": False,
    "retrain.weight_decay": 1e-5,
    "retrain.label_smoothing": 0.1,
    "retrain.extras.ema_decay": 0,
    "retrain.extras.mixup": 0,
    "retrain.extras.cutmix": 0,
    "retrain.extras.rand_augment": 0,
    "transfer.resolution": 224,
}


@pytest.mark.parametrize(
    ("name", "space", "milliseconds", "batch_size"),
    [
        ("imagenet-gpu", "tf-nas", GPU, 32),
        ("imagenet-gpu-wose", "tf-nas-wose", GPU, 32),
        ("imagenet-cpu", "tf-nas", CPU, 1),
        ("imagenet-mbv2", "mobilenet-v2", MBV2, 32),
    ],
)
def test_the_presets_of_the_paper_hold_its_numbers(name, space, milliseconds, batch_size) -> None:
    params = load_params(ROOT / "presets" / f"{name}.yaml")
    held = {key: reduce(getattr, key.split("."), params) for key in PAPER}
    assert held == PAPER
    assert (params.space, params.profile_latency.batch_size) == (space, batch_size)
    targets = list(params.targets.values())
    assert tuple(target.constraint.latency_ms for target in targets) == milliseconds
    assert tuple(target.dropout for target in targets) == DROPOUTS[milliseconds]


@pytest.mark.parametrize("name", preset_names())
def test_a_value_marked_as_the_papers_is_the_papers(name) -> None:
    """A comment that begins with [B] and names no other number beside it holds for the value on its line."""
    params = load_params(ROOT / "presets" / f"{name}.yaml")
    section = ""
    for line in read_preset(name).splitlines():
        if (top := re.match(r"(\w+):", line)) is not None:
            section = top[1]
        found = re.match(r"  (\w+): *[^#{]*# \[B\](?! *\d)(?!.*in proportion)", line)
        key = f"{section}.{found[1]}" if found else ""
        if key in PAPER:
            assert reduce(getattr, key.split("."), params) == PAPER[key], line


@pytest.mark.parametrize("name", WITH_IMAGES)
def test_init_writes_the_preset_with_the_users_folder(folder, name, capsys) -> None:
    assert main(["init", name, "--data-root", "my images"]) == 0
    params = load_params("params.yaml")
    assert params.prepare_data.root == str(folder / "my images")
    preset = load_params(ROOT / "presets" / f"{name}.yaml")
    assert params.model_copy(update={"prepare_data": preset.prepare_data}) == preset
    assert "snakemake --cores all" in capsys.readouterr().out


def test_cifar_root_is_set_where_there_is_one(folder) -> None:
    assert main(["init", "imagenet-gpu", "--data-root", "my images", "--cifar-root", "cifar"]) == 0
    assert load_params("params.yaml").transfer.root == str(folder / "cifar")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["init"], ["which preset", "digits"]),
        (["init", "imagenet"], ["unknown preset 'imagenet'", "imagenet-gpu"]),
        (["init", "imagenet-gpu"], ["--data-root"]),
        (["init", "imagenet-gpu", "--data-root", "none"], ["none: there is no such folder"]),
        (["init", "digits", "--data-root", "cifar"], ["no place for --data-root"]),
    ],
)
def test_mistakes_are_one_line_and_write_nothing(folder, capsys, arguments, words) -> None:
    assert main(arguments) == 2
    line = capsys.readouterr().err
    assert line.startswith("error: init: ") and line.count("\n") == 1
    for word in words:
        assert word in line
    assert not Path("params.yaml").exists()


def test_a_users_params_are_kept_and_a_preset_is_not(folder) -> None:
    Path("params.yaml").write_text("mine")
    assert main(["init", "digits"]) == 0
    assert Path("params.yaml.bak").read_text() == "mine"
    assert main(["init", "imagefolder", "--data-root", "cifar"]) == 0
    assert main(["init", "digits"]) == 2  # params.yaml was filled in, and a backup is there already
    assert Path("params.yaml.bak").read_text() == "mine"


def test_list_describes_every_preset(capsys) -> None:
    assert main(["init", "--list"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == preset_names()
    assert json.dumps(lines).count("#") == 0
