"""What a test does, told from its text when data is loaded: how it is run, and which of its names are the program's.

`value`: one call of one name with literals, compared with a literal; the parent asks the program for the value and compares.
`tester`: any other code, which runs in a sandbox of its own. Built-in names, imports of the row and helpers are never the
program's there. A test that executes no assertion, or needs what the sandbox cannot give, is refused here.
"""

import ast
import builtins
import sys
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, Literal

from tulu.verifiers.code.class_names import hold, is_class
from tulu.verifiers.code.compare import encoded
from tulu.verifiers.code.needs import refuse_what_is_missing, test_classes, test_functions
from tulu.verifiers.code.prompt_functions import HELPERS
from tulu.verifiers.contract import GoldError, shorten

_OWN_MODULES = frozenset("solution main submission answer program your_module your_program candidate module_under_test".split())
"""Names under which tests import the program: "from solution import add"."""
_LITERAL_FAULTS = (ValueError, TypeError, SyntaxError, MemoryError, RecursionError)


@dataclass(frozen=True, slots=True)
class Test:
    """One test, as it is run."""

    kind: Literal["value", "tester"]
    source: str
    """tester: the code, with its assertions counted."""
    call: str = ""
    """value: the name that is called."""
    values: tuple[Any, ...] = ()
    """value: the arguments, as messages hold them."""
    keywords: Any = None
    relation: Literal["equal", "same", "true", "false"] = "equal"
    """value: what the answer must be: equal to the literal, the very same constant, true or false."""
    expected: Any = None
    """value: the literal, as messages hold it."""
    names: tuple[str, ...] = ()
    """tester: the names of the program that it uses; the empty name is the program as a module."""
    made: tuple[str, ...] = ()
    """tester: those of them that the text shows to be classes."""
    modules: tuple[str, ...] = ()
    """tester: standard modules that it uses without importing them."""
    functions: tuple[str, ...] = ()
    """tester: the test functions that nothing else calls."""
    classes: tuple[str, ...] = ()
    """tester: the classes of tests."""
    before: tuple[str, ...] = ()
    """tester: code that comes first: the row's imports, and helpers."""
    flags: dict[str, bool] = field(default_factory=dict)
    """tester: whether assertions are counted, output is captured, pytest is used, calls may raise StopIteration, and objects
    say what they contain."""


def parse(source: str) -> ast.Module:
    """The syntax tree of a test; GoldError where it is no Python, or empty."""
    try:
        tree = ast.parse(source.removeprefix("\ufeff"))
    except (SyntaxError, ValueError, RecursionError, MemoryError) as fault:
        raise GoldError(f"test {shorten(source)!r} is no Python: {fault}") from fault
    if not tree.body:
        raise GoldError("a test is empty")
    return tree


@lru_cache(maxsize=4096)
def take_apart(source: str, imports: str = "", helpers: str = "", entry: str = "") -> Test:
    """How a test is run; GoldError where it cannot be."""
    tree = parse(source)
    imported = _bound(ast.parse(imports))
    if len(tree.body) == 1 and isinstance(tree.body[0], ast.Assert):
        test = _value_test(tree.body[0].test, imported)
        if test is not None:
            return test
    return _tester(tree, source, imports, helpers, entry)


def _value_test(condition: ast.expr, imported: set[str]) -> Test | None:
    """The parts of `NAME(literals) == literal` and its like; None for any other condition."""
    operand = condition.operand if isinstance(condition, ast.UnaryOp) and isinstance(condition.op, ast.Not) else None
    if operand is not None or not isinstance(condition, ast.Compare):
        inner = _call_of(operand or condition, imported)
        # Of a built-in name the truth would be the program's word alone, and an object that a class makes may have its own.
        if inner is None or inner[0] in vars(builtins) or inner[0][:1].isupper():
            return None
        return Test("value", "", *inner, relation="false" if operand else "true")
    if len(condition.ops) != 1 or not isinstance(condition.ops[0], ast.Eq | ast.Is):
        return None
    for side, other in ((condition.left, condition.comparators[0]), (condition.comparators[0], condition.left)):
        inner = _call_of(side, imported)
        if inner is None:
            continue
        try:
            expected = encoded(ast.literal_eval(other))
        except _LITERAL_FAULTS:
            continue
        if isinstance(condition.ops[0], ast.Eq):
            return Test("value", "", *inner, expected=expected)
        return Test("value", "", *inner, relation="same", expected=expected) if expected in (None, True, False) else None
    return None


def _call_of(node: ast.expr, imported: set[str]) -> tuple[str, tuple[Any, ...], Any] | None:
    """(name, arguments, keywords) of one call of one name with literals; None for any other expression."""
    if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Name) or node.func.id in imported:
        return None
    try:
        values = tuple(encoded(ast.literal_eval(argument)) for argument in node.args)
        keywords = {str(word.arg): ast.literal_eval(word.value) for word in node.keywords if word.arg}
        return (node.func.id, values, encoded(keywords)) if len(keywords) == len(node.keywords) else None
    except _LITERAL_FAULTS:
        return None


def _tester(tree: ast.Module, source: str, imports: str, helpers: str, entry: str) -> Test:
    own_names = _take_own_imports(tree)
    _complete(tree, entry)
    _count_assertions(tree)
    nodes = list(ast.walk(tree))
    refuse_what_is_missing(nodes)
    loaded = {node.id for node in nodes if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load)}
    imported = _bound(ast.parse(imports))
    # A name that the test assigns may be the program's before: "total = total([1])".
    free = loaded - _bound(tree, assigned=False) - imported - set(vars(builtins)) - {"__tulu_passed__", "__tulu_program__"}
    # Only a `check` says which function it tests, and so that the others are helpers.
    tested = _tested(tree)
    own = {**HELPERS, **_functions(helpers)} if tested else {}
    used = [code for name, code in own.items() if name in free - tested]
    before = tuple(piece for piece in (imports, *([helpers] if used and helpers else []), *used) if piece)
    refuse_what_is_missing(list(ast.walk(ast.parse(imports))))
    free -= own.keys() - tested
    assigned = _bound(tree)
    modules = {name for name in free - assigned if name in sys.stdlib_module_names and _is_only_a_module(nodes, name)}
    program = (free - modules) | own_names
    functions, classes = test_functions(tree), test_classes(tree)
    made = sorted(name for name in program if is_class(nodes, name))
    text = ast.unparse(ast.fix_missing_locations(tree))
    flags = {
        "counts": _has(nodes, ast.Assert) and not _fails_otherwise(nodes),
        "prints": any(word in source for word in ("stdout", "capsys")),
        "pytest": "pytest" in source or "pytest" in imports,
        "stops": "StopIteration" in source,
        "holds": hold(nodes, made),
    }
    return Test(
        "tester",
        text,
        names=tuple(sorted(program)),
        made=tuple(made),
        modules=tuple(sorted(modules)),
        functions=functions,
        classes=classes,
        before=before,
        flags=flags,
    )


def _take_own_imports(tree: ast.Module) -> set[str]:
    """Removes the imports of the program from a test; their names are the program's."""
    names = set[str]()

    class Remover(ast.NodeTransformer):
        def visit_ImportFrom(self, node: ast.ImportFrom) -> Any:
            if node.level == 0 and (node.module or "").split(".")[0] not in _OWN_MODULES:
                return node
            names.update(alias.name for alias in node.names if alias.name != "*")
            assigned = [alias for alias in node.names if alias.asname]
            return [ast.parse(f"{alias.asname} = {alias.name}").body[0] for alias in assigned] or ast.Pass()

        def visit_Import(self, node: ast.Import) -> Any:
            own = [alias for alias in node.names if alias.name in _OWN_MODULES]
            if not own:
                return node
            names.add("")
            aliases = [ast.parse(f"{alias.asname or alias.name} = __tulu_program__").body[0] for alias in own]
            rest = [alias for alias in node.names if alias not in own]
            return [*aliases, *([ast.Import(names=rest)] if rest else [])]

    Remover().visit(tree)
    return names


def _calls_main(node: ast.stmt) -> bool:
    """Whether a statement is `unittest.main()` or `pytest.main()`, which runs what is run here anyway."""
    call = node.value if isinstance(node, ast.Expr) else None
    return isinstance(call, ast.Call) and ast.unparse(call.func) in ("unittest.main", "pytest.main")


def _complete(tree: ast.Module, entry: str) -> None:
    """Adds what a test leaves out: the call of `check`, and `assert` before comparisons that stand alone; GoldError where it
    would still execute no assertion.
    """

    class Remover(ast.NodeTransformer):
        def visit_Expr(self, node: ast.Expr) -> Any:
            return ast.Pass() if _calls_main(node) else node

    Remover().visit(tree)
    if _is_check(tree) and not any(isinstance(node, ast.Name) and node.id == "check" for node in ast.walk(tree)):
        if not entry:
            raise GoldError('check(candidate) is never called; end the test with "check(NAME)", or give entry_point')
        tree.body += ast.parse(f"check({entry})").body
    nodes = list(ast.walk(tree))
    if not _has(nodes, ast.Assert) and not _fails_otherwise(nodes):

        class Asserter(ast.NodeTransformer):
            def visit_Expr(self, node: ast.Expr) -> Any:
                compares = isinstance(node.value, ast.Compare) or (
                    isinstance(node.value, ast.UnaryOp | ast.BoolOp) and not isinstance(getattr(node.value, "op", None), ast.USub)
                )
                return ast.copy_location(ast.Assert(test=node.value, msg=None), node) if compares else node

        Asserter().visit(tree)
    if not _asserts(tree):
        raise GoldError("a test executes no assertion, so that every program would pass it")


def _tested(tree: ast.Module) -> set[str]:
    """The names that are passed to `check`."""
    calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "check"]
    return (
        {argument.id for call in calls for argument in call.args if isinstance(argument, ast.Name)} if _is_check(tree) else set()
    )


def _functions(code: str) -> dict[str, str]:
    """Name -> text of each function."""
    return {node.name: ast.unparse(node) for node in ast.parse(code).body if isinstance(node, ast.FunctionDef)}


def _is_check(tree: ast.Module) -> bool:
    return any(isinstance(node, ast.FunctionDef) and node.name == "check" and len(node.args.args) == 1 for node in tree.body)


def _count_assertions(tree: ast.Module) -> None:
    """Adds a note after each assertion, so that a test in which none was executed is told from one that passed."""
    note = ast.parse("__tulu_passed__()").body[0]

    class Counter(ast.NodeTransformer):
        def visit_Assert(self, node: ast.Assert) -> Any:
            return [node, note]

    Counter().visit(tree)


def _has(nodes: list[ast.AST], kind: type) -> bool:
    return any(isinstance(node, kind) for node in nodes)


def _fails_otherwise(nodes: list[ast.AST]) -> bool:
    """Whether a test can fail without an assertion: it raises, fails on purpose, or calls what asserts."""
    for node in nodes:
        if isinstance(node, ast.Raise):
            return True
        if isinstance(node, ast.Assert) and isinstance(node.test, ast.Constant) and not node.test.value:
            return True
        if isinstance(node, ast.Call):
            name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
            if name.startswith(("assert", "fail")) or name in ("raises", "exit", "_exit"):
                return True
    return False


def _asserts(tree: ast.Module) -> bool:
    """Whether code that is run when the test is run can fail by itself: at its top, or in a function that is used from there."""
    definitions = {
        node.name: node for node in tree.body if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef)
    }
    run = set(test_functions(tree)) | set(test_classes(tree))
    waiting: list[ast.AST] = [node for node in tree.body if getattr(node, "name", None) not in definitions]
    waiting += [definitions[name] for name in run]
    seen = set(run)
    while waiting:
        nodes = list(ast.walk(waiting.pop()))
        if _has(nodes, ast.Assert) or _fails_otherwise(nodes):
            return True
        used = {node.id for node in nodes if isinstance(node, ast.Name) and node.id in definitions} - seen
        seen |= used
        waiting += [definitions[name] for name in used]
    return False


def _bound(tree: ast.AST, assigned: bool = True) -> set[str]:
    """The names that code binds itself; without `assigned` only its imports, functions and classes."""
    names = set[str]()
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            names.add(node.name)
        elif isinstance(node, ast.Import | ast.ImportFrom):
            names.update((alias.asname or alias.name).split(".")[0] for alias in node.names)
        elif assigned and isinstance(node, ast.Name) and not isinstance(node.ctx, ast.Load):
            names.add(node.id)
        elif assigned and isinstance(node, ast.arg):
            names.add(node.arg)
        elif assigned and isinstance(node, ast.ExceptHandler) and node.name:
            names.add(node.name)
    return names


def _is_only_a_module(nodes: list[ast.AST], name: str) -> bool:
    """Whether a name is only used as in `math.floor`, and never by itself."""
    bases = {id(node.value) for node in nodes if isinstance(node, ast.Attribute)}
    return all(id(node) in bases for node in nodes if isinstance(node, ast.Name) and node.id == name)
