"""Turns the tree of an answer into a typed value."""

from collections.abc import Callable
from fractions import Fraction

from tulu.verifiers.math import regions
from tulu.verifiers.math.certify import names, same
from tulu.verifiers.math.nodes import Node, children, holds
from tulu.verifiers.math.tokens import Unreadable
from tulu.verifiers.math.units import DEGREE, PERCENT
from tulu.verifiers.math.values import (
    REALS,
    Cases,
    Collection,
    Congruence,
    Equation,
    Function,
    Inequality,
    Matrix,
    Named,
    Number,
    Opaque,
    Parts,
    Quantity,
    Region,
    System,
    Text,
    Value,
)

_PAIRS = ("()", "[]", "<>")


def typed(node: Node) -> Value:
    """The typed value of a tree; Unreadable where it means nothing."""
    if holds(node, "pm"):
        return _both_signs(node)
    reader = _READERS.get(node[0])
    return reader(node) if reader else Number(node)


def _both_signs(node: Node) -> Value:
    plus, minus = (typed(_with_signs(node, sign)) for sign in (1, -1))
    parts = [
        part
        for value in (plus, minus)
        for part in (value.items if isinstance(value, Collection) and value.kind == "bare" else (value,))
    ]
    return _bare(tuple(parts))


def _with_signs(node: Node, sign: int) -> Node:
    """A tree in which every `\\pm` is one sign, and every `\\mp` the other."""
    if node[0] == "mul" and node[1][0][0] == "pm":
        rest = _with_signs(("mul", node[1][1:]) if len(node[1]) > 2 else node[1][1], sign)
        return rest if sign * node[1][0][1] > 0 else ("neg", rest)
    if node[0] == "pm":
        return ("num", Fraction(sign * node[1]))

    def changed(part: object) -> object:
        if not isinstance(part, tuple) or not part:
            return part
        if isinstance(part[0], str):
            return _with_signs(part, sign)
        return type(part)(map(changed, part)) if type(part) is tuple else part

    return (node[0], *(changed(part) for part in node[1:]))


def _quantity(node: Node) -> Value:
    return Quantity(node[1], node[2])


def _degrees(node: Node) -> Value:
    return Quantity(node[1], DEGREE)


def _signed(node: Node) -> Value:
    """-30^\\circ is a quantity as 30^\\circ is."""
    inner = typed(node[1])
    return Quantity(("neg", inner.node), inner.unit) if isinstance(inner, Quantity) else Number(node)


def _sum(node: Node) -> Value:
    """A sum; of quantities of one kind, the quantity: 5 feet 3 inches is left to text, but 30^\\circ+x is an expression."""
    parts = [typed(part) for part in node[1]]
    units = {part.unit for part in parts if isinstance(part, Quantity)}
    if len(units) == 1 and all(isinstance(part, Quantity) for part in parts) and not units & {PERCENT}:
        return Quantity(("add", tuple(part.node for part in parts if isinstance(part, Quantity))), units.pop())
    return Number(node)


def _group(node: Node) -> Value:
    opening, closing, items = node[1:]
    values = tuple(typed(item) for item in items)
    if len(values) == 2 and (opening + closing not in _PAIRS or any(_is_infinite(item) for item in items)):
        return regions.from_brackets(opening, closing, items)
    if opening + closing not in _PAIRS:
        raise Unreadable("brackets that do not match")
    if len(values) == 1:
        return values[0]
    return Collection("tuple", values, opening + closing)


def _is_infinite(node: Node) -> bool:
    return node in (("const", "inf"), ("neg", ("const", "inf")))


def _set(node: Node) -> Value:
    values = tuple(part for item in node[1] for part in _flat(typed(item)))
    return Collection("set", values)


def _flat(value: Value) -> tuple[Value, ...]:
    return value.items if isinstance(value, Collection) and value.kind == "bare" else (value,)


def _list(node: Node) -> Value:
    separators, values = [separator for separator, _ in node[1]], [typed(item) for _, item in node[1]]
    if all(isinstance(value, Region) for value in values):
        joined = regions.join([value for value in values if isinstance(value, Region)], "or" in separators)
        if joined is not None:
            return joined
    kept = [value for value in values if not _is_membership(value) and not _is_condition(value, values)]
    values = kept or values
    if len(values) == 1:
        return values[0]
    named = [value for value in values if isinstance(value, Named)]
    if named and len(named) == len(values):
        return _named(named)
    if len(named) == 1 and values[0] is named[0] and isinstance(named[0].value, Number | Quantity):
        # x = 1 or 2
        return Named(named[0].name, Collection("set", (named[0].value, *values[1:])))
    joined_values = _bare(tuple(values))
    if "or" in separators and isinstance(joined_values, Collection):
        # What is one or the other has no order.
        return Collection("set", joined_values.items)
    return joined_values


def _bare(values: tuple[Value, ...]) -> Value:
    if values and all(isinstance(value, Named) for value in values):
        return _named([value for value in values if isinstance(value, Named)])
    return Collection("bare", tuple(part for value in values for part in _flat(value)))


def _is_membership(value: Value) -> bool:
    """`k \\in \\mathbb{Z}` beside a formula."""
    return (
        isinstance(value, Named)
        and isinstance(value.value, Opaque)
        and value.value.node[0] == "set of"
        and value.name[0] == "sym"
    )


def _is_condition(value: Value, values: list[Value]) -> bool:
    """`x \\ne 2` beside an expression in x."""
    if not isinstance(value, Region) or value.name is None:
        return False
    letters = names(value.name)
    return any(isinstance(other, Number) and letters <= names(other.node) for other in values)


def _named(values: list[Named]) -> Value:
    """`x=1 or x=2` is two values of one name; `y=2, x=1` is a system in the order of its names."""
    keys = [repr(value.name) for value in values]
    if len(set(keys)) == 1:
        return Named(values[0].name, Collection("set", tuple(part for value in values for part in _flat(value.value))))
    if len(set(keys)) != len(keys):
        return Collection("bare", tuple(values))
    return _system([(_name_of(value.name), value.value) for value in values])


def _system(pairs: list[tuple[str, Value]]) -> System:
    return System(tuple(sorted(pairs, key=lambda pair: pair[0])))


def _name_of(node: Node) -> str:
    return str(node[1]) if node[0] == "sym" else repr(node)


# Relations.


def _relation(node: Node) -> Value:
    sides, operators = node[1:]
    kinds = set(operators)
    if kinds == {"equiv"}:
        return _congruence(sides)
    if kinds <= {"=", "approx"}:
        return _equation(sides, operators)
    if kinds == {"to"} and len(sides) == 2 and sides[0][0] == "sym":
        return Function("", (sides[0][1],), sides[1])
    if kinds == {"in"} and len(sides) == 2:
        members = typed(sides[1])
        if not isinstance(members, Collection | Region | Opaque) or sides[0][0] not in ("sym", "group"):
            return Opaque(node)
        region = regions.as_region(members)
        return Region(region.intervals, sides[0]) if region and sides[0][0] == "sym" else Named(sides[0], region or members)
    if kinds <= {"<", ">", "le", "ge", "ne"}:
        region = regions.from_relation(sides, operators)
        if region is not None:
            return region
        if len(sides) == 2 and sides[0] != ("nothing",) and kinds != {"ne"}:
            small, large = sides if operators[0] in ("<", "le") else sides[::-1]
            return Inequality(("add", (large, ("neg", small))), operators[0] in ("<", ">"))
    if any(side == ("nothing",) for side in sides):
        raise Unreadable("a relation without its left side")
    return Opaque(node)


def _congruence(sides: tuple[Node, ...]) -> Value:
    if len(sides) == 3 and sides[2][0] == "modulus":
        return Congruence(sides[0], sides[1], sides[2][1])
    return Opaque(("rel", sides, ("equiv",)))


def _equation(sides: tuple[Node, ...], operators: tuple[str, ...]) -> Value:
    """A named value, a function, an equation; of a chain whose parts are equal, its last part."""
    if sides[0] == ("nothing",):
        sides, operators = sides[1:], operators[1:]
        if len(sides) == 1:
            return typed(sides[0])
    left, right = sides[0], sides[-1]
    if len(sides) > 2:
        rest = sides[1:] if is_label(left) else sides
        if all(same(side, right) for side in rest):
            return Named(left, typed(right)) if is_label(left) else typed(right)
        return Opaque(("rel", sides, operators))
    if left[0] == "apply" and all(argument[0] == "sym" for argument in left[2]) and names(right) & names(left):
        return Function(left[1], tuple(argument[1] for argument in left[2]), right)
    if left[0] == "group" and right[0] == "group" and len(left[3]) == len(right[3]) and all(part[0] == "sym" for part in left[3]):
        return _system([(part[1], typed(value)) for part, value in zip(left[3], right[3], strict=True)])
    if is_label(left) and not (left[0] == "sym" and left[1] in names(right)):
        return Named(left, typed(right))
    if left[0] in ("group", "set", "matrix", "ratio") or right[0] in ("group", "set", "matrix", "ratio", "cases"):
        return Opaque(("rel", sides, operators))
    return Equation(left, right)


def is_label(node: Node) -> bool:
    """Whether the left side of an equation only names what is right of it: `x`, `f(2)`, `AB`, `|AB|`, `\\cos\\theta`."""
    if node[0] in ("sym", "apply", "big"):
        return True
    if node[0] in ("abs", "call"):
        return bool(names(node)) and not any(child[0] in ("add", "div", "pow") for child in children(node))
    if node[0] == "div":
        # dy/dx
        return all(part[0] == "mul" and part[1][0] in (("sym", "d"), ("sym", "\\partial")) for part in node[1:])
    if node[0] == "mul":
        return all(part[0] == "sym" and part[1][:1].isupper() for part in node[1])
    return False


# Other shapes.


def _ratio(node: Node) -> Value:
    return Parts("ratio", node[1])


def _matrix(node: Node) -> Value:
    return Matrix(node[1])


def _cases(node: Node) -> Value:
    rows = [tuple(cell[1] if cell[0] == "list" else (("", cell),) for cell in row) for row in node[1]]
    flat = [[item for cell in row for _, item in cell] for row in rows]
    if all(len(row) == 2 for row in flat) and not all(row[0][0] == "rel" for row in flat):
        return Cases(tuple((typed(value), typed(condition)) for value, condition in flat))
    return _list(
        ("list", tuple(("," if number else "", item) for number, item in enumerate(item for row in flat for item in row)))
    )


def _words(node: Node) -> Value:
    return Text(node[1])


def _set_of(node: Node) -> Value:
    return REALS if node[1] == "R" else Opaque(node)


def _set_operation(node: Node) -> Value:
    sides = [typed(part) for part in node[1:]]
    region = regions.combine(node[0], *sides)
    return Opaque(node) if region is None else region


def _builder(node: Node) -> Value:
    """`\\{x \\mid x>5\\}` is the region that its condition describes."""
    condition = typed(node[2])
    variable = node[1][1][0] if node[1][0] == "rel" else node[1]
    if isinstance(condition, Region) and condition.name == variable and not _is_plain_domain(node[1]):
        return Opaque(node)
    if isinstance(condition, Region) and condition.name == variable:
        return Region(condition.intervals)
    if isinstance(condition, Named) and condition.name == variable:
        inner = condition.value
        return Collection("set", _flat(inner)) if isinstance(inner, Number | Collection) else inner
    return Opaque(node)


def _is_plain_domain(node: Node) -> bool:
    """Whether a set-builder takes its variable from all reals: `x` or `x \\in \\mathbb{R}`."""
    return node[0] == "sym" or (node[0] == "rel" and node[2] == ("in",) and node[1][1] == ("set of", "R"))


def _based(node: Node) -> Value:
    raise Unreadable("a number with a subscript")


def _dots(node: Node) -> Value:
    return Text("...")


def _nothing(node: Node) -> Value:
    raise Unreadable("nothing")


_READERS: dict[str, Callable[[Node], Value]] = {
    "quantity": _quantity, "deg": _degrees, "neg": _signed, "add": _sum,
    "group": _group, "set": _set, "list": _list, "rel": _relation,
    "ratio": _ratio, "matrix": _matrix, "cases": _cases, "words": _words,
    "set of": _set_of, "cup": _set_operation, "cap": _set_operation,
    "setminus": _set_operation, "builder": _builder, "based": _based, "dots": _dots, "nothing": _nothing,
}  # fmt: skip
