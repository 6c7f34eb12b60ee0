"""Turns the tree of an answer into a typed value."""

import re
from collections.abc import Callable
from fractions import Fraction
from functools import lru_cache

from tulu.verifiers.math import regions
from tulu.verifiers.math.certify import names, same
from tulu.verifiers.math.expressions import Node, children, holds
from tulu.verifiers.math.statements import Statements
from tulu.verifiers.math.tokens import Token, Unreadable, tokenize
from tulu.verifiers.math.units import COUNTED, DEGREE, PERCENT
from tulu.verifiers.math.values import (
    REALS,
    Based,
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
    Option,
    Parts,
    Quantity,
    Region,
    System,
    Text,
    Value,
)

_TIME = re.compile(r"(\d{1,2}):(\d{2})(?::(\d{2}))?\s*(?:([ap])\.?\s?m\.?)?", re.IGNORECASE)  # 12:00, 4:30 p.m.
_BASED = re.compile(r"\(?([0-9A-Fa-f]+)\)?_(\d{1,2}|two|three|four|five|six|seven|eight|nine|ten|sixteen)")  # 1A_16, (1010)_two
_BASES = {name: base for base, name in enumerate("two three four five six seven eight nine ten".split(), 2)} | {"sixteen": 16}
_OPTION = re.compile(r"(?:option|choice|answer)?\s*[(\[]?\s*([A-Z])\s*[)\]]?\s*[.:]?", re.IGNORECASE)  # (B), option B, B.
_PAIRS = ("()", "[]", "<>")
_LEAD_END = frozenset("is are equals be becomes".split())
_NEGATIONS = frozenset("not never cannot neither nor n't don't doesn't isn't aren't wasn't no without except".split())
_LONGEST_LEAD = 12
"""Words of a sentence in front of an answer."""


@lru_cache(maxsize=32_768)
def read(text: str) -> tuple[Value, ...]:
    """The readings of an answer: one, or two where a slash can be read in two ways. What cannot be read is text."""
    try:
        tokens = _without_lead(tokenize(text))
    except Unreadable:
        return (as_text(text, ()),)
    joined = "".join((" " if token.spaced else "") + token.text for token in tokens).strip().strip("{}").rstrip(".,;")
    if special := _special(joined.replace("{", "").replace("}", "")):
        return (special,)
    if option := _option(tokens):
        return (option,)
    values, flags = list[Value](), [(False, False)]
    for tight, plain_units in flags:
        parser = Statements(list(tokens), tight, plain_units)
        try:
            values.append(typed(parser.whole()))
        except (Unreadable, RecursionError, ValueError):
            if not plain_units and parser.unit_letters:
                flags.append((tight, True))
            continue
        if len(flags) == 1:
            flags += [(True, False)] * parser.ambiguous + [(False, True)] * parser.unit_letters
    return tuple(values) or (_labelled(tokens) or as_text(text, tuple(tokens)),)


def _labelled(tokens: list[Token]) -> Value | None:
    """The value behind a label that is no formula of ours, such as `P(A|B) = \\frac13`; None where there is none."""
    texts = [token.text for token in tokens]
    if texts.count("=") != 1 or texts[0] == "=" or tokens[0].kind in ("number", "mark") or {",", "or", "and", "if", "<", ">"} & set(texts):
        return None
    place = texts.index("=")
    try:
        return Named(("sym", " ".join(texts[:place])), typed(Statements(tokens[place + 1 :], False).whole()))
    except (Unreadable, RecursionError, ValueError):
        return None


def as_text(text: str, tokens: tuple[Token, ...]) -> Text:
    """An answer as words, in one case and spacing."""
    if not tokens:
        return Text(" ".join(text.split()), is_formula="\\" in text)
    words = "".join((" " if token.spaced or token.kind == "command" else "") + token.text for token in tokens)
    is_formula = any(token.kind == "command" or token.text in ("^", "_") for token in tokens)
    if is_formula:
        return Text(" ".join(words.split()), True)
    return Text(" ".join(words.replace("{", "").replace("}", "").casefold().split()).strip("\"'`()").rstrip(".!?,; "))


def _without_lead(tokens: list[Token]) -> list[Token]:
    """The tokens behind `The answer is`, `Answer:` and the like; all of them where no such words stand in front."""
    tokens = _trimmed(tokens)
    words = 0
    for position, token in enumerate(tokens[: 2 * _LONGEST_LEAD]):
        is_word = token.kind in ("word", "run") or (token.kind == "letter" and token.text in "aAI" and token.spaced)
        if token.kind == "mark" and token.text == ":" and words and token is not tokens[-1]:
            return _trimmed(tokens[position + 1 :]) if _is_prose(tokens[:position]) else tokens
        if not is_word and not (token.kind in ("mark", "letter", "number") and words):
            break
        words += is_word
        if is_word and token.text.lower() in _LEAD_END and position and position + 1 < len(tokens):
            following = tokens[position + 1]
            if following.text.lower() in _NEGATIONS or any(word.text.lower() in _NEGATIONS for word in tokens[:position]):
                return tokens
            rest = _trimmed(tokens[position + 1 :])
            return rest if _is_prose(tokens[:position]) and rest else tokens
    return tokens


def _is_prose(tokens: list[Token]) -> bool:
    texts = [token.text.lower() for token in tokens]
    return not any(text in _NEGATIONS for text in texts) and any(token.kind in ("word", "run") and len(token.text) > 1 for token in tokens)


def _trimmed(tokens: list[Token]) -> list[Token]:
    """Tokens without full stops, quotes, bold marks and `=` around them."""
    start, end = 0, len(tokens)
    while start < end and tokens[start].text in ("^", "*", '"', "'", "`", "=", "approx", ",", ":", "to", "Rightarrow"):
        start += 1
    while end > start and tokens[end - 1].text in (".", "^", "*", '"', "`", ",", ";", "\\\\", ":"):
        end -= 1
    return tokens[start:end]


def _special(joined: str) -> Value | None:
    """A number word, a time or a number in a base; None for anything else."""
    if (number := COUNTED.get(joined.lower())) is not None:
        return Number(("num", Fraction(number)))
    if time := _TIME.fullmatch(joined):
        return Parts("time", tuple(("num", Fraction(part or "0")) for part in time.groups()[:3]), (time[4] or "").lower())
    if based := _BASED.fullmatch(joined.replace(" ", "").replace("{", "").replace("}", "")):
        base = _BASES.get(based[2]) or int(based[2])
        if 2 <= base <= 36:
            return Based(based[1].upper(), base)
    return None


def _option(tokens: list[Token]) -> Option | None:
    """The option that an answer begins with: `(A)`, `A) 5`, `A: 5`, `option A`; None where it begins with none."""
    joined, ends = "", list[int]()
    for token in tokens[:4]:
        joined += token.text if token.kind != "run" or len(token.text) > 1 else token.text
        ends.append(len(joined))
    match = _OPTION.match(joined)
    if not match or match.end() not in ends or not match[1].isupper():
        return None
    used, marked = ends.index(match.end()) + 1, joined[: match.end()] != match[1]
    rest = tokens[used:]
    if not rest:
        return Option(match[1])
    if not marked or not (rest[0].spaced or joined[match.end() - 1] in ".:)") or rest[0].text in "+-*/^_!'=([,<>|":
        return None
    if rest[0].kind == "mark" or (joined[match.end() - 1] == ")" and not (rest[0].spaced or joined[0] != "(" or rest[0].style)):
        return None
    words = [token.text for token in rest]
    if any(word in ("or", "and", "nor") for word in words) or any(re.fullmatch("[A-Z]", word) for word in words):
        return None
    return Option(match[1], _rest(rest))


def _rest(tokens: list[Token]) -> Value:
    try:
        return typed(Statements(list(tokens), False).whole())
    except (Unreadable, RecursionError, ValueError):
        return as_text("", tuple(tokens))


# From a tree to a value.


def typed(node: Node) -> Value:
    """The typed value of a tree; Unreadable where it means nothing."""
    if holds(node, "pm"):
        return _both_signs(node)
    reader = _READERS.get(node[0])
    return reader(node) if reader else Number(node)


def _both_signs(node: Node) -> Value:
    plus, minus = (typed(_with_signs(node, sign)) for sign in (1, -1))
    parts = [part for value in (plus, minus) for part in (value.items if isinstance(value, Collection) and value.kind == "bare" else (value,))]
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
    kept = [value for value in values if not _is_membership(value)]
    values = kept or values
    if len(values) == 1:
        return values[0]
    named = [value for value in values if isinstance(value, Named)]
    if named and len(named) == len(values):
        return _named(named)
    if len(named) == 1 and values[0] is named[0] and isinstance(named[0].value, Number | Quantity):
        # x = 1 or 2
        return Named(named[0].name, Collection("set", (named[0].value, *values[1:])))
    return _bare(tuple(values))


def _bare(values: tuple[Value, ...]) -> Value:
    if values and all(isinstance(value, Named) for value in values):
        return _named([value for value in values if isinstance(value, Named)])
    return Collection("bare", tuple(part for value in values for part in _flat(value)))


def _is_membership(value: Value) -> bool:
    """`k \\in \\mathbb{Z}` beside a formula."""
    return isinstance(value, Named) and isinstance(value.value, Opaque) and value.value.node[0] == "set of" and value.name[0] == "sym"


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
    return _list(("list", tuple(("," if number else "", item) for number, item in enumerate(item for row in flat for item in row))))


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
    "quantity": _quantity, "deg": _degrees, "neg": _signed, "add": _sum, "group": _group, "set": _set, "list": _list, "rel": _relation,
    "ratio": _ratio, "matrix": _matrix, "cases": _cases, "words": _words, "set of": _set_of, "cup": _set_operation, "cap": _set_operation,
    "setminus": _set_operation, "builder": _builder, "based": _based, "dots": _dots, "nothing": _nothing,
}  # fmt: skip
