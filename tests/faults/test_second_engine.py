"""A second engine in the folder of a running one: refused in words before it touches a file; the first ends well."""

from __future__ import annotations

import json
import os

import pytest

from tests.helpers.engines.calls import call
from tests.helpers.engines.processes import DVC, SNAKEMAKE, TARGET, started, steps
from tfnas.engines.dvc import keep_dvc_out, let_dvc_in
from tfnas.jobs.errors import UserError

REFUSED = {
    ("snakemake", "snakemake"): "Directory cannot be locked",
    ("snakemake", "dvc"): "snakemake",
    ("dvc", "snakemake"): "DVC is at work here",
}


@pytest.mark.parametrize(("first", "second"), REFUSED)
def test_a_second_engine_is_refused(folder, first, second, monkeypatch) -> None:
    monkeypatch.setenv("TFNAS_GO", "go")
    monkeypatch.setenv("TFNAS_STEPS", "5")
    commands = {"snakemake": SNAKEMAKE, "dvc": DVC}
    engine = started(folder, *commands[first])
    present = sorted(path for path in (folder / "results").rglob("*") if path.is_file())
    text = call(folder, *commands[second], ok=False)
    assert REFUSED[first, second] in text and "Traceback" not in text
    assert present == sorted(path for path in (folder / "results").rglob("*") if path.is_file())
    if first == "snakemake":
        assert "rank_classes" in call(folder, "snakemake", "--dry-run", TARGET)  # which may always look
    assert engine.poll() is None
    (folder / "go").touch()
    engine.communicate()
    assert engine.returncode == 0 and (folder / TARGET).exists()
    assert [number for number, _ in steps(folder)] == list(range(1, 6))
    call(folder, *commands[first])


def test_a_process_that_got_a_dead_engines_number_is_not_taken_for_it(tmp_path) -> None:
    """As after a power cut: DVC's list names a process that something else has the number of now."""
    list_ = tmp_path / ".dvc" / "tmp" / "rwlock"
    list_.parent.mkdir(parents=True)
    entry = {"pid": os.getpid(), "cmd": "dvc repro"}
    list_.write_text(json.dumps({"write": {str(tmp_path): entry}, "read": {str(tmp_path): [entry]}}))
    with pytest.raises(UserError, match="DVC is at work here"):
        keep_dvc_out(tmp_path)
    os.utime(list_, (1e9, 1e9))  # this process began later
    keep_dvc_out(tmp_path)
    assert "dvc repro" not in list_.read_text() and "snakemake" in list_.read_text()
    let_dvc_in()
    assert "snakemake" not in list_.read_text()
