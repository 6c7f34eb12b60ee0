"""The tokens of an answer: numbers, letters, runs of letters, words of text, commands and marks.

Commands that change how a formula looks disappear here, so that `\\dfrac`, `\\left(`, `\\mathbf{x}` and
`\\color{red}` are read as
`\\frac`, `(`, `x` and nothing. Whether a run of letters is a word, a function, a unit or a product shows only in the parser.
"""

import re
from typing import NamedTuple

from tulu.verifiers.boxed import find_closing_brace
from tulu.verifiers.math.spelling import plain

LONGEST = 512
"""Characters of an answer that is read as mathematics."""
_DEEPEST = 12
"""Text commands inside each other."""


class Unreadable(Exception):
    """What is no formula of the kind that is read here."""


class Token(NamedTuple):
    """One token. Its kind is number, letter, run, word, command, mark or end."""

    kind: str
    text: str
    spaced: bool = False
    """Whether white space stands before it."""
    style: str = ""
    """text inside `\\text{...}`, roman inside `\\mathrm{...}`."""


_SPACE = r"\s+|\\[,;:>! ]|~|\\q?quad(?![a-zA-Z])|\\(?:thin|med|thick|neg|en)space(?![a-zA-Z])|\\(?:hfill|newline)(?![a-zA-Z])"
_GROUP = r"(?:,\\!|\{,\}|\\,|\\!|\\ |~|[ ])"
_TOKEN = re.compile(
    rf"(?P<space>{_SPACE})|"
    # 1{,}234 or 1 000 000, 12.5e3 and .5; commas that group digits are decided by the caller
    rf"(?P<number>(?:(?<!\d)\d{{1,3}}(?:{_GROUP}\d{{3}})+(?!\d)(?:\.\d+)?|\d+(?:\.\d+)?|\.\d+)(?:[eE][-+]?\d{{1,6}}(?![\w.]))?)|"
    # \\[4pt], \frac, \{
    r"(?P<newline>\\\\(?:\s*\[-?[\d.]+\s*(?:pt|em|ex|mm|cm)\])?|\\cr(?![a-zA-Z]))|\\(?P<command>[a-zA-Z]+\*?)|\\(?P<escaped>[^a-zA-Z])|"
    r"(?P<letters>[^\W\d_]+)|(?P<mark><=|>=|!=|<>|->|=>|\*\*|\.\.\.|==|:=|&lt;|&gt;|.)",
    re.DOTALL,
)
_COMMA_GROUPS = re.compile(r"[1-9]\d{0,2}(?:,\d{3})+(?:\.\d+)?(?:(?![\d,])|(?=,(?!\d)))|[1-9]\d?(?:,\d{2})+,\d{3}(?![\d,])")
"""1,234,567.8 as in English, or 12,34,567 as in India."""
_LOOSE_COMMA = re.compile(r"\d\s*,\s+\S")  # 1,000, 2,000: where elements are parted by spaces, a bare comma groups digits
FUNCTIONS = frozenset(
    "sin cos tan cot sec csc arcsin arccos arctan arccot asin acos atan sinh cosh tanh coth sech csch exp ln lg log".split()
)
"""Functions of one argument, and the logarithms."""
_TEXT = frozenset("text mbox textrm textbf textit textnormal textsf texttt emph textup textsc hbox".split())
_ROMAN = frozenset("mathrm operatorname operatorname* unit".split())
_DRESS = frozenset(
    "left right big Big bigg Bigg bigl bigr Bigl Bigr biggl biggr Biggl Biggr middle displaystyle "
    "textstyle scriptstyle limits nolimits "
    "mathbf boldsymbol bold bm mathit mathsf mathtt mathcal mathscr mathfrak mathnormal underline "
    "ensuremath boxed fbox rm bf it sf tt large "
    "Large LARGE huge Huge small normalsize tiny checkmark qed blacksquare therefore nobreak allowbreak "
    "displaylines cancel mathstrut "
    "strut centering noindent hline mathopen mathclose mathrel mathop mathord mathbin because".split()
)
_WITH_ARGUMENT = frozenset(
    "color textcolor hspace vspace hspace* vspace* phantom hphantom vphantom tag label tag* kern mspace ref".split()
)
"""Commands that disappear with the group after them."""
ALIASES = {
    "dfrac": "frac", "tfrac": "frac", "cfrac": "frac", "sfrac": "frac",
    "nicefrac": "frac", "dbinom": "binom", "tbinom": "binom", "choose": "choose",
    "leq": "le", "leqslant": "le", "leqq": "le", "geq": "ge", "geqslant": "ge",
    "geqq": "ge", "neq": "ne", "lt": "<", "gt": ">", "varnothing": "emptyset",
    "lbrace": "{", "rbrace": "}", "lbrack": "[", "rbrack": "]", "lparen": "(",
    "rparen": ")", "vert": "|", "lvert": "|", "rvert": "|", "mid": "|",
    "Vert": "||", "lVert": "||", "rVert": "||", "cdotp": "cdot", "ast": "cdot",
    "star": "cdot", "dots": "ldots", "cdots": "ldots", "dotsc": "ldots",
    "dotsb": "ldots", "vdots": "ldots", "to": "to", "rightarrow": "to",
    "longrightarrow": "to", "mapsto": "to", "varphi": "phi", "vartheta": "theta",
    "varepsilon": "epsilon", "vee": "lor", "wedge": "land", "backslash": "setminus",
    "smallsetminus": "setminus", "colon": ":", "tg": "tan",
    "ctg": "cot", "arctg": "arctan", "cosec": "csc", "sim": "approx",
    "simeq": "approx", "cong": "approx", "doteq": "approx", "deg": "degree",
    "overrightarrow": "vec", "widehat": "hat", "widetilde": "tilde",
    "bar": "overline", "dot": "overline", "imaginaryI": "imath", "lbrac": "{",
    "iff": "Rightarrow", "implies": "Rightarrow", "Leftrightarrow": "Rightarrow",
    "Longrightarrow": "Rightarrow", "textdegree": "degree",
    "euro": "euro", "pounds": "pounds", "textsterling": "pounds", "yen": "yen", "mod": "bmod", "angstrom": "AA", "infin": "infty",
}  # fmt: skip
_MARKS = {
    "<=": "le",
    ">=": "ge",
    "!=": "ne",
    "<>": "ne",
    "->": "to",
    "=>": "Rightarrow",
    "...": "ldots",
    "&lt;": "<",
    "&gt;": ">",
}
_ESCAPED = {"{": "\\{", "}": "\\}", "%": "%", "$": "\\$", "&": "&", "#": "#", "_": "_", "|": "||"}
_PLAIN_MARKS = frozenset("<>[](){}|:")


def tokenize(text: str) -> list[Token]:
    """The tokens of an answer; Unreadable where it is too long, or a command lacks its group."""
    if len(text) > LONGEST:
        raise Unreadable(f"answer of {len(text)} characters")
    tokens = _Scanner(_LOOSE_COMMA.search(text) is not None).scan(plain(text), "", 0)
    if tokens:
        tokens[0] = tokens[0]._replace(spaced=True)
    return tokens


class _Scanner:
    def __init__(self, loose: bool) -> None:
        self._loose, self._bracket = loose, 0

    def scan(self, text: str, style: str, depth: int) -> list[Token]:
        if depth > _DEEPEST:
            raise Unreadable("nested too deep")
        tokens, position, spaced = list[Token](), 0, False
        while position < len(text):
            grouped = _COMMA_GROUPS.match(text, position) if not self._bracket or self._loose else None
            if grouped and not (position and (text[position - 1].isdigit() or text[position - 1] in ".,")):
                tokens.append(Token("number", grouped[0].replace(",", ""), spaced, style))
                position, spaced = grouped.end(), False
                continue
            match = _TOKEN.match(text, position)
            if match is None:
                raise Unreadable("no token")
            position = match.end()
            if match["space"]:
                spaced = spaced or match[0] != "\\!"
                continue
            if (name := match["command"]) is not None:
                position, added = self._command(text, position, name, style, spaced, depth)
                if name in _TEXT and text[position - 2 : position - 1].isspace():
                    # The space in \text{(A) }5 stands before the 5.
                    tokens += added
                    spaced = True
                    continue
            else:
                added = self._simple(match, style, spaced)
            tokens += added
            spaced = spaced and not added
        return tokens

    def _simple(self, match: re.Match[str], style: str, spaced: bool) -> list[Token]:
        if match["number"]:
            return [Token("number", re.sub(_GROUP, "", match["number"]), spaced, style)]
        if match["letters"]:
            letters = match["letters"]
            if style == "text" or not letters.isascii():
                return [Token("word", letters, spaced, "text")]
            return [Token("letter" if len(letters) == 1 else "run", letters, spaced, style)]
        if match["newline"]:
            return [Token("mark", "\\\\", spaced)]
        if match["escaped"] and match["escaped"] in "()[]":
            # The marks of a formula.
            return []
        mark = _ESCAPED.get(match["escaped"], match["escaped"]) if match["escaped"] else match["mark"]
        if mark == "$":
            return []
        if mark in ("(", "[", "\\{"):
            self._bracket += 1
        elif mark in (")", "]", "\\}"):
            self._bracket -= 1
        if mark in _MARKS:
            name = _MARKS[mark]
            return [Token("mark" if name in _PLAIN_MARKS else "command", name, spaced, style)]
        return [Token("mark", {"**": "^", "==": "=", ":=": "="}.get(mark, mark), spaced, style)]

    def _command(self, text: str, position: int, name: str, style: str, spaced: bool, depth: int) -> tuple[int, list[Token]]:
        """Where to go on after a command, and the tokens that it stands for."""
        if name in _TEXT or name in _ROMAN:
            inner_style = "text" if name in _TEXT else "roman"
            end, content = _group(text, position)
            tokens = self.scan(content, inner_style, depth + 1)
            if name.startswith("operatorname"):
                return end, [Token("command", ALIASES.get(word := "".join(token.text for token in tokens), word), spaced)]
            if tokens and spaced:
                tokens[0] = tokens[0]._replace(spaced=True)
            return end, tokens
        if name in _WITH_ARGUMENT:
            return _group(text, position)[0], []
        if name in _DRESS:
            # \left. and \right. are brackets that are not printed.
            return position + (name in ("left", "right") and text[position : position + 1] == "."), []
        alias = ALIASES.get(name, name)
        if alias in ("{", "}"):
            alias = "\\" + alias
        if alias in _PLAIN_MARKS or alias in ("\\{", "\\}", "||"):
            return position, [Token("mark", alias, spaced, style)]
        return position, [Token("command", alias, spaced, style)]


def _group(text: str, position: int) -> tuple[int, str]:
    """The end and the content of the group after a command; without braces, of the one character."""
    while position < len(text) and text[position].isspace():
        position += 1
    if text[position : position + 1] != "{":
        return position + 1, text[position : position + 1]
    end = find_closing_brace(text, position)
    if end is None:
        raise Unreadable("a brace is not closed")
    return end + 1, text[position + 1 : end]
