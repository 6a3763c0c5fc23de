"""dvc.yaml, written from the registry of stages: `python -m tfnas.engines.dvc_yaml` in the project's folder.

A test says when the file is out of date.
"""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from tfnas.jobs.artifacts import write_text
from tfnas.stages.registry import STAGES, Output, Stage

WIDTH = 118
HEADER = """\
# The pipeline in the order of its data; the Snakefile holds the same jobs.
# Written from tfnas/stages/registry.py by `make dvc.yaml`: edit the registry, not this file.
# `foreach` and `matrix` read targets, data sets and baselines' networks from params.yaml.
stages:
"""


def dvc_yaml() -> str:
    """The text of dvc.yaml."""
    stages = "\n\n".join(_stage(stage) for stage in STAGES.values())
    return f"{HEADER}{stages}\n\nplots:\n" + "\n".join(_folder_plots()) + "\n"


def _folder_plots() -> Iterator[str]:
    """Plots of the files in a folder. DVC allows several columns as y here, and one in the plots of a stage."""
    for stage in STAGES.values():
        for output in stage.written:
            if output.kind == "folder" and output.plot:
                yield f"  - {stage.folder()}/{output.name}:"
                yield from (f"      {key}: {_value(value)}" for key, value in output.plot.items())


def _stage(stage: Stage) -> str:
    body, lines = "\n".join(_body(stage, _places(stage))), [f"{stage.name}:"]
    if stage.per and stage.listed_in is None:
        lines += ["  foreach: ${targets}", "  do:", textwrap.indent(body, "    ")]
    elif stage.per:
        lines += ["  matrix:", *(f"    {name}: ${{{stage.listed_in}.{name}s}}" for name in stage.per)]
        lines += [textwrap.indent(body, "  ")]
    else:
        lines += [textwrap.indent(body, "  ")]
    return textwrap.indent("\n".join(lines), "  ")


def _places(stage: Stage) -> dict[str, str]:
    """How DVC names a job's target, and its data set or network."""
    return {name: "${key}" if stage.listed_in is None else f"${{item.{name}}}" for name in stage.per}


def _body(stage: Stage, job: Mapping[str, str]) -> list[str]:
    folder = stage.folder(**job)
    by_kind: dict[str, list[Output]] = {}
    for output in stage.written:
        by_kind.setdefault("outs" if output.kind in ("file", "folder") else output.kind, []).append(output)
    deps = [*stage.code_paths, *stage.user_folders, *stage.read_paths(**job)]
    lines = [*_command(stage.command(**job)), "deps:", *_items(deps)]
    lines += ["params:", *_items(key.format(**job) for key in stage.keys)]
    for heading, kind in (("outs", "outs"), ("metrics", "metrics")):
        if kind in by_kind:
            lines += [f"{heading}:", *_items(f"{folder}/{output.name}" for output in by_kind[kind])]
    if "plot" in by_kind:
        lines.append("plots:")
        for output in by_kind["plot"]:
            lines.append(f"  - {folder}/{output.name}:")
            lines += [f"      {key}: {_quoted(str(text).format(**job))}" for key, text in output.plot.items()]
    return lines


def _command(command: str) -> list[str]:
    """A folded scalar; DVC joins its lines by spaces."""
    lines = textwrap.wrap(command, WIDTH - 16, break_long_words=False, break_on_hyphens=False)
    return ["cmd: >-", *(f"  {line}" for line in lines)]


def _items(values: Iterable[str]) -> list[str]:
    return [f"  - {value}" for value in values]


def _value(value: str | tuple[str, ...]) -> str:
    return _quoted(value) if isinstance(value, str) else f"[{', '.join(map(_quoted, value))}]"


def _quoted(text: str) -> str:
    return f'"{text}"' if set(text) & set(",:%#") else text


if __name__ == "__main__":
    write_text(Path("dvc.yaml"), dvc_yaml())
