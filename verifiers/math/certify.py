"""Certified equality of two expressions.

Both are computed where their letters stand for fixed numbers: exactly while that is possible, else as balls at rising precision.
They are unequal as soon as two balls are disjoint, and equal where all agree to 80 decimal digits. What is not decided is None.
Where no complex unit occurs, roots and logarithms are real; a place where the gold has no value says nothing.
"""

from collections.abc import Callable, Iterator
from fractions import Fraction
from functools import lru_cache
from hashlib import blake2b

from tulu.verifiers.math import balls
from tulu.verifiers.math.balls import TooLarge, Undefined, Unsure
from tulu.verifiers.math.evaluate import Evaluator, NotANumber, Value
from tulu.verifiers.math.nodes import Node, children, holds

QUICK, DEEP = (110, 420), (110, 420, 1700, 7000, 28_000)
"""Precisions in bits: at once, and in a process that can be stopped."""
_EQUAL_BITS = 266
"""Two values are equal where they differ by less than 2^-266 of both, which is 1e-80."""
_WORK = {QUICK: 4_000, DEEP: 100_000}
"""Steps that one computation may take."""
_ENOUGH = 3
"""Places at which expressions with letters have to agree."""
Point = Callable[[str], Fraction]


def names(node: Node) -> frozenset[str]:
    """The letters, unknown functions and unevaluated parts of an expression."""
    return frozenset(_names(node))


def _names(node: Node) -> Iterator[str]:
    if node[0] in ("sym", "big"):
        yield node[1] if node[0] == "sym" else f"big {node[1]}"
        return
    if node[0] == "apply":
        yield f"{node[1]}()"
    for child in children(node):
        yield from _names(child)


def _digest(name: str) -> int:
    """A number that depends on nothing but the name."""
    return int.from_bytes(blake2b(name.encode("utf-8", "replace"), digest_size=6).digest(), "big")


def _scatter(low: Fraction, high: Fraction, signs: str, whole: bool, number: int) -> Point:
    """A place: every name has its own number between two bounds."""

    def at(name: str) -> Fraction:
        code = _digest(f"{number} {name}")
        share = Fraction(code % 999_983, 999_983)
        value = low + (high - low) * share
        if whole:
            return Fraction(round(value))
        negative = signs == "-" or (signs == "+-" and code // 999_983 % 2)
        return -value if negative else value

    return lru_cache(maxsize=256)(at)


_PLACES: tuple[Point, ...] = tuple(
    _scatter(Fraction(low), Fraction(high), signs, whole, number)
    for number, (low, high, signs, whole) in enumerate(
        [
            ("1/2", "3/2", "+", False),
            ("1/2", "2", "-", False),
            ("1", "3", "+-", False),
            ("1/20", "2/5", "+", False),
            ("5", "40", "+", False),
            ("1/20", "2/5", "+-", False),
            ("2", "7", "+", True),
            ("3", "8", "+", True),
            ("4", "13", "+", True),
        ]
    )
)


class _Sides:
    """Two expressions that are compared, and how they are computed."""

    def __init__(self, answer: Node, gold: Node, base: Fraction | None, precisions: tuple[int, ...]) -> None:
        self._answer, self._gold, self._base, self._precisions = answer, gold, base, precisions
        self._complex = holds(answer, "i") or holds(gold, "i")
        self._numeric = not (names(answer) | names(gold))
        self._lenient = _has_even_logarithm(gold)

    def _value(self, node: Node, place: Point, prec: int) -> Value:
        work = _WORK[self._precisions]
        try:
            return Evaluator(place, prec, self._complex, self._base, work).value(node)
        except Undefined:
            if not self._numeric or self._complex:
                raise
            return Evaluator(place, prec, True, self._base, work).value(node)

    def at(self, place: Point) -> bool | str | None:
        """Whether both sides agree at a place; None where that is not decided, "nothing" where the place says nothing."""
        for prec in self._precisions:
            try:
                gold = self._value(self._gold, place, prec)
            except (Undefined, TooLarge):
                # A gold without a finite value equals nothing that is spelled otherwise.
                return False if self._numeric else "nothing"
            except Unsure:
                continue
            try:
                answer = self._value(self._answer, place, prec)
            except Undefined:
                return "nothing" if self._lenient else False
            except TooLarge:
                return False if self._numeric else "nothing"
            except Unsure:
                continue
            if isinstance(answer, Fraction) and isinstance(gold, Fraction):
                return answer == gold
            a, b = (balls.of_fraction(side, prec) if isinstance(side, Fraction) else side for side in (answer, gold))
            same = balls.same(a, b, prec, _EQUAL_BITS)
            if same is not None:
                return same
        return None

    def compare(self) -> bool | None:
        """Whether both sides are equal."""
        agreed, undecided = 0, False
        for place in _PLACES[:1] if self._numeric else _PLACES:
            result = self.at(place)
            if result is None and self._precisions == DEEP:
                # High precision costs much, and what one place leaves open is not a 1.
                return None
            if result is False:
                return False
            undecided = undecided or result is None
            agreed += result is True
        if undecided:
            return None
        return True if agreed >= (1 if self._numeric else _ENOUGH) else None


def _has_even_logarithm(node: Node) -> bool:
    """Whether a logarithm of an even power occurs: people write `2 log x` for `log x^2`."""
    if node[0] in ("log", "call") and node[-1][0] == "pow" and node[-1][2][0] == "num" and node[-1][2][1] % 2 == 0:
        return True
    return any(map(_has_even_logarithm, children(node)))


@lru_cache(maxsize=16_384)
def same(answer: Node, gold: Node, deep: bool = False) -> bool | None:
    """Whether two expressions are equal; None where that is not decided."""
    if answer == gold:
        return True
    precisions = DEEP if deep else QUICK
    bases: tuple[Fraction | None, ...] = (Fraction(10), None) if _open_log(answer) or _open_log(gold) else (None,)
    try:
        # A logarithm without a base is read as both the decimal and the natural one, but alike on both sides.
        results = [_Sides(answer, gold, base, precisions).compare() for base in bases]
    except (NotANumber, RecursionError):
        return False
    return True if True in results else None if None in results else False


def _open_log(node: Node) -> bool:
    return (node[0] == "log" and node[1] is None) or any(map(_open_log, children(node)))


def proportional(left: Node, right: Node, positive: bool = False) -> bool | None:
    """Whether one expression is the other times a number that is not zero, or is positive; both must vary with their letters."""
    if names(left) != names(right):
        return False
    if left == right:
        return True
    prec, ratios, values = QUICK[1], list[Value](), list[Value]()
    imaginary = holds(left, "i") or holds(right, "i")
    for place in _PLACES[:6]:
        evaluator = Evaluator(place, prec, imaginary, None, 2 * _WORK[QUICK])
        try:
            a, b = evaluator.value(left), evaluator.value(right)
            ratio = evaluator.over(a, b)
        except (Undefined, TooLarge, Unsure):
            continue
        except (NotANumber, RecursionError):
            return False
        size = ratio if isinstance(ratio, Fraction) else balls.sign(ratio.re) if ratio.is_real else 1
        if not size or _agree(ratio, [*ratios, ratio][0], prec) is not True or (positive and size < 0):
            return False
        ratios.append(ratio)
        values.append(b)
    # x = x + 1 is -1 = 0 at every place, and says nothing about x.
    varies = any(_agree(value, values[0], prec) is False for value in values[1:])
    return True if len(ratios) >= _ENOUGH and varies else None


def _agree(a: Value, b: Value, prec: int) -> bool | None:
    if isinstance(a, Fraction) and isinstance(b, Fraction):
        return a == b
    left, right = (balls.of_fraction(side, prec) if isinstance(side, Fraction) else side for side in (a, b))
    return balls.same(left, right, prec, _EQUAL_BITS)


def order(a: Node, b: Node) -> int | None:
    """-1 where one number is certainly smaller than another, 1 where it is larger, 0 where they are equal; None where unknown."""
    if names(a) | names(b):
        return None
    if same(a, b):
        return 0
    try:
        difference = Evaluator(_PLACES[0], QUICK[1], False, None, _WORK[QUICK]).value(("add", (a, ("neg", b))))
    except (Undefined, TooLarge, Unsure, NotANumber):
        return None
    if isinstance(difference, Fraction):
        return (difference > 0) - (difference < 0)
    return balls.sign(difference.re) if difference.is_real else None


def constant(node: Node) -> bool | None:
    """Whether an expression has the same value wherever its letters stand."""
    prec, values = QUICK[1], list[Value]()
    for place in _PLACES[:6]:
        try:
            values.append(Evaluator(place, prec, holds(node, "i"), None, 2 * _WORK[QUICK]).value(node))
        except (Undefined, TooLarge, Unsure):
            continue
        except (NotANumber, RecursionError):
            return False
        # A difference of nothing and something too small to tell is no difference.
        if _agree(_plus_one(values[-1], prec), _plus_one(values[0], prec), prec) is not True:
            return False
    return True if len(values) >= _ENOUGH else None


def _plus_one(value: Value, prec: int) -> Value:
    if isinstance(value, Fraction):
        return value + 1
    return balls.add(value, balls.of_fraction(Fraction(1), prec), prec)
