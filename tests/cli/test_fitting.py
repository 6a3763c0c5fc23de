"""`tfnas init imagefolder` looks at the images."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from tfnas.cli import main
from tfnas.cli.init.presets import render_preset
from tfnas.space import load_space
from tfnas.stages.params import load_params


def write_images(root: Path, counts: dict[str, int], size: tuple[int, int]) -> None:
    for split in ("train", "val"):
        for name, count in counts.items():
            for number in range(count if split == "train" else 1):
                path = root / split / name / f"{number}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                Image.new("RGB", size, (number, 0, 0)).save(path)


def test_seven_classes_of_unequal_size(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    counts = dict(zip("abcdefg", (40, 20, 10, 9, 5, 3, 2), strict=True))
    write_images(tmp_path / "own", counts, (50, 70))
    assert main(["init", "imagefolder", "--data-root", "own"]) == 0
    params = load_params("params.yaml")
    assert (params.build_subset.groups, params.profile_latency.num_classes, params.resolution) == (7, 7, 64)
    assert params.search.batch_size == 16 and params.retrain.batch_size == 64 == params.rank_classes.fit.batch_size
    assert params.search.batch_size <= 0.2 * sum(counts.values()) and params.retrain.batch_size <= sum(counts.values())


@pytest.mark.parametrize(
    ("side", "space", "last"), [(28, "tf-nas-small-images", 4), (64, "tf-nas-small-images", 8), (96, "tf-nas", 3)]
)
def test_the_space_follows_the_resolution(
    tmp_path: Path, monkeypatch, capsys, side: int, space: str, last: int
) -> None:
    """The space for small images up to 64 pixels, and the terminal and the file say so; no last map is 2 x 2."""
    monkeypatch.chdir(tmp_path)
    write_images(tmp_path / "own", {"a": 4, "b": 4}, (side, side))
    assert main(["init", "imagefolder", "--data-root", "own"]) == 0
    params = load_params("params.yaml")
    assert params.space == space
    assert list(load_space(space).layers(params.resolution))[-1].resolution == last
    line = next(line for line in Path("params.yaml").read_text().splitlines() if line.startswith("space:"))
    is_small = space == "tf-nas-small-images"
    assert (f"its last maps are {last} x {last}" in line) == is_small
    assert ("space: tf-nas-small-images for" in capsys.readouterr().out) == is_small


def test_many_large_images_leave_the_preset(tmp_path: Path, monkeypatch, load_preset_params) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("tfnas.compute.devices.allowed_cpus", lambda: 64)
    write_images(tmp_path / "own", {f"c{number:02d}": 30 for number in range(12)}, (300, 240))
    assert main(["init", "imagefolder", "--data-root", "own"]) == 0
    changes = ("prepare_data", "profile_latency")
    written, preset = load_params("params.yaml"), load_preset_params("imagefolder")
    assert written.model_copy(update={name: getattr(preset, name) for name in changes}) == preset
    assert written.profile_latency.num_classes == 12


@pytest.mark.parametrize(("cpus", "workers"), [(1, 0), (2, 2), (3, 2)])
def test_no_more_threads_and_workers_than_allowed_cpus(tmp_path: Path, monkeypatch, cpus: int, workers: int) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("tfnas.compute.devices.allowed_cpus", lambda: cpus)
    write_images(tmp_path / "own", {"a": 4, "b": 4}, (40, 40))
    assert main(["init", "imagefolder", "--data-root", "own"]) == 0
    device = load_params("params.yaml").device
    assert (device.threads, device.workers) == (min(cpus, 4), workers)


def test_a_folder_that_is_not_ready_leaves_the_preset(tmp_path: Path, monkeypatch, capsys) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    assert main(["init", "imagefolder", "--data-root", "empty"]) == 0
    assert "holds no class" in capsys.readouterr().out


@pytest.mark.parametrize("counts", [(40, 20, 10, 9, 5, 3, 2), (2, 2), (300, 300)])
def test_rates_follow_the_batches_and_comments_stay_true(
    tmp_path: Path, monkeypatch, counts, load_preset_params
) -> None:
    monkeypatch.chdir(tmp_path)
    write_images(tmp_path / "own", {f"c{number}": count for number, count in enumerate(counts)}, (50, 70))
    assert main(["init", "imagefolder", "--data-root", "own"]) == 0
    written, preset = load_params("params.yaml"), load_preset_params("imagefolder")
    for now, before, rate in (
        (written.retrain, preset.retrain, lambda recipe: recipe.learning_rate),
        (written.search, preset.search, lambda search: search.weights.learning_rate),
    ):
        assert rate(now) / rate(before) == pytest.approx(now.batch_size / before.batch_size)
    assert written.search.architecture == preset.search.architecture
    old = render_preset("imagefolder").splitlines()
    for before, now in zip(old, Path("params.yaml").read_text().splitlines(), strict=True):
        if before.partition("#")[0].split() != now.partition("#")[0].split() and "root:" not in now:
            assert now.partition("#")[2].strip().startswith("[ours]") or "the device" in now, now
