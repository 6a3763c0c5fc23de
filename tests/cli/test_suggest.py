"""`tfnas suggest`: mistakes in one line before any measuring, and what it writes and says."""

from __future__ import annotations

import re
import shlex
from collections import Counter
from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image

from tfnas.cli import build_parser, main
from tfnas.cli.estimate.measured import Measured, count_images
from tfnas.cli.estimate.networks import Reach
from tfnas.cli.estimate.schedule import StepTimes
from tfnas.cli.init.presets import TrainingImages
from tfnas.cli.suggest import advice
from tfnas.cli.suggest.advice import Known
from tfnas.data.sources.image_folder import scan_image_folder
from tfnas.stages.params import Params, check_named_files, load_params

MAPPINGS = ("training_step", "training_batch", "latency")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two unequal classes with a transparent picture and a duplicate; one class alone; nothing."""
    monkeypatch.chdir(tmp_path)
    random = np.random.default_rng(0)
    for name, count in (("own/a", 10), ("own/b", 40), ("single/a", 5)):
        Path(name).mkdir(parents=True)
        for number in range(count):
            picture = Image.fromarray(random.integers(0, 255, (96, 99, 4 if number == 9 else 3), dtype=np.uint8))
            picture.save(Path(name, f"{number}.png"))
    Path("own/b/again.png").write_bytes(Path("own/a/0.png").read_bytes())
    Path("empty").mkdir()
    return tmp_path


@pytest.fixture
def measured(monkeypatch: pytest.MonkeyPatch) -> None:
    """Networks of 5 to 50 ms, and steps of 0.1 s."""
    reach = Reach((0.0, 1.0), (5.0, 50.0))
    times = StepTimes(**{field.name: {"own": 0.1} if field.name in MAPPINGS else 0.1 for field in fields(StepTimes)})
    counts = count_images(scan_image_folder("own").records, 3 * 96 * 96)
    monkeypatch.setattr(advice, "measure_reach", lambda *_: reach)
    monkeypatch.setattr(advice, "measure", lambda *_: Measured(counts, reach, times))
    monkeypatch.setattr(advice, "known_networks", lambda _: [Known("TF-NAS-CPU-B", 9.0, 74.4, None, True)])


def refused(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    assert main(["suggest", *arguments]) == 2
    captured = capsys.readouterr()
    assert captured.err.startswith("error: suggest: ") and captured.err.count("\n") == 1, captured.err
    assert not Path("params.yaml").exists()
    return captured.err


@pytest.mark.parametrize("limit", ["15", "0ms", "15 s", "-3ms", "ms", "1e3ms", "nanms"])
def test_a_limit_that_is_none_says_how_to_write_one(folder, capsys, limit) -> None:
    line = refused(capsys, "--data", "own", f"--limit={limit}")
    assert repr(limit) in line and "such as 15ms" in line


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--data", "none", "--limit", "15ms"), ("--data none", "no such folder")),
        (("--data", "single", "--limit", "15ms"), ("--data single", "1 classes", "2 or more")),
        (("--data", "empty", "--limit", "15ms"), ("--data empty", "holds no class")),
        (("--data", "own", "--relative", "1.5"), ("--relative 1.5", "0 (the fastest network) to 1")),
        (("--data", "own", "--limit", "15ms", "--hours", "0"), ("--hours 0", "more than 0")),
        (("--data", "own", "--limit", "15ms", "--device", "gpu"), ("--device", "'gpu'", "cpu, cuda or cuda:N")),
    ],
)
def test_mistakes_are_one_line_before_any_measuring(folder, capsys, arguments, words) -> None:
    line = refused(capsys, *arguments)
    assert all(word in line for word in words), line


@pytest.mark.parametrize("limit", ["4.9ms", "51ms"])
def test_a_limit_out_of_reach_names_the_reach(folder, measured, capsys, limit) -> None:
    line = refused(capsys, "--data", "own", "--limit", limit)
    assert f"--limit {limit}" in line and "about 5 to 50 ms" in line and "96 pixels" in line


def test_it_writes_params_for_images_device_and_limit(folder, measured, capsys) -> None:
    assert main(["suggest", "--data", "own", "--limit", "15ms"]) == 0
    params, said = load_params("params.yaml"), capsys.readouterr().out
    assert list(params.targets) == ["own"] and params.targets["own"].constraint.latency_ms == 15.0
    assert params.prepare_data.root == str(folder / "own") and params.retrain.sampler == "balanced"
    assert (params.build_subset.groups, params.resolution) == (2, 96)
    for words in (
        "in 2 classes, from 8 (a) to 33 (b) each",
        "transparency, composited on white",
        "about 5 to 50 ms",
        "TF-NAS-CPU-B (about 9 ms here, 74.4 % on ImageNet)",
        "constraint: {architecture: TF-NAS-CPU-B}",
        "from the supernet's weights",
        "few for a network trained from scratch",
        "params.yaml: written",
    ):
        assert words in said, words
    assert "two classes: remove one" in said
    assert all(f"\n{stage} " in said for stage in ("warm_up", "search", "retrain", "all"))


def test_the_printed_keys_are_valid_and_the_printed_command_too(folder, measured, capsys) -> None:
    """Those of the alternative go into the written params.yaml together."""
    assert main(["suggest", "--data", "own", "--limit", "15ms"]) == 0
    said = capsys.readouterr().out
    by_line = [yaml.safe_load(line) for line in re.findall(r"^    ([a-z_.]+: .*)$", said, re.MULTILINE)]
    assert [key for line in by_line for key in line] == ["targets.own.constraint", "search.epochs", "retrain.initial"]
    params = changed_params(*by_line)
    check_named_files(params, "params.yaml")
    assert params.targets["own"].constraint.architecture == "TF-NAS-CPU-B" and params.search.epochs == 0
    command = re.search(r"^  tfnas (import weights .*)$", said, re.MULTILINE)
    options = build_parser().parse_args(shlex.split(command[1]))
    assert str(options.out) == params.retrain.initial and options.architecture == "TF-NAS-CPU-B"


def changed_params(*changes: dict[str, object]) -> Params:
    """The written params.yaml with dotted keys changed."""
    plain = yaml.safe_load(Path("params.yaml").read_text())
    for key, value in ((key, value) for change in changes for key, value in change.items()):
        *parents, leaf = key.split(".")
        section = plain
        for parent in parents:
            section = section[parent]
        assert leaf in section, key
        section[leaf] = value
    Path("changed.yaml").write_text(yaml.safe_dump(plain))
    return load_params("changed.yaml")


@pytest.mark.parametrize(("images", "is_offered"), [(20, True), (299, True), (300, False), (5000, False)])
def test_a_teacher_is_an_option_for_few_images_without_a_promise(images, is_offered) -> None:
    said = "\n".join(advice.describe_options(TrainingImages([], Counter(a=images, b=images), 10)))
    assert bool(said) == is_offered
    assert not re.search(r"\d", said) and ("may help" in said) == is_offered


def test_hours_shorten_the_run_and_too_few_are_refused(folder, measured, capsys) -> None:
    line = refused(capsys, "--data", "own", "--limit", "15ms", "--hours", "0.01")
    assert "--hours 0.01" in line and "allow as much" in line
    assert main(["suggest", "--data", "own", "--limit", "15ms"]) == 0
    whole = load_params("params.yaml")
    assert main(["suggest", "--data", "own", "--limit", "15ms", "--hours", "0.3", "--out", "short.yaml"]) == 0
    short = load_params("short.yaml")
    assert short.search.epochs < whole.search.epochs and short.retrain.epochs < whole.retrain.epochs
    assert short.search.batch_size == whole.search.batch_size


def test_weights_at_hand_are_preferred_and_the_keys_are_those_of_its_network(tmp_path, monkeypatch) -> None:
    there = Path("inputs/weights/mine.pth.tar")
    known = [
        Known("TF-NAS-A", 20.0, 76.9, there, True),
        Known("TF-NAS-CPU-B", 9.0, 74.4, there, True),
        Known("TF-NAS-D", 8.0, 75.0, None, True),
        Known("mobilenet_v2", 7.0, 71.9, there, False),
    ]
    assert "TF-NAS-CPU-B" in advice.describe_alternative(known, 10.0)
    assert "import weights inputs/weights/mine.pth.tar --arch" in advice.describe_alternative(known, 10.0)
    assert "retrain.teacher" in advice.describe_alternative(known[3:], 10.0)
    assert "none of the published" in advice.describe_alternative(known, 5.0)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(advice, "WEIGHT_FOLDERS", (Path("none"), Path("inputs")))
    Path("inputs").mkdir()
    Path("inputs/mobilenet_v2-b0353104.pth").touch()
    found = advice._file("mobilenet_v2")
    assert found == Path("inputs/mobilenet_v2-b0353104.pth") and advice._file("mobilenet_v3") is None
