"""The tree, the list in pyproject.toml and what gets imported agree."""

import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
MAPPED = ("frontends", "models", "placers")
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))


def packages_of(folder: Path, name: str) -> set[str]:
    """Packages by walking real folders: the links inside baechi/ are followed by their mapping."""
    found = {name} if (folder / "__init__.py").exists() else set()
    for child in folder.iterdir():
        if child.is_dir() and not child.is_symlink() and child.name.isidentifier():
            found |= packages_of(child, f"{name}.{child.name}")
    return found


def fresh(code: str) -> str:
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, cwd=ROOT)
    assert ran.returncode == 0, ran.stderr
    return ran.stdout.strip()


def test_every_package_is_listed() -> None:
    tree = packages_of(ROOT / "baechi", "baechi")
    for name in MAPPED:
        tree |= packages_of(ROOT / name, f"baechi.{name}")
    assert sorted(tree) == PROJECT["tool"]["setuptools"]["packages"]


def test_every_python_file_is_in_a_package() -> None:
    for top in ("baechi", *MAPPED):
        for file in (ROOT / top).rglob("*.py"):
            assert (file.parent / "__init__.py").exists(), file


@pytest.mark.parametrize("name", MAPPED)
def test_the_links_point_home(name: str) -> None:
    link = ROOT / "baechi" / name
    assert link.is_symlink()
    assert link.readlink() == Path("..") / name
    assert PROJECT["tool"]["setuptools"]["package-dir"][f"baechi.{name}"] == name


def test_one_version_everywhere() -> None:
    version = PROJECT["project"]["version"]
    assert fresh("import baechi; print(baechi.__version__)") == version
    assert f"\nversion: {version}\n" in (ROOT / "CITATION.cff").read_text(encoding="utf-8")
    assert f"\n## {version} " in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")


def test_package_data_exists() -> None:
    for package, patterns in PROJECT["tool"]["setuptools"]["package-data"].items():
        for pattern in patterns:
            assert any((ROOT / package.replace(".", "/")).glob(pattern))


def test_pins_cover_every_dependency_and_satisfy_it() -> None:
    pins = dict(
        line.split("==") for line in (ROOT / "constraints.txt").read_text().splitlines() if not line.startswith("#")
    )
    extras = PROJECT["project"]["optional-dependencies"]
    wanted = [*PROJECT["project"]["dependencies"], *extras["tf"], *extras["torch"], *extras["test"], *extras["lint"]]
    for requirement in wanted:
        name, _, least = requirement.partition(";")[0].partition(">=")
        assert name in pins
        assert numbers(pins[name]) >= numbers(least)


def numbers(version: str) -> list[int]:
    return [int(part) for part in version.split(".") if part]


def test_import_brings_no_framework_and_no_solver() -> None:
    heavy = ("torch", "tensorflow", "ortools", "numba", "transformers")
    loaded = fresh(f"import sys, baechi; print([m for m in {heavy} if m in sys.modules])")
    assert loaded == "[]"


@pytest.mark.parametrize(("framework", "other"), [("pytorch", "tensorflow"), ("tensorflow", "torch")])
def test_a_framework_does_not_bring_the_other(framework: str, other: str) -> None:
    code = (
        "import sys\n"
        "from baechi.target import load_target\n"
        f"model, framework = ('gnmt', 'tensorflow') if {framework == 'tensorflow'} else ('mlp', None)\n"
        "options = {'layers': 2, 'length': 2, 'units': 4, 'vocab': 8} if framework else {}\n"
        "target = load_target('models:' + model, batch=2, options=options, framework=framework)\n"
        "target.job.load()\n"
        f"print(len(target.graph.ops) > 5, '{other}' in sys.modules)\n"
    )
    assert fresh(code) == "True False"


def test_nothing_is_imported_twice() -> None:
    code = (
        "import importlib, pkgutil, sys\n"
        "import baechi\n"
        "for m in pkgutil.walk_packages(baechi.__path__, 'baechi.'):\n"
        "    if 'pytorch' not in m.name and '.tf' not in m.name: importlib.import_module(m.name)\n"
        f"print([name for name in {MAPPED} if name in sys.modules])\n"
    )
    assert fresh(code) == "[]"
