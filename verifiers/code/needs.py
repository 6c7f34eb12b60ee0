"""What a test brings along and what it needs: its test functions and classes, packages, fixtures; a need that cannot be met is
an error when data is loaded.
"""

import ast
import sys

from tulu.verifiers.code.bubblewrap import PACKAGES, packages
from tulu.verifiers.contract import GoldError

_NOT_GIVEN = {
    "inspect": "the program's own text",
    "monkeypatch": "what replaces parts of the program",
    "stdin": "an input for the program; use code_stdio",
    "input": "an input for the program; use code_stdio",
    "patch": "what replaces parts of the program",
    "caplog": "what the program logs",
    "capfd": "the output of the process; use capsys",
}
"""Names in a test that need what a program in another process cannot be given -> what that is."""
_FIXTURES_NOT_GIVEN = ("monkeypatch", "caplog", "capfd")
_FIXTURES = frozenset(("capsys", "tmp_path", "tmpdir"))


def test_functions(tree: ast.Module) -> tuple[str, ...]:
    """The functions that pytest would run; GoldError where one takes what is not given."""
    fixtures = {node.name for node in tree.body if isinstance(node, ast.FunctionDef) and _is_marked(node, "fixture")}
    found = list[str]()
    for node in tree.body:
        if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) or not node.name.startswith("test"):
            continue
        called = any(isinstance(other, ast.Name) and other.id == node.name for other in ast.walk(tree))
        parameters = node.args.args[: len(node.args.args) - len(node.args.defaults)]
        if called or node.name in fixtures:
            continue
        if parameters and not _is_marked(node, "parametrize"):
            missing = {argument.arg for argument in parameters} - fixtures - _FIXTURES
            if missing:
                raise GoldError(f"test function {node.name} takes {', '.join(sorted(missing))}, which nothing gives")
        found.append(node.name)
    return tuple(found)


def _is_marked(node: ast.FunctionDef | ast.AsyncFunctionDef, name: str) -> bool:
    return any(name in ast.unparse(decorator) for decorator in node.decorator_list)


def test_classes(tree: ast.Module) -> tuple[str, ...]:
    """The classes of unittest, and those that pytest would run."""
    found = list[str]()
    for node in tree.body:
        if isinstance(node, ast.ClassDef):
            methods = any(isinstance(part, ast.FunctionDef) and part.name.startswith("test") for part in node.body)
            if methods and (node.name.startswith("Test") or any(ast.unparse(base).endswith("TestCase") for base in node.bases)):
                found.append(node.name)
    return tuple(found)


def refuse_what_is_missing(nodes: list[ast.AST]) -> None:
    """GoldError where a test imports or uses what its sandbox does not have."""
    assigned = {node.id for node in nodes if isinstance(node, ast.Name) and not isinstance(node.ctx, ast.Load)}
    assigned |= {node.arg for node in nodes if isinstance(node, ast.arg)} - _NOT_GIVEN.keys()
    for node in nodes:
        modules = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        modules += [node.module] if isinstance(node, ast.ImportFrom) and node.module else []
        tops = [module.split(".")[0] for module in modules]
        for top in tops:
            if top not in sys.stdlib_module_names and top != "pytest" and top not in packages():
                raise GoldError(f"a test imports {top}, which its sandbox does not have ({PACKAGES} adds packages)")
        used = [*tops]
        if isinstance(node, ast.ImportFrom) and "mock" in (node.module or ""):
            used += [alias.name for alias in node.names]
        if isinstance(node, ast.Name) and node.id not in assigned:
            used.append(node.id)
        elif isinstance(node, ast.arg) and node.arg in _FIXTURES_NOT_GIVEN:
            used.append(node.arg)
        elif isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id in ("sys", "mock"):
            used.append(node.attr)
        for name in used:
            if name in _NOT_GIVEN:
                raise GoldError(f"a test uses {name}: {_NOT_GIVEN[name]} cannot be given")
