"""Two engines on one folder: whatever the order of edits and runs, results are those of a clean rebuild."""

from __future__ import annotations

import os
import random
import shutil
from pathlib import Path

import pytest

from tests.helpers.engines.calls import BIN, call, planned_by_dvc, planned_by_snakemake, snakemake
from tests.helpers.engines.resolved_jobs import dvc_jobs
from tests.helpers.engines.stub_stage import parse, run
from tests.helpers.projects import ROOT, keep_one_target, set_param, use_stubs
from tfnas.engines.dvc import DvcProject
from tfnas.engines.sync import sync
from tfnas.space import zoo

pytestmark = pytest.mark.slow

NETWORKS = ("random_1", "random_2", "random_3")  # of the digits' baselines, for target B
NOTHING_TO_DO = "Nothing to be done"


@pytest.fixture
def folder(project) -> Path:
    """The project with scripts that take no time."""
    use_stubs(project)
    return project


def contents(folder: Path) -> dict[str, str]:
    """What every output holds, provenance left out."""
    files = (path for path in sorted((folder / "results").rglob("*")) if path.is_file())
    named = {path.relative_to(folder).as_posix(): path.read_text() for path in files}
    return {
        name: text for name, text in named.items() if not name.endswith(("provenance.json", ".snakemake_timestamp"))
    }


def rebuilt(folder: Path, scratch: Path, monkeypatch) -> dict[str, str]:
    """The outputs of a clean run of every stage in order, by neither engine."""
    scratch.mkdir()
    shutil.copy(folder / "params.yaml", scratch)
    jobs = dvc_jobs(folder)
    monkeypatch.chdir(scratch)
    for name, job in jobs.items():
        run(name.partition("@")[0], parse(job.command.split()[2:]), folder)
    monkeypatch.chdir(folder)
    return contents(scratch)


def runs(folder: Path) -> set[str]:
    """Results folders written since the last call."""
    found = set()
    for path in (folder / "logs").rglob("runs"):
        found |= {line.removeprefix("results/") for line in path.read_text().splitlines()}
        path.unlink()
    return found


def folder_of(job: str) -> str:
    """Below results/, of a job by DVC's name."""
    return job.replace("@", "/", 1).replace("-", "/", 1)


def test_each_engine_accepts_the_others_work(ran, tmp_path, monkeypatch) -> None:
    assert contents(ran) == rebuilt(ran, tmp_path / "clean", monkeypatch)
    runs(ran)
    assert NOTHING_TO_DO in snakemake(ran, "--dry-run")
    assert "up to date" in call(ran, "dvc", "status")
    call(ran, "dvc", "repro")
    assert runs(ran) == set()

    set_param(ran, "search.lambda", 0.2)
    call(ran, "dvc", "repro")
    expected = {f"{stage}/{target}" for stage in ("search", "derive", "retrain") for target in "AB"}
    expected |= {"transfer/A/shifted-digits", "transfer/B/shifted-digits", "rank_baselines/B", "report"}
    assert runs(ran) == expected
    assert NOTHING_TO_DO in snakemake(ran)
    assert runs(ran) == set()

    set_param(ran, "search.lambda", 0.3)
    snakemake(ran)
    assert runs(ran) == expected


def test_an_edit_and_its_undoing_between_the_engines(ran, tmp_path, monkeypatch) -> None:
    sync(ran)
    set_param(ran, "build_subset.groups", 4)
    call(ran, "dvc", "repro")
    set_param(ran, "build_subset.groups", 5)
    synced = sync(ran)
    baselines = {f"{stage}_baseline@B-{network}" for stage in ("scale", "train") for network in NETWORKS}
    assert set(synced.done) == {"prepare_data", "rank_classes", "profile_latency"} | baselines
    snakemake(ran)
    assert contents(ran) == rebuilt(ran, tmp_path / "clean", monkeypatch)


def test_a_partial_run_commits_only_what_is_fresh(ran) -> None:
    sync(ran)
    set_param(ran, "retrain.epochs", 20)
    snakemake(ran, "results/retrain/A/metrics.json")
    synced = sync(ran)
    baselines = {f"train_baseline@B-{network}" for network in NETWORKS}
    left = {"retrain@B", "transfer@A-shifted-digits", "transfer@B-shifted-digits", "report"} | baselines
    assert set(synced.stale) == left
    runs(ran)
    call(ran, "dvc", "repro")
    assert runs(ran) == {folder_of(name) for name in left}


def test_a_sync_killed_between_two_stages_goes_on(folder, monkeypatch) -> None:
    snakemake(folder, "--no-hooks")
    commit, committed = DvcProject.commit, []

    def killed_at_the_third(project: DvcProject, name: str) -> None:
        if len(committed) == 2:
            raise KeyboardInterrupt
        commit(project, name)
        committed.append(name)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(DvcProject, "commit", killed_at_the_third)
        sync(folder)
    synced = sync(folder)
    assert (synced.told, synced.stale) == ("DVC", ())
    assert "up to date" in call(folder, "dvc", "status")


@pytest.mark.parametrize("seed", [0])
def test_random_walk_ends_like_a_clean_rebuild(folder, tmp_path, monkeypatch, seed) -> None:
    """Edits of parameters and of results, old results put back, runs of either engine (whole or in part), at random.

    Of one target: the other's jobs depend on nothing of it, and would take a third of the time.
    """
    keep_one_target(folder)
    draw = random.Random(seed)
    edits = [
        ("seed", (0, 1)),
        ("build_subset.groups", (4, 5)),
        ("search.lambda", (0.1, 0.2)),
        ("retrain.epochs", (10, 15)),
        ("targets.A.dropout", (0.1, 0.2)),
        ("profile_latency.repeats", (5, 6)),
    ]
    for step in range(10):
        key, choices = draw.choice(edits)
        set_param(folder, key, draw.choice(choices))
        spoil = draw.choice(("nothing", "nothing", "edit", "checkout"))
        results = sorted((folder / "results").rglob("*.json"))
        if spoil == "edit" and results:
            draw.choice(results).write_text("{}")
        elif spoil == "checkout" and (folder / "dvc.lock").exists():
            call(folder, "dvc", "checkout", "--force")
        engine, partial = draw.choice(("snakemake", "dvc")), draw.random() < 0.3
        if engine == "dvc":
            call(folder, "dvc", "repro", *(["retrain@A"] if partial else []))
        else:
            snakemake(folder, *(["results/retrain/A/metrics.json"] if partial else []))
        if not partial:
            assert contents(folder) == rebuilt(folder, tmp_path / f"clean{step}", monkeypatch), (seed, step, engine)


def test_config_on_the_command_line_is_refused(folder) -> None:
    text = snakemake(folder, "--dry-run", "--config", "seed=7", ok=False)
    assert "--config or --configfile changes 'seed'" in text and "--directory" in text


def test_a_mistake_in_params_is_one_line_before_any_work(folder) -> None:
    set_param(folder, "search.lamda", 0.1)
    text = snakemake(folder, ok=False)
    assert "params.yaml: unknown key 'search.lamda'; did you mean 'lambda'?" in text
    assert "Traceback" not in text
    assert contents(folder) == {}


def test_another_folder_has_parameters_of_its_own(folder, tmp_path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    shutil.copy(folder / "params.yaml", other)
    set_param(other, "search.lambda", 0.5)
    snakemake(folder, "--directory", str(other))
    assert (other / "results" / "report" / "report.html").exists()
    assert contents(folder) == {}


def test_what_was_only_touched_is_not_committed_and_runs_again(ran) -> None:
    """`--touch` by hand after parameters and code were changed, with and without what Snakemake calls at its end."""
    runs(ran)
    set_param(ran, "search.lambda", 0.2)
    (ran / "tfnas" / "train" / "loop.py").open("a").write("# changed\n")
    text = snakemake(ran, "--touch")
    assert "search@A was called up to date and is not: search.lambda is 0.2 in params.yaml" in text
    assert "retrain@B was called up to date and is not: tfnas/train has changed" in text
    assert "search@A" in call(ran, "dvc", "status")
    expected = {f"{stage}/{target}" for stage in ("search", "derive", "retrain") for target in "AB"}
    expected |= {"transfer/A/shifted-digits", "transfer/B/shifted-digits", "rank_baselines/B", "report"}
    expected |= {f"train_baseline/B/{network}" for network in NETWORKS}
    assert {folder_of(name) for name in planned_by_snakemake(ran)} == expected
    snakemake(ran, "--touch", "--no-hooks")
    snakemake(ran)
    assert runs(ran) == expected
    assert "up to date" in call(ran, "dvc", "status")
    assert NOTHING_TO_DO in snakemake(ran, "--dry-run")


def test_what_dvc_was_told_by_hand_runs_again(ran) -> None:
    runs(ran)
    set_param(ran, "derive.measure_repeats", 7)
    call(ran, "dvc", "commit", "--force", "--quiet")
    assert "derive@A was called up to date and is not" in snakemake(ran)
    assert {"derive/A", "derive/B", "report"} <= runs(ran)
    assert "up to date" in call(ran, "dvc", "status")


def test_an_edited_file_of_the_user_runs_again_in_both_engines(folder) -> None:
    """Also where its time is older than every result, as after `cp -p`."""
    mine = folder / "inputs" / "spaces" / "mine.yaml"
    shutil.copy(folder / "tfnas" / "space" / "spaces" / "tf-nas.yaml", mine)
    set_param(folder, "space", "inputs/spaces/mine.yaml")
    snakemake(folder)
    runs(folder)
    mine.write_text(mine.read_text().replace("expand_ratio: 3", "expand_ratio: 3.0", 1) + "# edited\n")
    os.utime(mine, (1e9, 1e9))
    searched = {"profile_latency", "warm_up", "search@A", "search@B", "derive@A", "derive@B"}
    assert searched <= planned_by_dvc(folder)
    assert searched <= planned_by_snakemake(folder)
    snakemake(folder)
    assert {"profile_latency", "warm_up", "search/A", "derive/B", "report"} <= runs(folder)
    assert "up to date" in call(folder, "dvc", "status")


def test_a_given_network_re_runs_what_follows_from_it_and_nothing_of_others(folder) -> None:
    """DVC, whose dvc.yaml is coarser, re-runs one short job more and stops there, since its outcome is the same."""
    mine = folder / "inputs" / "architectures" / "mine.json"
    zoo.load("TF-NAS-A").save(mine)
    set_param(folder, "baselines.targets", [])
    set_param(folder, "targets.B.constraint", {"architecture": "inputs/architectures/mine.json"})
    followers = {"derive/B", "retrain/B", "transfer/B/shifted-digits", "report"}
    snakemake(folder)
    runs(folder)

    zoo.load("TF-NAS-B").save(mine)
    (mine.parent / "unused.json").write_text("of no target")
    call(folder, "dvc", "repro")
    assert runs(folder) == {*followers, "derive/A"}
    assert NOTHING_TO_DO in snakemake(folder)

    zoo.load("TF-NAS-C").save(mine)
    snakemake(folder)
    assert runs(folder) == followers
    assert "up to date" in call(folder, "dvc", "status")

    set_param(folder, "targets.B.constraint", {"architecture": "TF-NAS-CPU-B"})
    snakemake(folder)
    assert runs(folder) == {*followers, "search/B"}
    assert "up to date" in call(folder, "dvc", "status")

    of_a = {"search/A", "derive/A", "retrain/A", "transfer/A/shifted-digits", "report"}
    set_param(folder, "search.lambda", 0.2)
    snakemake(folder)
    assert runs(folder) == of_a
    assert "up to date" in call(folder, "dvc", "status")
    set_param(folder, "targets.A.constraint.relative", 0.2)
    set_param(folder, "search.lambda", 0.3)
    call(folder, "dvc", "repro", "derive@A")
    assert runs(folder) == {"search/A", "derive/A"}
    snakemake(folder)  # DVC calls search@B changed; its own record knows that it reads nothing of it
    assert runs(folder) == of_a - {"search/A", "derive/A"}


def test_a_given_network_trained_before_any_warm_up_is_committed_once_its_inputs_are_there(folder) -> None:
    """In dvc.yaml its search depends on the warm-up's supernet, without which DVC cannot commit it."""
    keep_one_target(folder)
    set_param(folder, "baselines.targets", [])
    set_param(folder, "targets.A.constraint", {"architecture": "TF-NAS-CPU-B"})
    said = snakemake(folder, "results/retrain/A/metrics.json")
    assert "warm_up" not in runs(folder) and "does not know of these results" not in said
    snakemake(folder)
    assert "retrain/A" not in runs(folder)
    assert "up to date" in call(folder, "dvc", "status")


def test_the_last_words_of_a_failed_run_are_the_jobs_own_error(folder) -> None:
    shutil.copy(ROOT / "workflow" / "scripts" / "rank_classes.py", folder / "workflow" / "scripts")
    command = (str(BIN / "snakemake"), "--cores", "2")  # a process of its own: a forked one has no last words
    *_, last = call(folder, *command, ok=False).splitlines()
    assert last.startswith("error: results/prepare_data/manifest.csv: line 1 is not")
    assert last.endswith("(rank_classes; log: logs/rank_classes.log)")
