# ruff: noqa: E501 (many short forms on a line)
"""Random answers by small grammars: mathematics, data, queries, options and text."""

import json
import random
from collections.abc import Callable
from typing import Any

Grammar = Callable[[random.Random], str]
_LEAVES = (
    "0",
    "1",
    "2",
    "3",
    "-1",
    "x",
    "y",
    "n",
    "\\pi",
    "e",
    "i",
    "\\infty",
    "0.5",
    "10",
    "C",
    "\\theta",
    "a_1",
    "12",
    "100",
    "90^\\circ",
    "5\\%",
)
_UNARY = (
    "-{0}", "\\sqrt{{{0}}}", "\\frac{{1}}{{{0}}}", "{0}!", "|{0}|", "\\ln {0}", "\\log {0}", "\\sin {0}", "\\cos {0}", "\\tan {0}", "({0})",
    "{0}^{{-1}}", "0^{{{0}}}", "{0}^{{2}}", "\\pm {0}", "\\overline{{{0}}}", "\\lfloor {0} \\rfloor", "\\{{{0}\\}}", "\\text{{{0}}}", "{0}\\%",
    "f({0})", "{0}^\\circ", "\\left({0}\\right)", "{0}\\text{{ cm}}", "\\vec{{{0}}}", "\\arctan {0}", "\\sqrt[3]{{{0}}}", "e^{{{0}}}",
)  # fmt: skip
_BINARY = (
    "{0}+{1}", "{0}-{1}", "{0}{1}", "{0}\\cdot {1}", "{0}/{1}", "\\frac{{{0}}}{{{1}}}", "{0}^{{{1}}}", "{0}={1}", "{0}<{1}", "{0}\\le {1}",
    "{0}, {1}", "({0}, {1})", "[{0}, {1}]", "({0}, {1}]", "\\{{{0}, {1}\\}}", "{0}\\cup {1}", "{0}\\text{{ or }}{1}", "{0}:{1}", "{0}\\ne {1}",
    "\\log_{{{0}}} {1}", "\\binom{{{0}}}{{{1}}}", "{0}\\equiv {1}", "{0}\\ {1}", "{0}\\quad {1}", "{0}\\ldots {1}", "\\begin{{pmatrix}}{0}&{1}\\end{{pmatrix}}",
    "{0}\\in {1}", "{0}\\approx {1}", "\\frac {0} {1}", "{0}\\to {1}", "\\begin{{pmatrix}}{0}\\\\{1}\\end{{pmatrix}}", "{0};{1}", "{0}\\text{{ and }}{1}",
)  # fmt: skip
_WORDS = (
    "the a of and to in is it you that he was for on are with as I his they be at one have this from or had by hot word but what some we can out "
    "other were all there when up use your how said an each she yes no true false none maybe red blue London Paris 1 2 3 10 x A B C D"
).split()
_MARKS = (
    "",
    "",
    "",
    ".",
    "!",
    "?",
    ",",
    ";",
    "-",
    "\n",
    "\n\n",
    "*",
    '"',
    "\u200b",
    "[",
    "]",
    "<<",
    ">>",
    "***",
    "P.S.",
    "(",
    ")",
)


def mathematics(draw: random.Random, depth: int = 3) -> str:
    """An expression of LaTeX of any type, most often one that means nothing."""
    kind = draw.random()
    if depth == 0 or kind < 0.25:
        return draw.choice(_LEAVES)
    if kind < 0.6:
        return draw.choice(_UNARY).format(mathematics(draw, depth - 1))
    return draw.choice(_BINARY).format(mathematics(draw, depth - 1), mathematics(draw, depth - 1))


def text(draw: random.Random) -> str:
    """Some words and signs."""
    return " ".join(draw.choice(_WORDS) + draw.choice(_MARKS) for _ in range(draw.randrange(1, 9)))


def options(draw: random.Random) -> str:
    """Letters of options with something between them."""
    between = (" ", ", ", " or ", " and ", "/", "\n", ") ", ". ", ": x ", " not ", " if not ", " | ")
    return draw.choice("ABCDE") + "".join(draw.choice(between) + draw.choice("ABCDE") for _ in range(draw.randrange(1, 5)))


def _value(draw: random.Random, depth: int) -> Any:
    kind = draw.random()
    if depth and kind < 0.3:
        return [_value(draw, depth - 1) for _ in range(draw.randrange(3))]
    if depth and kind < 0.6:
        keys = ("a", "name", "arguments", "solution", "verdict", "evidence", "House 1", "Name", "type", "e", "")
        return {draw.choice(keys): _value(draw, depth - 1) for _ in range(draw.randrange(3))}
    return draw.choice((None, True, False, 0, 1, -1, 0.5, "", "x", "e", "a", "___", "1", "SUPPORT", "true", "\u200b"))


def data(draw: random.Random) -> str:
    """A small JSON value."""
    return json.dumps(_value(draw, 3), ensure_ascii=draw.random() < 0.5)


def query(draw: random.Random) -> str:
    """A query that reads no table whose name it would have to know."""
    columns = (
        "1",
        "0",
        "null",
        "''",
        "count(*)",
        "changes()",
        "sqlite_version()",
        "max(1)",
        "1.0",
        "'x'",
        "total(1)",
        "rowid",
        "name",
        "*",
    )
    tables = (
        "",
        "",
        " from sqlite_master",
        " from (select 1)",
        " from (select 1 union select 2)",
        " from pragma_database_list",
        " from t",
        " from pragma_table_list",
    )
    ends = (
        "",
        "",
        " where 0",
        " where 1",
        " limit 0",
        " limit 1",
        " order by 1",
        " group by 1",
        " union select 1",
        " union all select null",
    )
    return (
        "select " + ", ".join(draw.choice(columns) for _ in range(draw.randrange(1, 4))) + draw.choice(tables) + draw.choice(ends)
    )


GRAMMARS: dict[str, Grammar] = {
    "gsm8k": mathematics,
    "json_schema": data,
    "math": mathematics,
    "multiple_choice": options,
    "sciriff": data,
    "sql": query,
    "strict_math": mathematics,
    "text": text,
    "tool_call": data,
    "zebra_logic": data,
}
"""The grammar of each verifier; the others take that of text."""
