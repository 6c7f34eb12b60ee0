"""What an answer says, as a typed value: number, quantity, region of a line, collection, named value, system, relation, matrix,
function, cases, ratio, time, number in a base, option or text.
"""

from dataclasses import dataclass
from fractions import Fraction

from tulu.verifiers.math.nodes import Node
from tulu.verifiers.math.units import Unit


@dataclass(frozen=True, slots=True)
class Number:
    """An expression, with or without letters: `\\frac12`, `x^2+1`."""

    node: Node


@dataclass(frozen=True, slots=True)
class Quantity:
    """An expression with a unit, of which percent, degrees and things counted are some: `5 cm`, `90^\\circ`, `3 cats`."""

    node: Node
    unit: Unit


@dataclass(frozen=True, slots=True)
class Interval:
    """An interval of the real line; a missing bound is infinite."""

    low: Node | None
    high: Node | None
    low_closed: bool = False
    high_closed: bool = False


@dataclass(frozen=True, slots=True)
class Region:
    """A union of intervals: `(0,1)\\cup[2,3]`, `x\\ge2`; the name is that of a solved inequality."""

    intervals: tuple[Interval, ...]
    name: Node | None = None


@dataclass(frozen=True, slots=True)
class Collection:
    """Several values: a tuple in brackets, a set, or a bare list whose order does not count."""

    kind: str
    """tuple, set or bare."""
    items: "tuple[Value, ...]"
    brackets: str = ""


@dataclass(frozen=True, slots=True)
class Named:
    """A value and what it is called: `x=5`, `P(A)=\\frac12`."""

    name: Node
    value: "Value"


@dataclass(frozen=True, slots=True)
class System:
    """Values of several names, in the order of the names: `x=1, y=2`."""

    pairs: "tuple[tuple[str, Value], ...]"


@dataclass(frozen=True, slots=True)
class Equation:
    """An equation that is not solved."""

    left: Node
    right: Node


@dataclass(frozen=True, slots=True)
class Inequality:
    """An inequality that is not solved, as what is positive: `x+y<1` is 1-x-y > 0."""

    positive: Node
    strict: bool


@dataclass(frozen=True, slots=True)
class Congruence:
    """`x \\equiv 3 \\pmod 7`"""

    left: Node
    right: Node
    modulus: Node


@dataclass(frozen=True, slots=True)
class Matrix:
    """A matrix, or a vector written as one."""

    rows: tuple[tuple[Node, ...], ...]


@dataclass(frozen=True, slots=True)
class Function:
    """A function with its parameters: `f(x)=x^2`, `x\\mapsto x^2` with no name."""

    name: str
    parameters: tuple[str, ...]
    body: Node


@dataclass(frozen=True, slots=True)
class Cases:
    """Values under conditions."""

    rows: "tuple[tuple[Value, Value], ...]"


@dataclass(frozen=True, slots=True)
class Parts:
    """Numbers that belong together: a ratio `1:2`, or a time `4:30 p.m.`"""

    kind: str
    """ratio or time."""
    parts: tuple[Node, ...]
    half_day: str = ""


@dataclass(frozen=True, slots=True)
class Based:
    """Digits and the base that they are written in; the base is 0 where none is given."""

    digits: str
    base: int


@dataclass(frozen=True, slots=True)
class Option:
    """The letter of an option, and the value that stands behind it if any does: `(B) 5`."""

    letter: str
    value: "Value | None" = None


@dataclass(frozen=True, slots=True)
class Opaque:
    """A set or a relation that equals itself only, such as `A\\cup B` or `\\mathbb{Z}`."""

    node: Node


@dataclass(frozen=True, slots=True)
class Text:
    """Words, in one case and spacing."""

    words: str
    is_formula: bool = False
    """Whether it holds commands of a formula, which then could not be read."""


Value = (
    Number | Quantity | Region | Collection | Named | System | Equation | Inequality | Congruence | Matrix | Function |
    Cases | Parts
    | Based | Option | Opaque | Text
)  # fmt: skip

INFINITY: Node = ("const", "inf")
ZERO: Node = ("num", Fraction(0))
REALS = Region((Interval(None, None),))
