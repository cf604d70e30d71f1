"""The reference simulator, which the tests of the simulator share with those of the placers."""

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest


@pytest.fixture(scope="session")
def reference() -> ModuleType:
    """The module `reference.py`, which no package holds."""
    spec = importlib.util.spec_from_file_location("reference", Path(__file__).parents[1] / "sim" / "reference.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
