"""With the core alone the library and its commands work; what needs an extra says so in one line."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.helpers.packages import closure, named
from tfnas.jobs.errors import UserError
from tfnas.jobs.extras import EXTRAS, explain_missing, require

CORE_ONLY = """
import json, sys
from importlib.abc import MetaPathFinder
from importlib.metadata import packages_distributions

core, commands = json.loads(sys.argv[1])
of = {module: {name.lower().replace("_", "-") for name in names} for module, names in packages_distributions().items()}
BLOCKED = {module for module, names in of.items() if not names & {*core}}

class Blocked(MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in BLOCKED:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Blocked())
for name in [name for name in sys.modules if name.partition(".")[0] in BLOCKED]:
    del sys.modules[name]  # of packages that hook into the start of Python
from tfnas.cli import main
print(json.dumps([main(command) for command in commands]))
"""


def run(folder: Path, commands: list[list[str]]) -> tuple[list[int], str, str]:
    """Exit codes and output of commands in one Python that finds no package but the core's."""
    core = sorted({*closure(named(None)), "tfnas"})
    done = subprocess.run(
        [sys.executable, "-c", CORE_ONLY, json.dumps([core, commands])], cwd=folder, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    *printed, codes = done.stdout.splitlines()
    return json.loads(codes), "\n".join(printed), done.stderr


@pytest.mark.slow
def test_the_commands_of_the_core_work_without_the_extras(tmp_path: Path) -> None:
    profile = ["profile", "--space", "tf-nas-tiny", "--out", "table.json", "--minutes", "0.05", "--on-busy", "warn"]
    quick = ["--validation-networks", "4", "--tolerance", "0.5", "--repeats", "1"]
    commands = [
        ["zoo", "list"],
        ["zoo", "show", "TF-NAS-A"],
        ["init", "digits"],
        [*profile, *quick],
    ]
    codes, printed, errors = run(tmp_path, commands)
    assert codes == [0] * len(commands), errors
    assert {"params.yaml", "table.json"} <= {path.name for path in tmp_path.iterdir()}
    assert "TF-NAS-CPU-B" in printed and "rank correlation" in printed


def test_what_needs_an_extra_names_it_in_one_line_before_any_work(tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    (tmp_path / "params.yaml").write_bytes((Path(__file__).parents[2] / "params.yaml").read_bytes())
    needs = {
        "onnx": [
            ["export", "TF-NAS-D", "--out", "export"],
            ["profile", "--space", "tf-nas-tiny", "--out", "table.json", "--backend", "onnx-runtime"],
        ],
        "report": [
            ["zoo", "show", "TF-NAS-A", "--svg", "a.svg"],
            ["latency", "--table", "none.json", "--plot", "a.svg"],
            ["compare", "--out", "comparison"],
        ],
        "pipeline": [
            ["sync"],
            ["restore"],
            ["compare-runs", "a", "b"],
            ["estimate"],
            ["suggest", "--data", "images", "--limit", "15ms"],
        ],
    }
    commands = [(extra, command) for extra, those in needs.items() for command in those]
    codes, _, errors = run(tmp_path, [command for _, command in commands])
    lines = errors.splitlines()
    assert codes == [2] * len(commands) and len(lines) == len(commands), errors
    for (extra, command), line in zip(commands, lines, strict=True):
        assert line.startswith("error: ") and line.endswith(f"pip install 'tfnas[{extra}]'"), (command, line)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["images", "params.yaml"]


@pytest.mark.parametrize("extra", EXTRAS)
def test_a_missing_module_is_told_with_its_extra(extra: str, monkeypatch: pytest.MonkeyPatch) -> None:
    last = EXTRAS[extra][-1]
    monkeypatch.setattr("tfnas.jobs.extras._is_there", lambda module: module != last)
    with pytest.raises(UserError, match=rf"tfnas x: needs {last}, .*tfnas\[{extra}\]"):
        require(extra, by="tfnas x")
    told = explain_missing(ModuleNotFoundError(f"No module named '{last}.y'", name=f"{last}.y"))
    assert told is not None and f"tfnas[{extra}]" in str(told)


def test_another_missing_module_is_a_bug() -> None:
    assert explain_missing(ModuleNotFoundError("No module named 'tfnas.oops'", name="tfnas.oops")) is None
    assert explain_missing(ModuleNotFoundError("no name")) is None


def test_a_stage_says_which_extra_it_needs(tmp_path: Path) -> None:
    script = Path(__file__).parents[2] / "workflow" / "scripts" / "prepare_data.py"
    code = (
        f"import sys\nsys.modules['sklearn'] = None\nimport runpy\nrunpy.run_path({str(script)!r}, run_name='__main__')"
    )
    params = str(Path(__file__).parents[2] / "params.yaml")
    options = ["--params", params, "--out", str(tmp_path / "out"), "--log", str(tmp_path / "log")]
    done = subprocess.run([sys.executable, "-c", code, *options], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 2, done.stderr
    assert done.stderr.splitlines()[-1].startswith("error: sklearn is not installed") and "Traceback" not in done.stderr
