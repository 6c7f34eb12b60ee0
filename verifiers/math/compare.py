"""Whether two typed values are the same: first their types, then what they hold.

What is forgiven is forgiven on both sides: a missing unit or name, and the kind of brackets where one side wrote none.
"""

from collections.abc import Callable, Sequence
from fractions import Fraction
from itertools import permutations

from tulu.verifiers.math import certify
from tulu.verifiers.math.certify import names
from tulu.verifiers.math.forgive import peel, without_constant
from tulu.verifiers.math.literals import is_literal, is_worked_out
from tulu.verifiers.math.nodes import Node
from tulu.verifiers.math.regions import as_region
from tulu.verifiers.math.units import DEGREE, PERCENT, conversion
from tulu.verifiers.math.values import (
    ZERO,
    Based,
    Cases,
    Collection,
    Congruence,
    Equation,
    Function,
    Inequality,
    Interval,
    Matrix,
    Named,
    Number,
    Opaque,
    Option,
    Parts,
    Quantity,
    Region,
    System,
    Text,
    Value,
)

Answer = bool | None
"""True, False, or None where it is not decided."""
_MOST_PARTS = 40


class Comparison:
    """Compares values; `deep` allows high precisions."""

    def __init__(self, deep: bool) -> None:
        self._deep = deep

    def same(self, answer: Value, gold: Value) -> Answer:
        """Whether an answer is the same as a gold."""
        if answer == gold and not isinstance(answer, Text):
            return True
        for peeled, other in ((peel(answer, gold), gold), (answer, peel(gold, answer))):
            if peeled is not answer and other is gold and peeled is not None:
                return self.same(peeled, gold)
            if other is not gold and other is not None:
                return self.same(answer, other)
        if (
            isinstance(answer, Region | Collection)
            and isinstance(gold, Region | Collection)
            and (isinstance(answer, Region) or isinstance(gold, Region))
        ):
            return self._regions(answer, gold)
        if isinstance(answer, Number | Quantity) and isinstance(gold, Number | Quantity):
            return self._quantities(answer, gold)
        if isinstance(answer, System | Collection) and isinstance(gold, System | Collection) and type(answer) is not type(gold):
            return self._system_and_collection(answer, gold)
        if isinstance(answer, Matrix | Collection) and isinstance(gold, Matrix | Collection) and type(answer) is not type(gold):
            return self._vectors(answer, gold)
        if type(answer) is not type(gold):
            return self._mixed_types(answer, gold)
        compare: Callable[[Comparison, Value, Value], Answer] = _SAME_TYPE[type(answer)]
        return compare(self, answer, gold)

    def _nodes(self, answer: Node, gold: Node) -> Answer:
        return certify.same(answer, gold, self._deep)

    def all_of(self, results: Sequence[Answer]) -> Answer:
        """False where any is False, else None where any is None."""
        return False if False in results else None if None in results else True

    # Numbers and quantities.

    def _quantities(self, answer: Number | Quantity, gold: Number | Quantity) -> Answer:
        a, b = answer.node, gold.node
        if is_literal(b) and not is_worked_out(a):
            return False
        if isinstance(answer, Quantity) and isinstance(gold, Quantity):
            factor = conversion(answer.unit, gold.unit)
            if factor is None:
                return False
            return self._nodes(a if factor == 1 else ("scaled", a, factor), b)
        if isinstance(answer, Quantity) or isinstance(gold, Quantity):
            unit = answer.unit if isinstance(answer, Quantity) else gold.unit if isinstance(gold, Quantity) else PERCENT
            bare = self._nodes(a, b)
            if bare is not True and unit in (PERCENT, DEGREE):
                kind = "scaled" if unit == PERCENT else "deg"
                wrap: Callable[[Node], Node] = (
                    (lambda node: (kind, node, Fraction(1, 100))) if kind == "scaled" else (lambda node: (kind, node))
                )
                full = self._nodes(wrap(a), b) if isinstance(answer, Quantity) else self._nodes(a, wrap(b))
                return full or (None if None in (full, bare) else False)
            return bare
        same = self._nodes(a, b)
        if same is False and (families := (without_constant(a), without_constant(b))) and None not in families:
            return self._differ_by_constant(*families)
        return same

    def _differ_by_constant(self, answer: Node | None, gold: Node | None) -> Answer:
        """Whether two antiderivatives, their constants taken off, differ by a constant only."""
        if answer is None or gold is None or not names(answer) & names(gold):
            return False
        return certify.constant(("add", (answer, ("neg", gold))))

    # Several values.

    def _collections(self, answer: Collection, gold: Collection) -> Answer:
        if len(answer.items) != len(gold.items) and not (answer.kind == gold.kind == "set" or "set" in (answer.kind, gold.kind)):
            return False
        kinds = {answer.kind, gold.kind}
        if kinds == {"tuple", "set"}:
            return False
        if kinds & {"tuple"} or _has_dots(answer) or _has_dots(gold):
            brackets = {answer.brackets, gold.brackets} - {"<>"}
            if "[]" in brackets and len(brackets) > 1:
                return False
            if len(answer.items) != len(gold.items):
                return False
            return self.all_of([self.same(a, b) for a, b in zip(answer.items, gold.items, strict=True)])
        return self._unordered(answer.items, gold.items)

    def _unordered(self, answer: Sequence[Value], gold: Sequence[Value]) -> Answer:
        """Whether every value of one side has one of the other, and the other way round."""
        if not answer or not gold:
            return len(answer) == len(gold)
        if max(len(answer), len(gold)) > _MOST_PARTS:
            return (
                self.all_of([self.same(a, b) for a, b in zip(answer, gold, strict=True)]) if len(answer) == len(gold) else False
            )
        table = [[self.same(a, b) for b in gold] for a in answer]
        lines = [*table, *(list(column) for column in zip(*table, strict=True))]
        if any(True not in line and None not in line for line in lines):
            return False
        if any(True not in line for line in lines):
            return None
        # Every value has its partner; values that repeat have to repeat on both sides.
        return True if len(answer) == len(gold) and all(line.count(True) == 1 for line in lines) else self._multiset(table)

    def _multiset(self, table: list[list[Answer]]) -> Answer:
        if len(table) != len(table[0]):
            return False
        partners = [sorted(position for position, same in enumerate(line) if same) for line in table]
        groups = {tuple(line): sum(other == line for other in partners) for line in partners}
        return all(len(line) == count for line, count in groups.items())

    def _system_and_collection(self, answer: Value, gold: Value) -> Answer:
        """`x=1, y=2` is (1,2); `x_1=1, x_2=2` is {1,2} as well."""
        system, other = (answer, gold) if isinstance(answer, System) else (gold, answer)
        assert isinstance(system, System)
        assert isinstance(other, Collection)
        values = tuple(value for _, value in system.pairs)
        if any(isinstance(item, Named | Equation) for item in other.items):
            return False
        one_letter = len({name.split("_")[0] for name, _ in system.pairs}) == 1 and all("_" in name for name, _ in system.pairs)
        if (other.kind == "set" and not one_letter) or other.brackets == "[]":
            return False
        kind = "bare" if one_letter and other.kind != "tuple" else "tuple"
        left = Collection(kind, values, other.brackets)
        right = Collection(other.kind if kind == "tuple" and other.kind == "tuple" else kind, other.items, other.brackets)
        return self._collections(left, right) if system is answer else self._collections(right, left)

    def _systems(self, answer: System, gold: System) -> Answer:
        if [name for name, _ in answer.pairs] != [name for name, _ in gold.pairs]:
            return False
        return self.all_of([self.same(a, b) for (_, a), (_, b) in zip(answer.pairs, gold.pairs, strict=True)])

    def _regions(self, answer: Value, gold: Value) -> Answer:
        if isinstance(answer, Region) and isinstance(gold, Region) and answer.name and gold.name and answer.name != gold.name:
            return False
        a, b = as_region(answer), as_region(gold)
        if a is None or b is None or len(a.intervals) != len(b.intervals):
            return False
        if len(a.intervals) > 6:
            return self.all_of([self._interval(one, other) for one, other in zip(a.intervals, b.intervals, strict=True)])
        results = [
            self.all_of([self._interval(one, other) for one, other in zip(order, b.intervals, strict=True)])
            for order in permutations(a.intervals)
        ]
        return True if True in results else None if None in results else False

    def _interval(self, answer: Interval, gold: Interval) -> Answer:
        if (answer.low_closed, answer.high_closed) != (gold.low_closed, gold.high_closed):
            return False
        results = list[Answer]()
        for a, b in ((answer.low, gold.low), (answer.high, gold.high)):
            results.append(a is b if a is None or b is None else self._nodes(a, b))
        return self.all_of(results)

    def _vectors(self, answer: Value, gold: Value) -> Answer:
        """A vector as a matrix of one row or column, and as a tuple."""
        matrix, other = (answer, gold) if isinstance(answer, Matrix) else (gold, answer)
        assert isinstance(matrix, Matrix)
        assert isinstance(other, Collection)
        entries = [node for row in matrix.rows for node in row]
        if other.kind != "tuple" or 1 not in (len(matrix.rows), len(matrix.rows[0])) or len(entries) != len(other.items):
            return False
        pairs = zip((Number(node) for node in entries), other.items, strict=True)
        return self.all_of([self.same(a, b) if matrix is answer else self.same(b, a) for a, b in pairs])

    def _matrices(self, answer: Matrix, gold: Matrix) -> Answer:
        if [len(row) for row in answer.rows] != [len(row) for row in gold.rows]:
            return False
        pairs = [pair for a, b in zip(answer.rows, gold.rows, strict=True) for pair in zip(a, b, strict=True)]
        return self.all_of([self._nodes(a, b) for a, b in pairs])

    # Relations and functions.

    def _named(self, answer: Named, gold: Named) -> Answer:
        same_name = answer.name == gold.name or certify.same(answer.name, gold.name)
        return self.same(answer.value, gold.value) if same_name else False

    def _equations(self, answer: Equation, gold: Equation) -> Answer:
        if {answer.left, answer.right} == {gold.left, gold.right}:
            return True
        if not _equation_letters(answer) or not _equation_letters(gold):
            return False
        return certify.proportional(_difference(answer), _difference(gold))

    def _inequalities(self, answer: Inequality, gold: Inequality) -> Answer:
        return certify.proportional(answer.positive, gold.positive, True) if answer.strict == gold.strict else False

    def _congruences(self, answer: Congruence, gold: Congruence) -> Answer:
        same = self.all_of([self._nodes(answer.left, gold.left), self._nodes(answer.modulus, gold.modulus)])
        if not same:
            return same
        step = ("div", ("add", (answer.right, ("neg", gold.right))), gold.modulus)
        return self._nodes(("floor", step), step) if not names(step) else self._nodes(answer.right, gold.right)

    def _functions(self, answer: Function, gold: Function) -> Answer:
        if len(answer.parameters) != len(gold.parameters) or (answer.name and gold.name and answer.name != gold.name):
            return False
        renamed = dict(zip(answer.parameters, gold.parameters, strict=True))
        return self._nodes(_renamed(answer.body, renamed), gold.body)

    def _cases(self, answer: Cases, gold: Cases) -> Answer:
        if len(answer.rows) != len(gold.rows):
            return False
        answers, golds = ([Collection("tuple", row) for row in value.rows] for value in (answer, gold))
        return self._unordered(answers, golds)

    # What has no parts.

    def _parts(self, answer: Parts, gold: Parts) -> Answer:
        if answer.kind != gold.kind or len(answer.parts) != len(gold.parts):
            return False
        if answer.kind == "time":
            return answer.parts == gold.parts and (not answer.half_day or not gold.half_day or answer.half_day == gold.half_day)
        if any(part == ("dots",) for part in (*answer.parts, *gold.parts)):
            return self.all_of(
                [a == b if ("dots",) in (a, b) else self._nodes(a, b) for a, b in zip(answer.parts, gold.parts, strict=True)]
            )
        first, other = answer.parts[0], gold.parts[0]
        zeros = [[self._nodes(part, ZERO) for part in value.parts] for value in (answer, gold)]
        if zeros[0] != zeros[1] or True in zeros[0][:1]:
            # 0:0 would be proportional to everything.
            return self.all_of([self._nodes(a, b) for a, b in zip(answer.parts, gold.parts, strict=True)])
        products = [(("mul", (a, other)), ("mul", (b, first))) for a, b in zip(answer.parts[1:], gold.parts[1:], strict=True)]
        return self.all_of([self._nodes(a, b) for a, b in products])

    def _options(self, answer: Option, gold: Option) -> Answer:
        return answer.letter == gold.letter

    def _texts(self, answer: Text, gold: Text) -> Answer:
        return bool(answer.words) and answer.words == gold.words

    def _never(self, answer: Value, gold: Value) -> Answer:
        return answer == gold

    def _mixed_types(self, answer: Value, gold: Value) -> Answer:
        for one, other in ((answer, gold), (gold, answer)):
            if isinstance(one, Based) and isinstance(other, Number):
                return other.node == ("num", Fraction(one.digits)) if one.digits.isdigit() else False
            if isinstance(one, Equation) and isinstance(other, Named):
                named = Equation(other.name, other.value.node) if isinstance(other.value, Number) else None
                return self._equations(one, named) if named else False
        return False


def _equation_letters(equation: Equation) -> bool:
    return bool(names(equation.left) | names(equation.right))


def _difference(equation: Equation) -> Node:
    return ("add", (equation.left, ("neg", equation.right)))


def _renamed(node: Node, renamed: dict[str, str]) -> Node:
    if node[0] == "sym":
        return ("sym", renamed.get(node[1], node[1]))

    def changed(part: object) -> object:
        if not isinstance(part, tuple) or not part or type(part) is not tuple:
            return part
        return _renamed(part, renamed) if isinstance(part[0], str) else tuple(map(changed, part))

    return (node[0], *(changed(part) for part in node[1:]))


def _has_dots(value: Collection) -> bool:
    return any(isinstance(item, Text) and item.words == "..." for item in value.items)


_SAME_TYPE: dict[type, Callable[..., Answer]] = {
    Collection: Comparison._collections, Named: Comparison._named, System: Comparison._systems, Equation: Comparison._equations,
    Inequality: Comparison._inequalities, Congruence: Comparison._congruences,
    Matrix: Comparison._matrices, Function: Comparison._functions,
    Cases: Comparison._cases, Parts: Comparison._parts, Based: Comparison._never,
    Option: Comparison._options, Opaque: Comparison._never,
    Text: Comparison._texts,
}  # fmt: skip
