"""The nodes that an answer is read into.

A node is a tuple of its kind and its parts: ("add", (a, b)), ("mul", (a, b)), ("times", (a, b)) with a sign between
them, ("neg", a),
("div", a, b), ("pow", a, b), ("root", a, n), ("num", 3/2), ("sym", "x_1"), ("const", "pi"), ("call", "sin", a), ("log", base, a),
("apply", "f", (a,)), ("abs", a), ("floor", a), ("ceil", a), ("fact", a), ("binom", n, k), ("mixed", fraction),
("deg", a), ("pm", sign),
("scaled", a, factor), ("quantity", a, unit), and ("big", key) for what is not evaluated. statements.py adds lists and relations.
"""

from collections.abc import Iterator
from typing import Any

Node = tuple[Any, ...]


def children(node: Node) -> Iterator[Node]:
    """The nodes inside a node."""
    for part in node[1:]:
        if isinstance(part, tuple) and part:
            yield from (
                (part,)
                if isinstance(part[0], str)
                else (one for one in part if isinstance(one, tuple) and one and isinstance(one[0], str))
            )


def holds(node: Node, kind: str) -> bool:
    """Whether a node of a kind stands somewhere in an expression; `i` is the imaginary unit."""
    return node[0] == kind or (node[0] == "const" and node[1] == kind) or any(holds(child, kind) for child in children(node))
