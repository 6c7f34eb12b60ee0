"""Intervals and solved inequalities as regions of the real line."""

from functools import cmp_to_key

from tulu.verifiers.math.certify import names, order
from tulu.verifiers.math.nodes import Node
from tulu.verifiers.math.tokens import Unreadable
from tulu.verifiers.math.values import Collection, Interval, Number, Region, Value

_FLIPPED = {"<": ">", ">": "<", "le": "ge", "ge": "le", "ne": "ne"}
_PLUS, _MINUS = ("const", "inf"), ("neg", ("const", "inf"))


def _bound(node: Node, lower: bool) -> Node | None:
    """A bound, which is missing where it is infinite on its side; Unreadable where it is infinite on the other."""
    if node in (_PLUS, _MINUS):
        if (node == _MINUS) != lower:
            raise Unreadable("an interval that ends at the wrong infinity")
        return None
    return node


def from_brackets(opening: str, closing: str, ends: tuple[Node, ...]) -> Region:
    """`[1,2)`, or `[1,2[` as it is written in France."""
    low, high = _bound(ends[0], True), _bound(ends[1], False)
    return Region((Interval(low, high, opening == "[" and low is not None, closing == "]" and high is not None),))


def from_relation(sides: tuple[Node, ...], operators: tuple[str, ...]) -> Region | None:
    """The region of `x>2`, `1<x\\le5` or `\\ge 5`; None where the inequality is not solved for one name."""
    if len(sides) == 2:
        left, right = sides
        operator = operators[0]
        if _is_name(right) and not _is_name(left):
            left, right, operator = right, left, _FLIPPED[operator]
        if left != ("nothing",) and (not _is_name(left) or names(left) & names(right) or right == ("nothing",)):
            return None
        name = None if left == ("nothing",) else left
        return Region(_half_line(operator, right), name)
    if len(sides) == 3 and _is_name(sides[1]) and not names(sides[1]) & (names(sides[0]) | names(sides[2])):
        if set(operators) <= {">", "ge"}:
            sides, operators = sides[::-1], tuple(_FLIPPED[operator] for operator in operators[::-1])
        if set(operators) <= {"<", "le"}:
            low, high = _bound(sides[0], True), _bound(sides[2], False)
            return Region(
                (Interval(low, high, operators[0] == "le" and low is not None, operators[1] == "le" and high is not None),),
                sides[1],
            )
    return None


def _is_name(node: Node) -> bool:
    return node[0] == "sym" or (node[0] == "apply" and bool(names(node)))


def _half_line(operator: str, bound: Node) -> tuple[Interval, ...]:
    if operator == "ne":
        return (Interval(None, bound), Interval(bound, None))
    if operator in ("<", "le"):
        high = _bound(bound, False)
        return (Interval(None, high, False, operator == "le" and high is not None),)
    low = _bound(bound, True)
    return (Interval(low, None, operator == "ge" and low is not None, False),)


def join(parts: list[Region], is_union: bool) -> Region | None:
    """Several solved inequalities in one name: `x<1 or x>2` is their union, `x>0, x<1` what they share."""
    if len({part.name for part in parts}) != 1:
        return None
    name = parts[0].name
    if is_union:
        return Region(tuple(interval for part in parts for interval in part.intervals), name)
    if name is None:
        return None
    result = parts[0]
    for part in parts[1:]:
        shared = _shared(result, part)
        if shared is None:
            return None
        result = shared
    return Region(result.intervals, name)


def _shared(a: Region, b: Region) -> Region | None:
    """What two regions share; None where their bounds cannot be put in order."""
    pieces = list[Interval]()
    for first in a.intervals:
        for second in b.intervals:
            low, low_closed = first.low, first.low_closed
            high, high_closed = first.high, first.high_closed
            if second.low is not None:
                compared = 1 if low is None else order(second.low, low)
                if compared is None:
                    return None
                if compared > 0:
                    low, low_closed = second.low, second.low_closed
                elif compared == 0:
                    low_closed = low_closed and second.low_closed
            if second.high is not None:
                compared = -1 if high is None else order(second.high, high)
                if compared is None:
                    return None
                if compared < 0:
                    high, high_closed = second.high, second.high_closed
                elif compared == 0:
                    high_closed = high_closed and second.high_closed
            if low is not None and high is not None:
                gap = order(low, high)
                if gap is None and first.low is None and second.high is None:
                    return None
                if gap == 1 or (gap == 0 and not (low_closed and high_closed)):
                    continue
            pieces.append(Interval(low, high, low_closed, high_closed))
    return Region(tuple(pieces)) if pieces else None


def as_region(value: Value) -> Region | None:
    """A value as a region: an interval that looks like a pair, or a set of points; None for anything else."""
    if isinstance(value, Region):
        return value
    if isinstance(value, Collection) and all(isinstance(item, Number) for item in value.items):
        nodes = [item.node for item in value.items if isinstance(item, Number)]
        if value.kind == "tuple" and len(nodes) == 2 and value.brackets in ("()", "[]"):
            closed = value.brackets == "[]"
            return Region((Interval(nodes[0], nodes[1], closed, closed),))
        if value.kind == "set":
            return Region(tuple(Interval(node, node, True, True) for node in nodes))
    return None


def combine(operator: str, left: Value, right: Value) -> Region | None:
    """The union, what is shared, or the difference of two regions; None where it cannot be said."""
    a, b = as_region(left), as_region(right)
    if a is None or b is None:
        return None
    if operator == "cup":
        return Region(a.intervals + b.intervals)
    if operator == "cap":
        return _shared(a, b)
    points = [interval.low for interval in b.intervals if interval.low is not None and interval.low == interval.high]
    if len(points) != len(b.intervals) or any(order(point, points[0]) is None for point in points):
        return None
    rest: Region | None = a
    for point in sorted(points, key=cmp_to_key(_before)):
        rest = _shared(rest, Region((Interval(None, point), Interval(point, None)))) if rest else None
    return rest


def _before(one: Node, two: Node) -> int:
    return order(one, two) or 0
