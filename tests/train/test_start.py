"""What a training starts from, the supernet's weights or a file's; and jobs with a start and a teacher."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest
import torch
from torch import nn

from tests.helpers.jobs import make_job, run_job
from tests.helpers.params import changed
from tests.train.test_session import FakeRun
from tfnas.data.ranking import build_ranking_network
from tfnas.jobs.artifacts import digest_file
from tfnas.jobs.checkpoints import write_tensors
from tfnas.jobs.errors import UserError
from tfnas.space import build_network
from tfnas.train.start import CALIBRATION_BATCHES, calibrate, read_start
from tfnas.train.weights import save_weights

CPU = torch.device("cpu")


def fresh(architecture, num_classes: int, seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    network = build_network(architecture, num_classes)
    with torch.no_grad():
        for buffer in network.buffers():
            if buffer.is_floating_point():
                buffer.add_(torch.rand_like(buffer))
    return network


# Reading and building


def test_all_weights_are_those_of_the_file(architecture, tmp_path: Path) -> None:
    network = fresh(architecture, 3)
    save_weights(network, tmp_path / "weights.pt")
    start = read_start(tmp_path / "weights.pt", architecture, inherited=False)
    built = start.build(architecture, 3, 0.2, 0.1)
    for name, value in network.state_dict().items():
        assert torch.equal(built.state_dict()[name], value), name


def test_the_classifier_is_fresh_for_another_number_of_classes(architecture, tmp_path: Path) -> None:
    network = fresh(architecture, 3)
    save_weights(network, tmp_path / "weights.pt")
    built = read_start(tmp_path / "weights.pt", architecture, inherited=False).build(architecture, 5, 0.0, 0.0)
    state = built.state_dict()
    for name, value in network.state_dict().items():
        if name.startswith("classifier"):
            assert len(state[name]) == 5
        else:
            assert torch.equal(state[name], value), name
    assert built(torch.zeros(2, 3, 16, 16)).shape == (2, 5)


def test_weights_of_another_architecture_are_one_line(architecture, tmp_path: Path) -> None:
    block = dataclasses.replace(architecture.blocks[1], expand_channels=25)
    other = dataclasses.replace(architecture, blocks=(architecture.blocks[0], block, architecture.blocks[2]))
    path = tmp_path / "weights.pt"
    with pytest.raises(UserError, match=r"^.*weights.pt: is missing \(retrain.initial\).*scratch$"):
        read_start(path, architecture, inherited=False)
    save_weights(fresh(other, 3), path)
    with pytest.raises(
        UserError, match=r"^.*weights.pt \(retrain.initial\): blocks.1.*\[25, .*\[24, .*architecture \(tiny\)$"
    ):
        read_start(path, architecture, inherited=False)
    write_tensors({}, path)
    with pytest.raises(UserError, match=r"has no classifier.linear.weight"):
        read_start(path, architecture, inherited=False)
    assert read_start(path, architecture, inherited=True) is None


def test_calibration_gives_the_mean_statistics_of_the_first_batches(architecture) -> None:
    network = build_network(architecture, 3, drop_connect=0.9)
    generator = torch.Generator().manual_seed(0)
    batches = [(torch.randn(6, 3, 16, 16, generator=generator), torch.zeros(6)) for _ in range(CALIBRATION_BATCHES + 5)]
    given = [network.stem.conv(images) for images, _ in batches[:CALIBRATION_BATCHES]]
    calibrate(network, batches, device=CPU, precision="float32")
    norm = network.stem.norm
    torch.testing.assert_close(norm.running_mean, torch.stack([x.mean((0, 2, 3)) for x in given]).mean(0))
    torch.testing.assert_close(norm.running_var, torch.stack([x.var((0, 2, 3)) for x in given]).mean(0))
    assert norm.momentum == 0.1


def test_calibration_is_deterministic_despite_drop_connect(architecture) -> None:
    batches = [(torch.randn(6, 3, 16, 16), torch.zeros(6)) for _ in range(3)]
    states = []
    for seed in (1, 2):
        torch.manual_seed(0)
        network = build_network(architecture, 3, dropout=0.5, drop_connect=0.9)
        torch.manual_seed(seed)
        calibrate(network, batches, device=CPU, precision="float32")
        states.append(network.state_dict())
    assert all(torch.equal(value, states[1][name]) for name, value in states[0].items())


# A whole job


@pytest.fixture
def retrain(architecture, pictures, params, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    architecture.save("architecture.json")
    write_tensors({}, "initial.pt")
    torch.manual_seed(0)
    write_tensors(build_ranking_network(3).eval().state_dict(), "network.pt")

    def run(
        out: str, tracking: FakeRun | None = None, *, teacher: str = "none", initial: str = "scratch", **recipe: object
    ) -> Path:
        names = {"architecture": "architecture.json", "initial": "initial.pt", "ranking": "network.pt"}
        inputs = {name: Path(file) for name, file in names.items()}
        inputs |= {"manifest": pictures[0], "images": pictures[1]}
        taught = {"network": teacher, "model": None, "temperature": 4.0, "weight": 0.5}
        given = changed(params, retrain={"teacher": taught, "initial": initial, **recipe})
        job = make_job("retrain", tmp_path / out, given, inputs, target="A")
        job.run = tracking or FakeRun()
        run_job(job)
        job.end()
        return job.out

    return run


def metrics(out: Path) -> dict[str, float]:
    return json.loads((out / "metrics.json").read_text())


def test_without_teacher_and_start_nothing_else_is_read_or_written(retrain, tmp_path: Path) -> None:
    before = retrain("before")
    (tmp_path / "network.pt").write_text("other")
    (tmp_path / "initial.pt").write_text("other")
    after = retrain("after")
    for name in ("weights.pt", "metrics.json"):
        assert digest_file(before / name) == digest_file(after / name)
    assert not {"teacher_top1_percent", "initial_top1_percent"} & metrics(before).keys()


def test_an_empty_state_starts_from_scratch_and_says_so(retrain, caplog) -> None:
    with caplog.at_level("INFO", logger="tfnas"):
        out = retrain("out", initial="supernet")
    assert caplog.text.count("starts from scratch: its network comes from no supernet") == 1
    assert digest_file(out / "weights.pt") == digest_file(retrain("scratch") / "weights.pt")


@pytest.mark.parametrize("num_classes", [3, 2])
def test_the_weights_of_the_supernet_are_the_start(retrain, architecture, tmp_path, caplog, num_classes) -> None:
    state = fresh(architecture, num_classes).state_dict()
    write_tensors(state, tmp_path / "initial.pt")
    with caplog.at_level("INFO", logger="tfnas"):
        out = retrain("out", initial="supernet")
    assert ("the classifier is a fresh one, for 3 classes instead of 2" in caplog.text) == (num_classes == 2)
    assert f"top-1 before training {metrics(out)['initial_top1_percent']:.2f} %" in caplog.text
    assert digest_file(out / "weights.pt") != digest_file(retrain("scratch") / "weights.pt")


def test_a_file_of_weights_starts_as_it_ended(retrain, architecture, tmp_path: Path) -> None:
    trained = retrain("trained")
    folder = tmp_path / "inputs" / "weights"
    folder.mkdir(parents=True)
    (trained / "weights.pt").rename(folder / "A.pt")
    out = retrain("out", initial="inputs/weights/{target}.pt")
    assert metrics(out)["initial_top1_percent"] == metrics(trained)["top1_percent"]


@pytest.mark.parametrize("epoch", [1, 3])
def test_a_job_with_both_that_is_cut_off_goes_on_to_the_same_files(retrain, architecture, tmp_path, epoch) -> None:
    write_tensors(fresh(architecture, 2).state_dict(), tmp_path / "initial.pt")
    both = {"teacher": "ranking", "initial": "supernet"}
    undisturbed = retrain("undisturbed", **both)
    with pytest.raises(ConnectionError):
        retrain("cut", FakeRun(fails_at=epoch), **both)
    resumed = retrain("resumed", **both)
    for name in ("weights.pt", "metrics.json"):
        assert digest_file(resumed / name) == digest_file(undisturbed / name), name
    assert 0 <= metrics(resumed)["teacher_top1_percent"] <= 100


@pytest.mark.parametrize(("epochs", "learning_rate", "outgrown"), [(12, 0.05, True), (1, 1e-9, False)])
def test_a_teacher_that_its_network_outgrows_is_named(retrain, caplog, epochs, learning_rate, outgrown) -> None:
    state = torch.load("network.pt", weights_only=True)
    state["classifier.1.bias"][0] += 2.0  # one class for all images: a third of them
    write_tensors(state, "network.pt")
    with caplog.at_level("WARNING", logger="tfnas"):
        numbers = metrics(retrain("out", teacher="ranking", epochs=epochs, learning_rate=learning_rate))
    assert (numbers["top1_percent"] > numbers["teacher_top1_percent"]) == outgrown
    assert ("its teacher is less accurate" in caplog.text) == outgrown


def test_an_edited_teacher_is_not_resumed_with(retrain, architecture, tmp_path: Path, caplog) -> None:
    from tfnas.deploy.export import export_program

    path = tmp_path / "inputs" / "teachers" / "teacher.pt2"
    path.parent.mkdir(parents=True)
    trained = build_network(architecture, 3)
    trained.load_state_dict(torch.load(retrain("trained") / "weights.pt"))
    export_program(trained.eval(), 16, path)
    with pytest.raises(ConnectionError):
        retrain("cut", FakeRun(fails_at=1), teacher="inputs/teachers/teacher.pt2")
    with torch.no_grad():
        trained.classifier.linear.weight.mul_(1.5)
    export_program(trained, 16, path)
    with caplog.at_level("INFO", logger="tfnas"):
        retrain("again", teacher="inputs/teachers/teacher.pt2")
    assert "resumes after" not in caplog.text
