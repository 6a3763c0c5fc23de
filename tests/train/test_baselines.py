"""Both stages of baselines on tiny pictures: at the limit, measured, and trained by retrain's recipe alone."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest

from tests.helpers.jobs import make_job, run_job
from tests.helpers.params import changed
from tests.search.conftest import synthetic_table
from tfnas.jobs.artifacts import digest_file
from tfnas.jobs.checkpoints import write_tensors
from tfnas.latency.baseline_network import BaselineNetwork
from tfnas.latency.params import KNOWN
from tfnas.space import load_space
from tfnas.space.membership import violations
from tfnas.stages import scale_baseline


@pytest.fixture
def scaled(params, tmp_path):
    """Run scale_baseline; the folder that it wrote."""
    space = load_space(params.space)
    table = synthetic_table(space, resolution=params.resolution)
    table.save(tmp_path / "table.json")

    def run(network: str, **search) -> Path:
        asked = changed(
            params,
            baselines={"targets": ["B"], "networks": [network]},
            derive={"measure_repeats": 2},
            profile_latency={"warmup_runs": 0, "batch_size": 1},
            search=search,
        )
        out = tmp_path / f"{network}{len(list(tmp_path.iterdir()))}"
        run_job(make_job("scale_baseline", out, asked, {"table": tmp_path / "table.json"}, "B", network=network))
        return out

    return run


def metrics_of(folder: Path) -> dict[str, float]:
    return json.loads((folder / "metrics.json").read_text())


def test_a_random_network_uses_the_targets_latency_up_whatever_the_search(scaled, params) -> None:
    first, other, second = scaled("random_1"), scaled("random_1", **{"lambda": 0.7}), scaled("random_2")
    network = BaselineNetwork.load(first / "network.json")
    metrics = metrics_of(first)
    assert not list(violations(network.architecture, load_space(params.space)))
    assert 0.98 * metrics["target_ms"] <= metrics["table_latency_ms"] <= metrics["target_ms"]
    assert metrics["measured_latency_ms"] > 0.0
    assert digest_file(first / "network.json") == digest_file(other / "network.json")
    assert BaselineNetwork.load(second / "network.json").architecture.blocks != network.architecture.blocks


def test_a_known_network_is_the_widest_within_the_limit(scaled, monkeypatch) -> None:
    monkeypatch.setattr(scale_baseline, "_measure", lambda job, networks: [0.2 * n.width for n in networks])
    out = scaled("mobilenet_v2")
    network, metrics = BaselineNetwork.load(out / "network.json"), metrics_of(out)
    assert network.drawn == KNOWN and metrics["measured_latency_ms"] == 0.2 * network.width
    assert 0.8 * metrics["target_ms"] < metrics["measured_latency_ms"] <= metrics["target_ms"]
    assert "table_latency_ms" not in metrics and metrics["width"] == network.width


@pytest.fixture
def train(params, pictures, tmp_path, monkeypatch, architecture):
    """Run train_baseline on a network; the folder that it wrote."""
    monkeypatch.chdir(tmp_path)
    write_tensors({}, "network.pt")

    def run(network: BaselineNetwork, **recipe) -> Path:
        out = tmp_path / f"out{len(list(tmp_path.iterdir()))}"
        network.save("network.json")
        asked = changed(params, retrain=recipe, baselines={"targets": ["B"], "networks": [network.name]})
        inputs = {"baseline": Path("network.json"), "ranking": Path("network.pt")}
        inputs |= {"manifest": pictures[0], "images": pictures[1]}
        job = make_job("train_baseline", out, asked, inputs, "B", network=network.name)
        run_job(job)
        job.end()
        return out

    return run


def test_a_baseline_is_trained_without_start_and_weights_file(train, architecture, tmp_path) -> None:
    network = BaselineNetwork("random", "random_1", architecture=architecture)
    out, again = train(network, seeds=2), train(network, seeds=2, initial="supernet")
    assert sorted(path.name for path in out.iterdir()) == ["history.csv", "metrics.json", "seeds.csv"]
    for name in ("metrics.json", "seeds.csv"):
        assert digest_file(out / name) == digest_file(again / name)
    with (out / "seeds.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["seed"] for row in rows] == ["1", "2"]
    metrics = metrics_of(out)
    assert metrics["seeds"] == 2 and metrics.items() >= network.size(16, 3).items()
    assert not list((tmp_path / "checkpoints").rglob("*.pt"))


def test_a_known_network_is_trained_too(train) -> None:
    network = BaselineNetwork(KNOWN, "mobilenet_v2", width=0.25)
    assert 0.0 <= metrics_of(train(network, epochs=1))["top1_percent"] <= 100.0
