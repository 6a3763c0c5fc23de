"""A package whose names are in its stub."""

from __future__ import annotations

import importlib
import sys

import pytest

INIT = (
    "from tfnas.jobs.lazy_names import attach_stub\n__getattr__, __dir__, __all__ = attach_stub(__name__, __file__)\n"
)


@pytest.fixture
def package(tmp_path, monkeypatch):
    folder = tmp_path / "lazily"
    (folder / "inner").mkdir(parents=True)
    (folder / "__init__.py").write_text(INIT)
    (folder / "__init__.pyi").write_text(
        "from .inner.deep import Second as Second\nfrom .first import first as first\n"
    )
    (folder / "first.py").write_text("def first(): return 1\n")
    (folder / "inner" / "__init__.py").write_text("")
    (folder / "inner" / "deep.py").write_text("class Second: pass\n")
    monkeypatch.syspath_prepend(tmp_path)
    yield importlib.import_module("lazily")
    for name in [name for name in sys.modules if name.partition(".")[0] == "lazily"]:
        del sys.modules[name]


def test_a_name_is_imported_when_it_is_first_used(package) -> None:
    assert "lazily.first" not in sys.modules
    assert package.Second.__module__ == "lazily.inner.deep"
    assert "lazily.first" not in sys.modules
    assert package.first() == 1  # the function, though a module has its name
    assert package.first is package.first


def test_all_names_are_listed_and_no_others_are_found(package) -> None:
    assert package.__all__ == dir(package) == ["Second", "first"]
    with pytest.raises(AttributeError, match="module 'lazily' has no attribute 'third'"):
        _ = package.third
    with pytest.raises(ImportError, match="third"):
        from lazily import third  # noqa: F401
