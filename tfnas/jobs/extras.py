"""What `pip install tfnas` leaves out, and one line, with the command that installs it, where it is needed.

`pyproject.toml` lists the packages of each extra, here are the modules that they bring; a test compares both.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from importlib.util import find_spec

from tfnas.jobs.errors import UserError

EXTRAS: Mapping[str, tuple[str, ...]] = {  # modules, as they are imported
    "pipeline": ("snakemake", "dvc", "mlflow", "pyarrow", "sklearn"),
    "report": ("matplotlib", "jinja2"),
    "onnx": ("onnx", "onnxscript", "onnxruntime"),
    "openvino": ("onnx", "openvino"),
    "openvino-int8": ("onnx", "openvino", "nncf"),
    "executorch": ("executorch",),
    "ncnn": ("onnx", "ncnn", "pnnx"),
}


def require(extra: str, *, by: str) -> None:
    """Check that an extra is installed, before any work. Nothing is imported.

    Args:
        extra: a key of `EXTRAS`.
        by: what needs it, as the user has named it: `tfnas export`, `profile_latency.backend: onnx-runtime`.

    Raises:
        UserError: one of its modules is missing; the text names the extra and the command that installs it.
    """
    missing = next((module for module in EXTRAS[extra] if not _is_there(module)), None)
    if missing is not None:
        raise UserError(f"{by}: needs {missing}, which is not installed; {_way_to_install(extra)}")


def explain_missing(error: ModuleNotFoundError) -> UserError | None:
    """One line for a module of an extra that an import did not find; None for anything else, which is a bug."""
    module = (error.name or "").partition(".")[0]
    extra = next((name for name, modules in EXTRAS.items() if module in modules), None)
    return None if extra is None else UserError(f"{module} is not installed; {_way_to_install(extra)}")


def _is_there(module: str) -> bool:
    try:
        return module in sys.modules or find_spec(module) is not None
    except (ModuleNotFoundError, ValueError):  # by an importer that refuses; a module that was put there by hand
        return False


def _way_to_install(extra: str) -> str:
    return f"install the extra {extra!r}: pip install 'tfnas[{extra}]'"
