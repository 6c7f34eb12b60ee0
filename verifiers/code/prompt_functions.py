"""Functions that the tests of a row use beside the one they test, and that are never the program's.

A program repeats them from the prompt, or writes its own: were the program's used, it could choose one that finds every answer
right. They are taken from the prompt; for HumanEval also where a gold comes without it, in versions of the project's own that
give the same values.
"""

import ast
import re
from functools import lru_cache

HELPERS: dict[str, str] = {
    "poly": "def poly(xs, x):\n    return sum(factor * x**power for power, factor in enumerate(xs))\n",
    "encode_cyclic": (
        "def encode_cyclic(s):\n"
        "    parts = [s[at : at + 3] for at in range(0, len(s), 3)]\n"
        "    return ''.join(part[1:] + part[0] if len(part) == 3 else part for part in parts)\n"
    ),
    "encode_shift": (
        "def encode_shift(s):\n    return ''.join(chr((ord(letter) - ord('a') + 5) % 26 + ord('a')) for letter in s)\n"
    ),
}
_LINE = re.compile(r"^(?:def |import |from )", re.MULTILINE)
_LONGEST_PROMPT = 50_000


@lru_cache(maxsize=1024)
def helpers_in(prompt: str) -> str:
    """The imports and the complete functions of the code in a prompt; one that is only begun is for the program to complete."""
    if len(prompt) > _LONGEST_PROMPT:
        return ""
    pieces = list[str]()
    for start in _LINE.finditer(prompt):
        lines = prompt[start.start() :].split("\n")
        length = next((at for at, line in enumerate(lines[1:], 1) if line and not line[0].isspace()), len(lines))
        try:
            node = ast.parse("\n".join(lines[:length])).body[0]
        except (SyntaxError, ValueError, RecursionError, MemoryError):
            continue
        if not isinstance(node, ast.FunctionDef) or _is_complete(node):
            pieces.append(ast.unparse(node))
    return "\n".join(pieces) if any(piece.startswith("def ") for piece in pieces) else ""


def _is_complete(function: ast.FunctionDef) -> bool:
    """Whether a function does something: its body is more than a docstring, `pass` or `...`."""
    return any(not isinstance(node, ast.Pass | ast.Raise) and not _is_constant(node) for node in function.body)


def _is_constant(node: ast.stmt) -> bool:
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
