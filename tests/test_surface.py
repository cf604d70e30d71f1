"""The public surface: every module says what it offers, and documents it."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FILES = sorted(
    file
    for top in ("baechi", "frontends", "models", "placers")
    for file in (ROOT / top).rglob("*.py")
    if file.name != "__main__.py" and not any(parent.is_symlink() for parent in file.parents)
)
Definition = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef


def exported(tree: ast.Module) -> list[str] | None:
    for node in tree.body:
        if isinstance(node, ast.Assign) and any(isinstance(t, ast.Name) and t.id == "__all__" for t in node.targets):
            names: list[str] = ast.literal_eval(node.value)
            return names
    return None


def bound(tree: ast.Module) -> set[str]:
    """Names that the module's top level binds; a lazy module binds by ``__getattr__`` what it lists."""
    names: set[str] = set()
    for node in tree.body:
        if isinstance(node, Definition):
            names.add(node.name)
        elif isinstance(node, ast.Import | ast.ImportFrom):
            names |= {(alias.asname or alias.name).partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.If):
            names |= bound(ast.Module(node.body, []))
        else:
            names |= {n.id for n in ast.walk(node) if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store)}
    return names


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(ROOT)))
def test_a_module_says_what_it_offers(file: Path) -> None:
    tree = ast.parse(file.read_text(encoding="utf-8"))
    public = [node for node in tree.body if isinstance(node, Definition) and not node.name.startswith("_")]
    names = exported(tree)
    if not tree.body:
        return
    assert ast.get_docstring(tree), "a module begins with what it is for"
    if names is None:
        assert not public, f"no __all__, but public {[node.name for node in public]}"
        return
    lazy = {"__getattr__", "__dir__"} & bound(tree)
    assert len(set(names)) == len(names)
    assert lazy or set(names) <= bound(tree)
    if (
        ROOT / "models" not in file.parents
    ):  # a model's parts keep plain names: they stand in module paths and error messages
        assert {node.name for node in public} <= set(names)
    if file.name.startswith("_"):
        return
    assert [node.name for node in public if node.name in names and not ast.get_docstring(node)] == []


def test_the_links_were_not_followed_twice() -> None:
    assert len({file.resolve() for file in FILES}) == len(FILES)
