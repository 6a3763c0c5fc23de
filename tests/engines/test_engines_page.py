"""docs/engines.md says what either engine says in each state: the page's table, cell by cell, against the engines."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.helpers.engines.calls import call, commit, planned_by_dvc, planned_by_snakemake, snakemake
from tests.helpers.projects import set_param

PAGE = Path(__file__).parents[2] / "docs" / "engines.md"
HEADER = "| state | Snakemake says | DVC says |\n|---|---|---|\n"
JOBS = {
    "prepare_data": "prepare_data",
    "rank_classes": "rank_classes",
    "build_subset": "build_subset",
    "profile_latency": "profile_latency",
    "warm_up": "warm_up",
    "search": "search@A",
    "derive": "derive@A",
    "retrain": "retrain@A",
    "transfer": "transfer@A-shifted-digits",
    "scale_baseline": "scale_baseline@A-random_1",
    "train_baseline": "train_baseline@A-random_1",
    "rank_baselines": "rank_baselines@A",
    "report": "report",
}

State = Callable[[Path], Path | None]
STATES: dict[str, State] = {}


def state(text: str) -> Callable[[State], State]:
    """What brings the state of a row about, starting from the row above."""

    def add(bring_about: State) -> State:
        STATES[text] = bring_about
        return bring_about

    return add


@state("fresh clone, nothing run yet")
def fresh_clone(folder: Path) -> None:
    pass


@state("after `snakemake --cores N`")
def after_snakemake(folder: Path) -> None:
    snakemake(folder)
    commit(folder, "search.lambda as shipped")


@state("after `retrain.teacher` in params.yaml was changed")
def after_teacher_change(folder: Path) -> None:
    teacher = {"network": "ranking", "model": None, "temperature": 2.0, "weight": 0.5}
    set_param(folder, "retrain.teacher", teacher)


@state("after that was undone, and `retrain.initial` was changed")
def after_initial_change(folder: Path) -> None:
    call(folder, "git", "checkout", "--quiet", "params.yaml")
    set_param(folder, "retrain.initial", "supernet")


@state("after that was undone, and `search.lambda` was changed")
def after_params_change(folder: Path) -> None:
    call(folder, "git", "checkout", "--quiet", "params.yaml")
    set_param(folder, "search.lambda", 0.2)


@state("after that change was undone")
def after_change_back(folder: Path) -> None:
    call(folder, "git", "checkout", "--quiet", "params.yaml")


@state("after it was changed again, and `dvc repro`")
def after_dvc_repro(folder: Path) -> None:
    set_param(folder, "search.lambda", 0.2)
    call(folder, "dvc", "repro")
    commit(folder, "search.lambda 0.2")


@state("after `retrain.keep`, `retrain.sampler` and `retrain.gradient_clip` were changed")
def after_recipe_change(folder: Path) -> None:
    for key, value in (("keep", "best"), ("sampler", "balanced"), ("gradient_clip", 1.0)):
        set_param(folder, f"retrain.{key}", value)


@state("after these were undone, and `transfer.keep` was changed")
def after_transfer_change(folder: Path) -> None:
    call(folder, "git", "checkout", "--quiet", "params.yaml")
    set_param(folder, "transfer.keep", "best")


@state("after a code change in `tfnas/train`")
def after_code_change(folder: Path) -> None:
    call(folder, "git", "checkout", "--quiet", "params.yaml")
    file = folder / "tfnas" / "train" / "loop.py"
    file.write_text(file.read_text() + "# changed\n")


@state("after that code was checked out again")
def after_code_checkout(folder: Path) -> None:
    call(folder, "git", "checkout", "--quiet", "tfnas")


@state("after `results/derive/A/architecture.json` was edited by hand")
def after_hand_edit(folder: Path) -> None:
    (folder / "results" / "derive" / "A" / "architecture.json").write_text("{}")


@state("after `tfnas restore --force`")
def after_forced_restore(folder: Path) -> None:
    call(folder, "tfnas", "restore", "--force")


@state("after `git checkout` of the commit before")
def after_git_checkout(folder: Path) -> None:
    call(folder, "git", "checkout", "--quiet", "HEAD~1")


@state("after `make restore`")
def after_restore(folder: Path) -> None:
    call(folder, "tfnas", "restore")  # what make restore calls, see the Makefile


@state("fresh clone of that commit")
def fresh_clone_of_results(folder: Path) -> Path:
    call(folder, "dvc", "remote", "add", "--local", "--default", "store", str(folder.parent / "remote"))
    call(folder, "dvc", "push", "--all-commits", "--quiet")
    clone = folder.parent / "clone"
    call(folder.parent, "git", "clone", "--quiet", str(folder), str(clone))
    return clone


@state("after `dvc pull` in the clone")
def after_pull(folder: Path) -> None:
    call(folder, "dvc", "remote", "add", "--local", "--default", "store", str(folder.parent / "remote"))
    call(folder, "dvc", "pull", "--quiet")


def table() -> dict[str, tuple[str, str]]:
    """The page's rows: what Snakemake and DVC say, by state."""
    lines = PAGE.read_text().partition(HEADER)[2].partition("\n\n")[0].splitlines()
    rows = ([cell.strip() for cell in line.strip("|").split("|")] for line in lines)
    return {state: (of_snakemake, of_dvc) for state, of_snakemake, of_dvc in rows}


def jobs_in(cell: str) -> set[str]:
    """What a cell of the page says, for one target."""
    if cell in ("nothing", "every job"):
        return set(JOBS.values()) if cell == "every job" else set()
    assert re.fullmatch(r"`\w+`(, `\w+`)*", cell), cell
    return {JOBS[name] for name in re.findall(r"`(\w+)`", cell)}


def test_every_row_of_the_page_is_brought_about() -> None:
    assert list(table()) == list(STATES)


@pytest.mark.slow
def test_both_engines_say_what_the_page_says(repository) -> None:
    folder, cells, differ = repository, table(), []
    for state, bring_about in STATES.items():
        folder = bring_about(folder) or folder
        said = planned_by_snakemake(folder), planned_by_dvc(folder)
        if said != tuple(map(jobs_in, cells[state])):
            differ.append((state, *said))
    assert differ == []
