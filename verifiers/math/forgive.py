"""What is forgiven, on both sides alike: a name, an option's letter, the braces of a single value, the name of a constant."""

from tulu.verifiers.math import certify
from tulu.verifiers.math.certify import names
from tulu.verifiers.math.nodes import Node
from tulu.verifiers.math.values import Collection, Equation, Function, Named, Number, Option, Quantity, System, Value

_VARIABLES = frozenset("x y t u v s r z \\theta \\phi".split())
"""Letters that functions are integrated over."""


def peel(value: Value, other: Value) -> Value | None:
    """The value without a name or an option's letter that the other side lacks; the value itself where nothing is forgiven."""
    if isinstance(value, Named) and not isinstance(other, Named | Equation | Function | System):
        return value.value
    if isinstance(value, Named) and isinstance(other, Function):
        return Function("", other.parameters, value.value.node) if isinstance(value.value, Number) else value
    if isinstance(value, Function) and not isinstance(other, Function | Named):
        return Number(value.body)
    if isinstance(value, Equation) and not isinstance(other, Equation | Named) and not names(value.left) | names(value.right):
        # 2 + 3 = 5 says 5 where it is true; 1 = 1 says nothing.
        return Number(value.right) if value.left != value.right and certify.same(value.left, value.right) else value
    if isinstance(value, Option) and not isinstance(other, Option):
        if value.value is None or (isinstance(other, Number) and other.node == ("sym", value.letter)):
            return Number(("sym", value.letter)) if isinstance(other, Number) else value
        return value.value
    if isinstance(value, Collection) and value.kind == "set" and len(value.items) == 1 and isinstance(other, Number | Quantity):
        return value.items[0]
    return value


def without_constant(node: Node) -> Node | None:
    """An antiderivative without its constant of integration; None where there is none."""
    if node[0] != "add":
        return None
    constants = [part for part in node[1] if part[0] == "sym" and part[1].split("_")[0] in ("C", "K", "c", "k")]
    rest = tuple(part for part in node[1] if part not in constants)
    if len(constants) != 1 or not rest or constants[0][1] in names(("add", rest)) or not names(("add", rest)) & _VARIABLES:
        return None
    return ("add", rest)
