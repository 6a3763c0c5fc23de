"""Runtimes whose packages are optional, and what tests of them are marked with."""

from __future__ import annotations

import importlib.util

import pytest

from tfnas.latency.backends.litert import MODULES

NEEDS = {"openvino": ("openvino",), "executorch": ("executorch",), "litert": MODULES, "ncnn": ("ncnn", "pnnx")}
SLOW = ("executorch", "litert")  # seconds per conversion


def runtime_param(name: str) -> object:
    """The runtime's name as a test's parameter, skipped where its packages are absent."""
    absent = [module for module in NEEDS[name] if importlib.util.find_spec(module) is None]
    slow = [pytest.mark.slow] if name in SLOW else []
    marks = [pytest.mark.skipif(bool(absent), reason=f"{', '.join(absent)} not installed"), *slow]
    return pytest.param(name, marks=marks)


RUNTIME_PARAMS = [runtime_param(name) for name in NEEDS]


def int8_param(name: str) -> object:
    """A backend or format that has 8 bits as a test's parameter, skipped where its packages are absent."""
    module = {"onnx": "onnxruntime", "onnx-runtime": "onnxruntime", "openvino": "nncf"}[name]
    absent = importlib.util.find_spec(module) is None
    return pytest.param(name, marks=pytest.mark.skipif(absent, reason=f"{module} not installed"))
