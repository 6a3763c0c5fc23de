"""What is said at the end of a failed run: each job's own error, and where its log is."""

from __future__ import annotations

from pathlib import Path

import pytest

from tfnas.engines.sync import failures

SNAKEMAKE = """Error in rule {rule}:
    message: None
    jobid: 2
    input: tfnas/data/__init__.py, {inputs}
    output: results/x.csv
    log: {log} (check log file(s) for error details)
    shell:
        python workflow/scripts/{rule}.py
"""


@pytest.mark.parametrize(
    ("log", "said"),
    [
        (
            "t1 t2 INFO begun\nt1 t2 ERROR a.csv: line 1 is wrong; run again\n",
            "a.csv: line 1 is wrong; run again",
        ),
        ("t1 t2 ERROR first\nt1 t2 ERROR second ERROR twice\n", "second ERROR twice"),
        ("t1 t2 ERROR failed\nTraceback (most recent call last):\n  File x\nKeyError: 'A'\n", "KeyError: 'A'"),
        ("t1 t2 INFO epoch 3\n", "the job ended without a message: it was killed, or memory ran out"),
        (None, "the job ended without a message: it was killed, or memory ran out"),
    ],
)
def test_a_failed_job_is_explained_by_its_log(tmp_path: Path, log: str | None, said: str) -> None:
    path = tmp_path / "search" / "A.log"
    path.parent.mkdir()
    if log is not None:
        path.write_text(log)
    text = SNAKEMAKE.format(rule="search", log=path, inputs="y" * 9000)
    assert failures(f"before\n{text}after\n{text}") == [f"error: {said} (search; log: {path})"]


def test_several_failed_jobs_are_each_named(tmp_path: Path) -> None:
    text = "".join(
        SNAKEMAKE.format(rule=rule, log=tmp_path / f"{rule}.log", inputs="z") for rule in ("search", "derive")
    )
    assert [line.rpartition("(")[2].partition(";")[0] for line in failures(text)] == ["search", "derive"]
    assert failures("Building DAG of jobs...\nNothing to be done\n") == []
