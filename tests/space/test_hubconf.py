"""torch.hub.load on this folder builds the published networks, also where tfnas is not installed."""

from __future__ import annotations

import importlib
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest
import torch
from torch import nn

from tfnas.jobs.errors import UserError
from tfnas.space import build_network, zoo
from tfnas.train.weights import save_weights

REPOSITORY = Path(__file__).parents[2]
ENTRYPOINTS = {name.lower().replace("-", "_"): name for name in zoo.names()}


def load(entrypoint, **options):
    return torch.hub.load(str(REPOSITORY), entrypoint, source="local", **options)


def test_the_twelve_entrypoints_and_no_other(monkeypatch) -> None:
    monkeypatch.syspath_prepend(REPOSITORY)
    hubconf = importlib.import_module("hubconf")
    public = [name for name, value in vars(hubconf).items() if callable(value) and not name.startswith("_")]
    assert public == list(ENTRYPOINTS)  # what torch.hub.list lists of a repository on GitHub
    for entrypoint, name in ENTRYPOINTS.items():
        assert getattr(hubconf, entrypoint).__doc__.startswith(f"{name} (ECCV 2020)")


@pytest.mark.parametrize(("entrypoint", "name"), list(ENTRYPOINTS.items()))
def test_each_is_its_network(entrypoint, name) -> None:
    with torch.device("meta"):
        network, expected = load(entrypoint, num_classes=7, dropout=0.2), build_network(zoo.load(name), 7)
    assert network.architecture == zoo.load(name)
    assert {k: v.shape for k, v in network.state_dict().items()} == {
        k: v.shape for k, v in expected.state_dict().items()
    }
    assert [m.p for m in network.modules() if isinstance(m, nn.Dropout)] == [0.2]


def test_a_thousand_classes_by_default() -> None:
    assert load("tf_nas_d").classifier.linear.out_features == 1000


def test_our_weights(tmp_path) -> None:
    torch.manual_seed(3)
    expected, path = build_network(zoo.load("TF-NAS-D"), 5), tmp_path / "weights.pt"
    save_weights(expected, path)
    found = load("tf_nas_d", num_classes=5, weights=str(path))
    assert all(torch.equal(value, found.state_dict()[key]) for key, value in expected.state_dict().items())
    with pytest.raises(UserError, match="has shape"):
        load("tf_nas_d", num_classes=6, weights=path)


@pytest.mark.parametrize(
    ("options", "words"),
    [({"pretrained": True}, "no weights to download.*weights=FILE"), ({"num_classes": 0}, "expected 1 or more")],
)
def test_what_there_is_not_is_said(options, words) -> None:
    with pytest.raises(UserError, match=words):
        load("tf_nas_d", **options)


def test_the_authors_weights(monkeypatch, tmp_path) -> None:
    loaded = []
    monkeypatch.setattr("tfnas.authors.load_weights", lambda network, path: loaded.append((network, path)))
    network = load("tf_nas_d", num_classes=5, weights=tmp_path / "model_best.pth.tar")
    assert loaded == [(network, tmp_path / "model_best.pth.tar")]


def test_it_needs_no_installation(tmp_path) -> None:
    """Isolated and without `site`: neither PYTHONPATH nor what an installation runs at start-up brings tfnas."""
    code = f"""
import sys
sys.path.append({sysconfig.get_path("purelib")!r})
import importlib.util
assert importlib.util.find_spec("tfnas") is None
import torch
network = torch.hub.load({str(REPOSITORY)!r}, "tf_nas_a", source="local", num_classes=3).eval()
print(tuple(network(torch.zeros(1, 3, 32, 32)).shape))
"""
    command = [sys.executable, "-I", "-S", "-c", code]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.stdout.strip() == "(1, 3)", done.stderr
