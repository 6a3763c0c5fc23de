"""The presets: valid, laid out alike, true to the paper, and fitted to the user's images."""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import reduce
from pathlib import Path
from typing import Any

import pytest
import yaml
from PIL import Image
from pydantic import BaseModel, ValidationError

from tfnas.cli import main
from tfnas.cli.init.presets import PRESETS, Preset, load_preset, preset_names, render_preset
from tfnas.compute.params import DeviceParams
from tfnas.latency.backends import BackendOptions, open_backend
from tfnas.space import load_space
from tfnas.stages.params import Params, load_params

ROOT = Path(__file__).parents[2]
OF_ONE_PRESET = ("claims",)  # sections that the others do without


@pytest.mark.parametrize("name", preset_names())
def test_every_preset_is_valid(name, load_preset_params) -> None:
    params = load_preset_params(name)
    load_space(params.space)
    assert render_preset(name).startswith("# ")


def test_the_base_has_every_key() -> None:
    assert set(keys(Params)) == {key for key in base().entries if not key.startswith("targets.")}


def keys(model: type[BaseModel], prefix: str = "") -> Iterator[str]:
    """The dotted keys of params.yaml, as far as each has a line of its own."""
    for name, field in model.model_fields.items():
        if name in OF_ONE_PRESET:
            continue
        key = f"{prefix}{field.alias or name}"
        yield key
        inner = field.annotation
        if isinstance(inner, type) and issubclass(inner, BaseModel) and not base().value(key):
            yield from keys(inner, f"{key}.")


def base() -> Preset:
    return Preset.parse((PRESETS / "base.yaml").read_text())


@pytest.mark.parametrize("name", preset_names())
def test_an_overlay_holds_only_what_differs(name) -> None:
    """No line repeats the base, and the rendered values are those of the two files merged as YAML."""
    text = (PRESETS / f"{name}.yaml").read_text()
    rendered = load_preset(name).entries
    for key, entry in Preset.parse(text).entries.items():
        assert not entry.value or key.startswith("targets.") or rendered[key] != base().entries.get(key), key
    merged = merge(yaml.safe_load((PRESETS / "base.yaml").read_text()), yaml.safe_load(text))
    assert yaml.safe_load(render_preset(name)) == merged


def merge(base: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    """Sections key by key; a section written in braces is one value."""
    sections = {
        key: merge(base[key], value) for key, value in changes.items() if key in base and is_section(key, base[key])
    }
    return base | changes | sections


def is_section(key: str, value: Any) -> bool:
    braces = {"mem_mb", "format", "decay", "crop_scale", "network"}
    return isinstance(value, dict) and key != "targets" and not braces & set(value)


@pytest.mark.parametrize("path", sorted(PRESETS.glob("*.yaml")), ids=lambda path: path.stem)
def test_the_files_are_laid_out_as_they_are_rendered(path) -> None:
    text = path.read_text()
    assert text.endswith(Preset.parse(text).render())


@pytest.mark.parametrize("name", preset_names())
def test_keys_are_in_the_order_of_the_base(name) -> None:
    order = [key for key in load_preset(name).entries if not key.startswith("targets.")]
    if name in OF_ONE_PRESET:
        order = [key for key in order if key.partition(".")[0] != name]
    assert order == [key for key in base().entries if not key.startswith("targets.")]


def test_a_changed_value_without_a_comment_keeps_the_bases() -> None:
    plain = Preset.parse("# base\n\na: 1  # [B] one\n\nb:\n  c: 2   # two\n  d: {e: 3, f: 4}  # four\n\ng:\n  h: 5\n")
    changes = Preset.parse("# title\n\na: 7\n\nb:\n  c: 8  # eight\n")
    a, b = "a: 7" + 26 * " " + "# [B] one", "  c: 8" + 24 * " " + "# eight"
    d = "  d: {e: 3, f: 4}" + 13 * " " + "# four"
    assert plain.overlaid(changes).render() == f"# title\n# base\n\n{a}\n\nb:\n{b}\n{d}\n\ng:\n  h: 5\n"


def test_targets_are_replaced_as_a_whole() -> None:
    plain = Preset.parse("# base\n\ntargets:  # all\n  A:\n    dropout: 0\n  B:\n    dropout: 1\n\ng:\n  h: 5\n")
    changes = Preset.parse("# title\n\ntargets:\n  C:\n    dropout: 2\n\ng:\n  h: 6\n")
    assert list(plain.overlaid(changes).entries) == ["targets", "targets.C", "targets.C.dropout", "g", "g.h"]


@pytest.mark.parametrize("key", ["search.batch_size", "retrain.batch_size", "transfer.batch_size"])
def test_one_line_changes(key: str) -> None:
    preset = load_preset("imagefolder")
    preset.replace(key, "7")
    assert preset.value(key) == "7"
    lines = zip(render_preset("imagefolder").splitlines(), preset.render().splitlines(), strict=True)
    pairs = [pair for pair in lines if pair[0] != pair[1]]
    assert len(pairs) == 1 and pairs[0][0].partition("#")[2] == pairs[0][1].partition("#")[2]


def test_a_value_in_braces_is_replaced_alone() -> None:
    preset = load_preset("imagefolder")
    assert preset.value("search.weights.learning_rate") == "0.025"
    preset.replace("search.weights.learning_rate", "0.5")
    assert preset.value("search.weights") == "{learning_rate: 0.5, momentum: 0.9, weight_decay: 1.0e-5}"


def test_presets_are_those_that_the_readme_names() -> None:
    assert preset_names() == [
        "claims",
        "digits",
        "fashion-mnist",
        "imagefolder",
        *sorted(n for n in preset_names() if n.startswith("imagenet")),
    ]
    readme = (ROOT / "README.md").read_text()
    for name in preset_names():
        if name == "digits":
            continue
        assert f"`{name}`" in readme or f"tfnas init {name}" in readme, name


def test_params_yaml_is_the_rendered_digits_preset() -> None:
    assert (ROOT / "params.yaml").read_text() == render_preset("digits")


@pytest.mark.parametrize("name", preset_names())
def test_every_number_has_its_source(name) -> None:
    """Each line with a number says where it comes from."""
    for line in render_preset(name).splitlines():
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
def test_the_presets_of_the_paper_hold_its_numbers(name, space, milliseconds, batch_size, load_preset_params) -> None:
    params = load_preset_params(name)
    held = {key: reduce(getattr, key.split("."), params) for key in PAPER}
    assert held == PAPER
    assert (params.space, params.profile_latency.batch_size) == (space, batch_size)
    targets = list(params.targets.values())
    assert tuple(target.constraint.latency_ms for target in targets) == milliseconds
    assert tuple(target.dropout for target in targets) == DROPOUTS[milliseconds]


def test_the_preset_for_8_bits_searches_without_what_is_hard_to_quantize(load_preset_params) -> None:
    params = load_preset_params("imagenet-cpu-int8")
    space = load_space(params.space)
    assert not any(candidate.se_ratio for candidate in space.candidates)
    assert {space.stem.act, space.head.act, *(stage.act for stage in space.stages)} == {"relu6"}
    assert (params.profile_latency.precision, params.profile_latency.device) == ("int8", "cpu")
    assert params.device.precision == "float32"
    open_backend(params.profile_latency.backend, BackendOptions.of(params.profile_latency))


def test_training_and_search_never_compute_in_8_bits() -> None:
    with pytest.raises(ValidationError, match="float32"):
        DeviceParams.model_validate({"name": "cpu", "threads": 1, "workers": 0, "precision": "int8"})


@pytest.mark.parametrize("name", preset_names())
def test_a_value_marked_as_the_papers_is_the_papers(name, load_preset_params) -> None:
    """A comment that begins with [B] and names no other number holds for the value on its line."""
    params = load_preset_params(name)
    section = ""
    for line in render_preset(name).splitlines():
        if (top := re.match(r"(\w+):", line)) is not None:
            section = top[1]
        found = re.match(r"  (\w+): *[^#{]*# \[B\](?! *\d)(?!.*in proportion)", line)
        key = f"{section}.{found[1]}" if found else ""
        if key in PAPER:
            assert reduce(getattr, key.split("."), params) == PAPER[key], line


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
    assert params.search.batch_size == 16 == params.retrain.batch_size == params.rank_classes.fit.batch_size
    assert params.search.batch_size <= 0.2 * sum(counts.values())
    assert params.retrain.sampler == "balanced"


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
    write_images(tmp_path / "own", {f"c{number:02d}": 1 for number in range(12)}, (300, 240))
    for folder in (tmp_path / "own" / "train").iterdir():
        for number in range(1, 1040):
            (folder / f"{number}.png").hardlink_to(folder / "0.png")
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


PROPORTION = re.compile(r"([\d.]+) at batch (\d+) in \[B\], in proportion")


def assert_proportions_hold(text: str) -> int:
    """Wherever a comment says `RATE at batch SIZE, in proportion`, the section has that ratio; returns how many do."""
    preset, found = Preset.parse(text), 0
    for key, entry in preset.entries.items():
        if (stated := PROPORTION.search(entry.comment)) is not None:
            rate, size = float(stated[1]), int(stated[2])
            assert (rate, size) == (PAPER["retrain.learning_rate"], PAPER["retrain.batch_size"]), entry
            batch_size = int(preset.value(f"{key.partition('.')[0]}.batch_size"))
            assert float(entry.value) / batch_size == pytest.approx(rate / size), f"{key}: {entry}"
            found += 1
        assert ("in proportion" in entry.comment) == (stated is not None), entry
    return found


def test_what_is_said_to_be_in_proportion_is() -> None:
    assert {name for name in preset_names() if assert_proportions_hold(render_preset(name))} == {
        "digits",
        "imagefolder",
    }


@pytest.mark.parametrize(
    ("classes", "batch_size", "rate"), [(2, 16, 0.00625), (7, 16, 0.00625), (20, 32, 0.0125), (64, 128, 0.05)]
)
def test_twenty_images_per_class(tmp_path: Path, monkeypatch, classes: int, batch_size: int, rate: float) -> None:
    """A batch below the preset's has a lower rate, and the file says why."""
    monkeypatch.chdir(tmp_path)
    write_images(tmp_path / "own", {f"c{number:02d}": 20 for number in range(classes)}, (50, 70))
    assert main(["init", "imagefolder", "--data-root", "own"]) == 0
    params = load_params("params.yaml")
    assert (params.retrain.batch_size, params.retrain.learning_rate) == (batch_size, rate)
    assert params.search.weights.learning_rate == pytest.approx(0.025 * params.search.batch_size / 32)
    assert assert_proportions_hold(Path("params.yaml").read_text()) == 1


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
