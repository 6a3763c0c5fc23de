"""`mlflow models serve` answers over HTTP with the network's class, and a malformed request with a reason."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits
from torch import nn

from tfnas.tracking.params import TrackingParams
from tfnas.tracking.runs import tracked_run

TRACKING = TrackingParams(experiment="served", timeout_seconds=10, max_retries=0)
SIZE = 8


@pytest.fixture(scope="module")
def digits() -> tuple[torch.Tensor, torch.Tensor]:
    """(N, 3, 8, 8) images and their labels."""
    images, labels = load_digits(return_X_y=True)
    pixels = torch.tensor(images, dtype=torch.float32).view(-1, 1, SIZE, SIZE) / 16
    return pixels.expand(-1, 3, -1, -1).contiguous(), torch.tensor(labels)


@pytest.fixture(scope="module")
def network(digits) -> nn.Module:
    """Told apart by a linear layer, fitted at once."""
    torch.manual_seed(0)
    network = nn.Sequential(nn.Flatten(), nn.Linear(3 * SIZE * SIZE, 10))
    optimizer = torch.optim.Adam(network.parameters(), lr=0.02)
    for _ in range(60):
        optimizer.zero_grad()
        nn.functional.cross_entropy(network(digits[0]), digits[1]).backward()
        optimizer.step()
    return network.eval()


@pytest.fixture(scope="module")
def url(network, tmp_path_factory):
    """Of the registered model, served by its alias on loopback."""
    folder = tmp_path_factory.mktemp("served")
    with pytest.MonkeyPatch.context() as patch, socket.socket() as free:
        patch.chdir(folder)
        patch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{folder}/mlflow.db")
        patch.setenv("MLFLOW_DISABLE_TELEMETRY", "true")
        Path("params.yaml").write_text("seed: 0\n")
        with tracked_run("retrain", {}, TRACKING, Path("params.yaml"), target="A") as run:
            run.log_model(network, np.zeros((1, 3, SIZE, SIZE), dtype=np.float32), alias="A")
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
        free.close()
        command = [sys.executable, "-m", "mlflow", "models", "serve", "--model-uri", "models:/served@A"]
        command += ["--env-manager", "local", "--host", "127.0.0.1", "--port", str(port)]
        with (folder / "log.txt").open("w") as log:
            server = subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True)
        try:
            _wait_for(f"http://127.0.0.1:{port}/ping", server, folder / "log.txt")
            yield f"http://127.0.0.1:{port}/invocations"
        finally:
            server.terminate()
            server.wait(30)


def _wait_for(url: str, server: subprocess.Popen, log: Path) -> None:
    for _ in range(600):
        assert server.poll() is None, log.read_text()
        try:
            with urllib.request.urlopen(url, timeout=5) as answer:
                assert answer.status == 200
                return
        except OSError:
            time.sleep(0.2)
    pytest.fail(log.read_text())


def post(url: str, body: object) -> tuple[int, str]:
    text = body if isinstance(body, str) else json.dumps(body)
    request = urllib.request.Request(url, text.encode(), {"Content-Type": "application/json"})
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


@pytest.mark.slow
def test_a_digit_gets_its_class_and_nonsense_a_reason(url, network, digits) -> None:
    for index in (0, 7, 100):
        image, label = digits[0][index : index + 1], int(digits[1][index])
        status, body = post(url, {"inputs": image.tolist()})
        assert status == 200, body
        logits = np.array(json.loads(body)["predictions"])
        assert logits.shape == (1, 10) and logits.argmax() == label
        np.testing.assert_allclose(logits, network(image).detach(), atol=1e-5)
    for malformed in (
        {"inputs": digits[0][0, :, :4].tolist()},  # another shape
        {"inputs": [[["a"]]]},
        {"pictures": []},
        {"inputs": digits[0][:1, :2].tolist()},  # two channels
        "not json",
    ):
        status, body = post(url, malformed)
        assert 400 <= status < 500, (status, body)
        assert len(json.loads(body)["message"]) > 10
