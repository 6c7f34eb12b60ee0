"""Which names of the program a test shows to be classes, so that their objects may calculate with plain values of the test.

Only the text of the test tells, never the program.
"""

import ast

_ATTRIBUTES = frozenset(name for kind in (list, dict, set, str, tuple, int, float) for name in dir(kind))
"""What a value of a built-in type has."""


def is_class(nodes: list[ast.AST], name: str) -> bool:
    """Whether the text of a test shows a name to be a class: by its spelling, or by how it is used."""
    if name[:1].isupper():
        return True
    for node in nodes:
        if isinstance(node, ast.ClassDef) and any(getattr(base, "id", "") == name for base in node.bases):
            return True
        if not isinstance(node, ast.Call) or getattr(node.func, "id", "") not in ("isinstance", "issubclass"):
            continue
        if any(getattr(part, "id", "") == name for argument in node.args[1:] for part in ast.walk(argument)):
            return True
    return False


def hold(nodes: list[ast.AST], names: list[str]) -> bool:
    """Whether a test shows the objects that some classes make to be containers, which say themselves what they contain.

    A function whose name is written like that of a class gives back a container too, but is given arguments, and its results
    have no methods beyond those of built-in types.
    """
    for name in names:
        results = _results(nodes, name)
        for node in nodes:
            if isinstance(node, ast.Call) and getattr(node.func, "id", "") == name and not node.args and not node.keywords:
                return True
            if isinstance(node, ast.Attribute) and _mentions(node.value, results) and node.attr not in _ATTRIBUTES:
                return True
    return False


def _results(nodes: list[ast.AST], name: str) -> set[str]:
    """The name, and those of variables that hold what it returned, or what came of that."""
    names, size = {name}, 0
    assignments = [
        node for node in nodes if isinstance(node, ast.Assign | ast.AugAssign | ast.AnnAssign | ast.For | ast.NamedExpr)
    ]
    while len(names) > size:
        size = len(names)
        for node in assignments:
            value = node.iter if isinstance(node, ast.For) else node.value
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            if value is not None and _mentions(value, names):
                names |= {part.id for target in targets for part in ast.walk(target) if isinstance(part, ast.Name)}
    return names


def _mentions(node: ast.expr, names: set[str]) -> bool:
    return any(isinstance(part, ast.Name) and part.id in names for part in ast.walk(node))
