"""`tfnas init`: the command."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tfnas.cli import main
from tfnas.cli.init.presets import preset_names
from tfnas.data.params import DEFAULT_ROOTS
from tfnas.stages.params import load_params

WITH_IMAGES = [name for name in preset_names() if name != "digits"]


@pytest.fixture
def folder(tmp_path, monkeypatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "my images").mkdir()
    (tmp_path / "cifar").mkdir()
    return tmp_path


@pytest.mark.parametrize("name", WITH_IMAGES)
def test_init_writes_the_preset_with_the_users_folder(folder, name, capsys, load_preset_params) -> None:
    assert main(["init", name, "--data-root", "my images"]) == 0
    params = load_params("params.yaml")
    assert params.prepare_data.root == str(folder / "my images")
    preset = load_preset_params(name)
    assert params.model_copy(update={"prepare_data": preset.prepare_data}) == preset
    assert "snakemake --cores all" in capsys.readouterr().out


def test_fashion_mnist_needs_no_folder_where_the_package_is(folder) -> None:
    assert main(["init", "fashion-mnist"]) == 0
    settings = load_params("params.yaml").prepare_data
    assert (settings.root, settings.folder) == (None, DEFAULT_ROOTS["fashion-mnist"])


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
        (["init", "fashion-mnist", "--data-root", "none"], ["none: there is no such folder"]),
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
