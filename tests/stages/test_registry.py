"""The registry of stages, and the lists that must agree with it: rules, scripts, files, sections, the docs' tables."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest
import yaml

from tests.helpers.fake_stage import help_of, parse_stage
from tfnas.engines.dvc_yaml import dvc_yaml
from tfnas.stages.registry import CHANGES_NO_RESULT, LIBRARY, SCRIPT_FOLDER, STAGES, Stage

ROOT = Path(__file__).parents[2]
JOB = {"target": "A", "dataset": "shifted-digits", "network": "random_1"}


def test_dvc_yaml_is_what_is_written_from_the_registry() -> None:
    assert (ROOT / "dvc.yaml").read_text() == dvc_yaml(), "run `make dvc.yaml`"


def test_dvc_yaml_holds_the_stages_in_order() -> None:
    assert list(yaml.safe_load(dvc_yaml())["stages"]) == list(STAGES)


def test_one_word_names_a_stage_everywhere() -> None:
    rules = re.findall(r"^rule (\w+):", (ROOT / "Snakefile").read_text(), re.MULTILINE)
    readme = re.findall(r"^\| `(\w+)` \|", (ROOT / "README.md").read_text(), re.MULTILINE)
    architecture = re.findall(r"^\| `(\w+)` \|", (ROOT / "docs" / "architecture.md").read_text(), re.MULTILINE)
    params = yaml.safe_load((ROOT / "params.yaml").read_text())
    assert rules == ["all", *STAGES]
    assert readme == list(STAGES)
    assert [name for name in architecture if name in STAGES] == list(STAGES)
    assert {path.stem for path in (ROOT / SCRIPT_FOLDER).glob("*.py")} == set(STAGES)
    with_keys = {name for name, stage in STAGES.items() if any(key.split(".")[0] == name for key in stage.keys)}
    assert with_keys == set(params) & set(STAGES)  # warm_up's keys are the search's
    assert all(stage.name == name for name, stage in STAGES.items())


@pytest.mark.parametrize("stage", STAGES.values(), ids=list(STAGES))
def test_a_rule_asks_the_registry_for_its_own_stage_alone(stage: Stage) -> None:
    rule = (ROOT / "Snakefile").read_text().partition(f"rule {stage.name}:\n")[2].partition("\nrule ")[0]
    asked = re.findall(r"(\w+)_(?:of)\(\"(\w+)\"\)", rule)
    assert {name for _, name in asked} == {stage.name}
    assert {what for what, _ in asked} >= {"inputs", "outputs", "log", "threads", "resources", "values", "command"}


@pytest.mark.parametrize("stage", STAGES.values(), ids=list(STAGES))
def test_a_stage_has_a_file_that_checks_and_runs_and_a_script_that_calls_it(stage: Stage) -> None:
    tree = ast.parse((ROOT / LIBRARY / "stages" / f"{stage.name}.py").read_text())
    assert {"check", "run"} <= {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}
    assert f'run_stage("{stage.name}")' in (ROOT / stage.script).read_text()


@pytest.mark.parametrize("stage", STAGES.values(), ids=list(STAGES))
def test_inputs_are_outputs_of_earlier_stages(stage: Stage) -> None:
    for given in stage.inputs:
        assert STAGES[given.stage] in stage.earlier
        assert given.output in [output.name for output in STAGES[given.stage].outputs]
        assert set(STAGES[given.stage].per) <= set(stage.per)
    assert len({output.name for output in stage.written}) == len(stage.written)


@pytest.mark.parametrize("stage", STAGES.values(), ids=list(STAGES))
def test_the_script_takes_the_command_that_the_engines_run(stage: Stage) -> None:
    python, script, *arguments = stage.command(**JOB).split()
    assert (python, script) == ("python", stage.script)
    options = vars(parse_stage(stage.name, arguments))
    assert str(options["out"]) == stage.folder(**JOB) and str(options["log"]) == stage.log(**JOB)
    for option, path in stage.input_paths(**JOB).items():
        assert str(options[option]) == path


@pytest.mark.parametrize("stage", STAGES.values(), ids=list(STAGES))
def test_the_scripts_help_names_the_stages_that_the_pipeline_passes(stage: Stage) -> None:
    told = re.findall(r"--([\w-]+) [A-Z_]+ \S+ that (\w+) wrote", help_of(stage.name))
    assert told == re.findall(r"--([\w-]+) results/(\w+)/", stage.command(**JOB).partition(" --out ")[0])


@pytest.mark.parametrize("stage", STAGES.values(), ids=list(STAGES))
def test_the_docs_table_has_its_options_and_outputs(stage: Stage) -> None:
    (row,) = re.findall(rf"^\| `{stage.name}` \|(.*)\|(.*)\|$", (ROOT / "docs" / "architecture.md").read_text(), re.M)
    options = [*stage.per, *(given.option for given in stage.inputs), *["results"][: stage.reads_results]]
    assert re.findall(r"--([\w-]+)", row[0]) == [name.replace("_", "-") for name in options]
    named = [f"{output.name}/" if output.kind == "folder" else output.name for output in stage.outputs]
    assert [name for name in re.findall(r"`([\w./]+)`", row[1]) if name in named] == named


@pytest.mark.parametrize("stage", STAGES.values(), ids=list(STAGES))
def test_code_and_captions_exist(stage: Stage) -> None:
    assert [path for path in stage.code_paths if not (ROOT / path).exists()] == []
    assert not set(stage.code) & set(CHANGES_NO_RESULT)
    captions = {output.caption for output in stage.outputs if output.category is not None}
    assert [name for name in captions if not (ROOT / "workflow" / "report" / f"{name}.rst").exists()] == []
