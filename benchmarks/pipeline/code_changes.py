"""Which stages each module of the library makes stale: edits one module at a time and asks both engines.

In a copy of the project, with scripts that take no time, whose results are all up to date: a line of comment is added
to a module, Snakemake and DVC say what they would run, and the module is put back. It fails where the engines differ,
where a module that can change a result makes no stage stale, or one that cannot makes some.

    python benchmarks/pipeline/code_changes.py --out code_changes.txt   # about 2 s for each module
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

sys.path.insert(0, str(Path(__file__).parents[2]))  # tests.helpers

from tests.helpers.engines.calls import planned_by_dvc, planned_by_snakemake, snakemake
from tests.helpers.projects import copy_project, keep_one_target, use_stubs
from tfnas.stages.registry import CHANGES_NO_RESULT, LIBRARY, STAGES

EDIT = b"# edited\n"


class Answer(NamedTuple):
    """What both engines would run after an edit of a module, as jobs by DVC's names."""

    module: str
    snakemake: set[str]
    dvc: set[str]

    @property
    def named(self) -> list[str]:
        """The stages that name the module as their code."""
        paths = {name: stage.code_paths for name, stage in STAGES.items()}
        return [name for name in STAGES if any(Path(self.module).is_relative_to(path) for path in paths[name])]

    @property
    def stages(self) -> list[str]:
        """The stages that Snakemake would run."""
        return [name for name in STAGES if name in {job.partition("@")[0] for job in self.snakemake}]

    @property
    def mistake(self) -> str:
        """What is wrong with it; empty where nothing is."""
        neutral = any(Path(self.module).is_relative_to(f"{LIBRARY}/{path}") for path in CHANGES_NO_RESULT)
        if self.snakemake != self.dvc:
            return f"the engines differ: {', '.join(sorted(self.snakemake ^ self.dvc))}"
        if neutral and self.stages:
            return "changes no result, and yet stages would run"
        if not neutral and not self.stages:
            return "can change a result, and no stage would run"
        if missing := set(self.named) - set(self.stages):
            return f"names it and would not run: {', '.join(sorted(missing))}"
        return ""


def make_project(folder: Path) -> Path:
    """A finished project for one target."""
    use_stubs(copy_project(folder))
    keep_one_target(folder)
    snakemake(folder)
    return folder


def ask(folder: Path, modules: list[str]) -> list[Answer]:
    """Edit each module in turn in a copy of a finished project of its own."""
    with tempfile.TemporaryDirectory() as scratch:
        project = Path(shutil.copytree(folder, Path(scratch) / "project", symlinks=True))
        return list(_ask_each(project, modules))


def _ask_each(project: Path, modules: list[str]) -> Iterator[Answer]:
    for module in modules:
        path = project / module
        content, status = path.read_bytes(), path.stat()
        path.write_bytes(content + EDIT)
        answer = Answer(module, planned_by_snakemake(project), planned_by_dvc(project))
        path.write_bytes(content)
        os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
        print(".", end="", file=sys.stderr, flush=True)
        yield answer


def table(answers: list[Answer]) -> str:
    """A row per module: the stages that name it, and all that would run."""
    width = max(len(answer.module) for answer in answers)
    names = max(len(" ".join(answer.named)) for answer in answers)
    rows = [f"{'module':{width}}  {'stages that name it':{names}}  jobs that both engines would run"]
    for answer in answers:
        jobs = f"{len(answer.snakemake)}: {' '.join(answer.stages)}" if answer.snakemake else "0"
        said = f"MISTAKE: {answer.mistake}" if answer.mistake else jobs
        rows.append(f"{answer.module:{width}}  {' '.join(answer.named) or '-':{names}}  {said}")
    return "\n".join(rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--only", default="", help="modules whose path begins with this, e.g. tfnas/search")
    parser.add_argument("--copies", type=int, default=2, help="of the project, asked side by side")
    parser.add_argument("--out", type=Path, help="file for the table")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        project = make_project(Path(scratch) / "project")
        modules = sorted(path.relative_to(project).as_posix() for path in (project / LIBRARY).rglob("*.py"))
        modules = [module for module in modules if module.startswith(options.only)]
        unchanged = planned_by_snakemake(project) | planned_by_dvc(project)
        assert unchanged == set(), f"before any edit the engines would run {unchanged}"
        shares = [modules[number :: options.copies] for number in range(options.copies)]
        with ThreadPoolExecutor(options.copies) as pool:
            shared = list(pool.map(ask, [project] * len(shares), shares))
    answers = sorted(answer for share in shared for answer in share)
    mistakes = [answer for answer in answers if answer.mistake]
    text = f"{table(answers)}\n\n{len(answers)} modules, {len(mistakes)} mistakes"
    print(f"\n{text}")
    if options.out:
        options.out.write_text(f"{text}\n")
    sys.exit(1 if mistakes else 0)


if __name__ == "__main__":
    main()
