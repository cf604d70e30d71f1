"""Which lines of a capture are the user's: their own and their libraries', not those of Python, a framework or baechi."""

import json
import sys
from pathlib import Path

import pytest

import baechi
from baechi.frontends.lines import Lines

HERE = Path(__file__).parent
PACKAGES = Path(pytest.__file__).parents[1]
LINES = Lines(pytest, generated="_written_by_")


@pytest.fixture(autouse=True)
def _here(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(HERE)


@pytest.mark.parametrize(
    ("file", "name"),
    [
        (HERE / "train.py", "train.py"),
        (Path("/home/me/train.py"), "/home/me/train.py"),
        (PACKAGES / "library" / "layers.py", "library/layers.py"),
        (PACKAGES / "pytest" / "__init__.py", ""),
        (PACKAGES / "pytest_extra" / "__init__.py", "pytest_extra/__init__.py"),
        (json.__file__, ""),
        (Path(baechi.__file__).parent / "backends" / "limits.py", ""),
        ("/tmp/_written_by_x.py", ""),
        ("<string>", ""),
        ("<stdin>", "<stdin>"),
        ("<ipython-input-1>", "<ipython-input-1>"),
    ],
)
def test_a_file_is_named_when_it_is_the_users(file: str | Path, name: str) -> None:
    assert LINES.name(str(file)) == name


def test_the_innermost_line_of_an_error_is_the_users() -> None:
    try:
        json.loads("{")
    except ValueError as error:
        line = LINES.innermost(error.__traceback__)
    assert line == f"test_lines.py:{sys._getframe().f_code.co_firstlineno + 2}"
    assert LINES.innermost(None) == ""
