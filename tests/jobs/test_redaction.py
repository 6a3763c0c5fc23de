"""Passwords, tokens and keys never show: in what a process prints, logs or raises."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tfnas.jobs.errors import UserError, redact

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("http://user:S3cret@host:5000/x", "http://***@host:5000/x"),
        ("http://u:S3@cret@host/a", "http://***@host/a"),
        ("postgresql+psycopg2://u:S3/cr#et@h:5432/db is down", "postgresql+psycopg2://***@h:5432/db is down"),
        ("git+https://S3cret@github.com/o/r.git", "git+https://***@github.com/o/r.git"),
        ("redis://:S3cret@h:1/0, s3://AK:S3cret@bucket/x", "redis://***@h:1/0, s3://***@bucket/x"),
        ("postgresql://h/db?user=u&password=S3cret", "postgresql://h/db?user=u&password=***"),
        ("https://h/?access_token=S3cret&x=1", "https://h/?access_token=***&x=1"),
        ("https://b/?sv=1&sig=S3cret%3D&X-Amz-Signature=S3", "https://b/?sv=1&sig=***&X-Amz-Signature=***"),
        ("https;AccountKey=S3cret==;EndpointSuffix=x", "https;AccountKey=***;EndpointSuffix=x"),
        ("{'Authorization': 'Bearer S3.cret'}", "{'Authorization': 'Bearer ***'}"),
    ],
)
def test_credentials_of_any_kind_are_hidden(text, shown) -> None:
    assert redact(text) == shown == redact(shown)
    assert str(UserError(text)) == shown


@pytest.mark.parametrize(
    "text",
    [
        "sqlite:////home/a:b@c/mlflow.db",
        "models:/tfnas-digits@A",
        "http://host:5000/x@y, http://host:5000",
        "write to me@x.org, see https://a.b/c",
        "max_retries=5; git@github.com:o/r.git",
    ],
)
def test_what_is_no_secret_stays(text) -> None:
    assert redact(text) == text


def test_values_of_the_environment_are_hidden_wherever_they_are(monkeypatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", "hunter2")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "ab/cd+ef")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "postgresql://u:p%40ss@h/db")
    monkeypatch.setenv("REQUIRE_TOKEN", "true")
    assert redact("hunter2 'ab/cd+ef' p%40ss p@ss") == "*** '***' *** ***"
    assert redact(f"true hunter21 {Path.cwd()}") == f"true hunter21 {Path.cwd()}"


@pytest.mark.parametrize(
    "uri", ["http://user:S3cret@127.0.0.1:9", "http://127.0.0.1:9/?token=S3cret", "postgresql://u:S3cret@127.0.0.1:9/d"]
)
def test_a_stage_leaves_no_password_anywhere(tmp_path, uri) -> None:
    (tmp_path / "params.yaml").write_text((ROOT / "params.yaml").read_text())
    variables = {"MLFLOW_TRACKING_URI": uri, "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1", "PYTHONPATH": str(ROOT)}
    command = [sys.executable, str(ROOT / "workflow/scripts/prepare_data.py"), "--params", "params.yaml"]
    ended = subprocess.run(
        [*command, "--out", "results/prepare_data", "--log", "logs/prepare_data.log"],
        cwd=tmp_path,
        env={**os.environ, **variables},
        capture_output=True,
        text=True,
    )
    assert ended.returncode == 2 and "127.0.0.1:9" in ended.stderr
    written = [path.read_text() for path in tmp_path.rglob("*") if path.is_file()]
    assert "127.0.0.1:9" in (tmp_path / "logs/prepare_data.log").read_text()
    assert not [text for text in (ended.stdout, ended.stderr, *written) if "S3cret" in text]


def test_other_libraries_and_tracebacks_are_redacted_as_well() -> None:
    program = (
        "import logging, sys, warnings\n"
        "from tfnas.stages.job import run_script\n"
        "def main():\n"
        "    uri = 'http://u:S3c' + 'ret@h'\n"
        "    print(uri); warnings.warn(uri); logging.getLogger('urllib3').warning('%s', uri)\n"
        "    raise RuntimeError(uri)\n"
        "run_script(main)\n"
    )
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert ended.returncode == 1 and ended.stdout == "http://***@h\n"
    assert "S3cret" not in ended.stderr and ended.stderr.count("http://***@h") == 3


def test_the_log_file_has_no_secret_in_a_traceback(tmp_path, monkeypatch) -> None:
    from tfnas.stages import job as stage

    monkeypatch.setattr(stage, "logger", logger := logging.getLogger("tfnas-redaction-test"))
    stage._log_to(tmp_path / "job.log")
    try:
        raise RuntimeError("http://u:S3cret@h")
    except RuntimeError:
        logger.exception("failed at %s", "http://u:S3cret@h")
    logger.handlers.pop().close()
    text = (tmp_path / "job.log").read_text()
    assert "S3cret" not in text and text.count("http://***@h") == 3  # the line of code, too
