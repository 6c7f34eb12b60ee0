"""Numbers as people write them when the work is done."""

from fractions import Fraction

from tulu.verifiers.math.balls import TooLarge, Undefined, Unsure
from tulu.verifiers.math.certify import names
from tulu.verifiers.math.evaluate import Evaluator, NotANumber
from tulu.verifiers.math.nodes import Node, children

_LITERALS = frozenset("num const div neg pow root fact binom mixed".split())
"""Nodes of which the value of a number may consist without work left undone; 2\\times10^3 is one too."""


def is_literal(node: Node) -> bool:
    """Whether a gold is a number as people write it: an integer, a decimal, a fraction, a mixed number."""
    if node[0] in ("neg", "mixed"):
        return is_literal(node[1])
    if node[0] == "div":
        return all(part[0] == "num" or (part[0] == "neg" and part[1][0] == "num") for part in node[1:])
    return bool(node[0] == "num")


def is_worked_out(node: Node) -> bool:
    """Whether a number is worked out: `3/4`, `2^{10}`, `\\sqrt{16}`, `5!` are, `3+4`, `17\\times23` and `\\log_2 8` are not."""
    if node[0] == "scaled":
        return is_worked_out(node[1])
    if node[0] in ("mul", "times") and len(node[1]) == 2:
        first, second = node[1]
        is_power_of_ten = (second[0] == "pow" and second[1] == ("num", Fraction(10))) or second == ("num", Fraction(10))
        return is_worked_out(first) and (
            is_power_of_ten or (node[0] == "mul" and first[0] == "num" and second[0] == "root" and is_worked_out(second))
        )
    if node[0] == "add":
        return node[1][-1][0] == "div" and len(node[1]) == 2 and all(is_literal(part) for part in node[1]) and _is_mixed(node)
    return node[0] in _LITERALS and all(is_worked_out(child) for child in children(node))


def _is_mixed(node: Node) -> bool:
    """Whether a sum is a mixed number, which the parser marks by its integer in front of a proper fraction."""
    whole, fraction = node[1]
    return whole[0] == "num" and whole[1].denominator == 1 and fraction[0] == "div"


def exact_value(node: Node) -> Fraction | None:
    """The value of a number that is worked out and rational; None for anything else."""
    if names(node) or not is_worked_out(node):
        return None
    try:
        value = Evaluator(lambda name: Fraction(0), 110, False, None, 1000).value(node)
    except (Undefined, Unsure, TooLarge, NotANumber, RecursionError):
        return None
    return value if isinstance(value, Fraction) else None
