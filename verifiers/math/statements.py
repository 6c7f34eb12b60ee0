"""Reads what is more than an expression: lists, relations, sets, tuples, intervals, ratios, matrices and cases.

Nodes: ("list", ((separator, item), ...)), ("rel", (a, b, c), ("<", "le")), ("group", "(", "]", items), ("set", items),
("builder", variable, condition), ("cup", a, b), ("ratio", parts), ("matrix", rows), ("cases", rows), ("words", text).
"""

from tulu.verifiers.math.commands import Commands
from tulu.verifiers.math.nodes import Node
from tulu.verifiers.math.tokens import Token, Unreadable

_RELATIONS = frozenset("= < > le ge ne in notin equiv approx to Rightarrow subset subseteq".split())
_SEPARATORS = {",": ",", ";": ",", "\\\\": ",", "lor": "or", "land": "and", "and": "and", "or": "or", "Rightarrow": ","}
_CONDITIONS = frozenset("if for where when with given provided".split())
_SET_OPERATORS = frozenset("cup cap setminus".split())
_MATRICES = frozenset("matrix pmatrix bmatrix Bmatrix smallmatrix psmallmatrix bsmallmatrix array tabular".split())
_CASES = frozenset("cases dcases rcases cases* numcases".split())
_LINES = frozenset("aligned align align* gather gather* gathered split equation equation* alignedat multline displaymath".split())
_MOST_ITEMS = 64


class Statements(Commands):
    """The whole grammar of an answer."""

    def whole(self) -> Node:
        """The one statement that all tokens make up."""
        node = self.listing()
        while self.at(".", ",", ";"):
            self.take()
        if self.peek().kind != "end":
            raise Unreadable(f"{self.peek().text} is left over")
        return node

    def listing(self, *stops: str) -> Node:
        """Statements parted by commas, and, or, if; a single one is no list."""
        items: list[tuple[str, Node]] = [("", self.relation())]
        while (separator := self._separator(stops)) is not None:
            items.append((separator, self.relation()))
            if len(items) > _MOST_ITEMS:
                raise Unreadable("too many items")
        return items[0][1] if len(items) == 1 else ("list", tuple(items))

    def _separator(self, stops: tuple[str, ...]) -> str | None:
        """The separator that follows, which is consumed; None where the list ends."""
        separator = None
        while True:
            token = self.peek()
            text = token.text
            if token.kind == "end" or (token.kind in ("mark", "command") and text in stops):
                if separator not in (None, ","):
                    raise Unreadable(f"nothing behind {separator}")
                # A comma before the end parts nothing.
                return None
            if text in _SEPARATORS and (token.kind != "run" or self.depth == 0):
                separator = _SEPARATORS[text] if separator in (None, ",") else separator
            elif token.kind in ("word", "run") and text.lower() in _CONDITIONS:
                separator = "if"
            elif text == "&" and separator is None:
                separator = ","
            else:
                return separator
            self.position += 1

    def relation(self) -> Node:
        """A chain of relations such as `1 < x \\le 5`; a single expression is none. `= 8` and `\\ge 5` lack their left side."""
        sides, operators = list[Node](), list[str]()
        if self._at_relation():
            sides.append(("nothing",))
        else:
            sides.append(self.set_expression())
        while self._at_relation():
            operators.append(self.take().text)
            sides.append(self.set_expression())
            if self.at("pmod") and operators != ["equiv"]:
                raise Unreadable("a modulus without a congruence")
            if operators == ["equiv"] and self.at("(") and self.peek(1).text in ("mod", "bmod"):
                self.take()
                self.tokens[self.position] = Token("command", "pmod")
                modulus = self._modulus()
                self.expect(")")
                sides.append(modulus)
            elif self.at("pmod"):
                sides.append(self._modulus())
        return sides[0] if not operators else ("rel", tuple(sides), tuple(operators))

    def _at_relation(self) -> bool:
        token = self.peek()
        return token.kind in ("mark", "command") and token.text in _RELATIONS

    def _modulus(self) -> Node:
        self.take()
        return ("modulus", self.atom())

    def set_expression(self) -> Node:
        """Expressions, or sets joined by their operators."""
        node = self._ratio()
        while self.at(*_SET_OPERATORS):
            node = (self.take().text, node, self._ratio())
        return node

    def _ratio(self) -> Node:
        parts = [self.additive()]
        while self.at(":") and not self.bars:
            self.take()
            parts.append(self.additive())
        return parts[0] if len(parts) == 1 else ("ratio", tuple(parts))

    def statement_in_group(self, closing: str) -> Node:
        """What braces hold; several items are a set whose backslashes were forgotten."""
        node = self.listing(closing)
        return ("set", tuple(item for _, item in node[1])) if node[0] == "list" else node

    def bracket(self, text: str) -> Node:
        """What stands in brackets: one expression, a tuple or interval, a set, or an absolute value."""
        if text == "{":
            return super().bracket(text)
        if text in ("|", "||"):
            self.bars += 1
            self.enter()
            node = self.set_expression()
            self.expect(text)
            self.bars -= 1
            self.depth -= 1
            return ("abs", node) if text == "|" else ("sym", f"norm {node!r}")
        if text not in ("(", "[", "]", "\\{"):
            raise Unreadable(f"a {text} where a value should stand")
        bars, self.bars = self.bars, int(text == "\\{")
        self.enter()
        node = self._braces() if text == "\\{" else self._brackets(text)
        self.bars = bars
        self.depth -= 1
        return node

    def _brackets(self, opening: str) -> Node:
        if self.at(")"):
            self.take()
            return ("group", opening, ")", ())
        content = self.listing(")", "]", "[")
        if not self.at(")", "]", "["):
            raise Unreadable("a bracket is not closed")
        closing = self.take().text
        if content[0] == "list":
            if any(separator not in ("", ",") for separator, _ in content[1]):
                raise Unreadable("words in brackets")
            return ("group", opening, closing, tuple(item for _, item in content[1]))
        if opening + closing not in ("()", "[]"):
            raise Unreadable("brackets that do not match")
        return content if content[0] in ("matrix", "cases", "rel", "group", "quantity") else self._grouped(content)

    def _grouped(self, content: Node) -> Node:
        """An expression in brackets, which is marked only where the brackets may mean more: `(1010)_2`."""
        return ("group", "(", ")", (content,)) if self.at("_") and content[0] == "num" else content

    def _braces(self) -> Node:
        if self.at("\\}"):
            self.take()
            return ("set", ())
        if self.at("begin"):
            content = self.atom()
            if self.at("\\}"):
                self.take()
            return ("cases", content[1]) if content[0] == "matrix" else content
        content = self.listing("\\}", "|", ":")
        if self.at("|", ":"):
            self.take()
            self.bars = 0
            condition = self.listing("\\}")
            self.expect("\\}")
            return ("builder", content, condition)
        self.expect("\\}")
        return ("set", tuple(item for _, item in content[1])) if content[0] == "list" else ("set", (content,))

    # Environments.

    def environment(self, name: str) -> Node:
        """A vector in angle brackets, or what stands between `\\begin{...}` and `\\end{...}`."""
        if name == "langle":
            content = self.listing("rangle", ">")
            self.expect("rangle")
            return ("group", "<", ">", tuple(item for _, item in content[1]) if content[0] == "list" else (content,))
        kind = self.subscript()
        body = self._body()
        if kind in _LINES:
            lines = [token for token in body if token.text != "&"]
            return self._parse(lines)
        rows = [row for row in _split(body, "\\\\") if row]
        if kind in ("array", "tabular", "alignedat") and rows and rows[0][0].text == "{":
            rows[0] = rows[0][_closing(rows[0]) + 1 :]
        if not rows:
            raise Unreadable("an empty environment")
        if kind in _CASES:
            return ("cases", tuple(tuple(map(self._cell, _split(row, "&"))) for row in rows))
        cells = tuple(tuple(self._cell(cell) for cell in _split(row, "&")) for row in rows if row)
        if kind not in _MATRICES:
            return ("big", f"{kind} {cells!r}")
        if len(cells) == 1 and len(cells[0]) == 1:
            return cells[0][0]
        if not cells or len({len(row) for row in cells}) != 1:
            raise Unreadable("a matrix whose rows differ in length")
        return ("matrix", cells)

    def _body(self) -> list[Token]:
        """The tokens up to the end of the environment, all consumed."""
        start, depth = self.position, 1
        while depth:
            token = self.take()
            if token.kind == "command" and token.text in ("begin", "end"):
                depth += 1 if token.text == "begin" else -1
        body = self.tokens[start : self.position - 1]
        self.subscript()
        return body

    def _parse(self, tokens: list[Token]) -> Node:
        self.enter()
        inner = type(self)(tokens, self.tight, self.plain_units)
        inner.depth = self.depth
        node = inner.whole()
        self.ambiguous = self.ambiguous or inner.ambiguous
        self.depth -= 1
        return node

    def _cell(self, tokens: list[Token]) -> Node:
        if tokens and all(token.kind in ("word", "mark") for token in tokens):
            words = " ".join(
                token.text.lower() for token in tokens if token.kind == "word" and token.text.lower() not in _CONDITIONS
            )
            if words:
                return ("words", words)
        tokens = tokens[1:] if tokens and tokens[0].text.lower() in _CONDITIONS else tokens
        return self._parse(list(tokens))


def _split(tokens: list[Token], mark: str) -> list[list[Token]]:
    """The tokens between the marks that stand in no group and no environment of their own."""
    parts, depth = [list[Token]()], 0
    for token in tokens:
        depth += (token.text in ("{", "begin")) - (token.text in ("}", "end"))
        if token.text == mark and not depth:
            parts.append([])
        else:
            parts[-1].append(token)
    return parts


def _closing(tokens: list[Token]) -> int:
    """The place of the brace that closes the first token."""
    depth = 0
    for position, token in enumerate(tokens):
        depth += (token.text == "{") - (token.text == "}")
        if not depth:
            return position
    raise Unreadable("a brace is not closed")
