"""Finding the one answer of a math solution, and giving it one spelling."""

import re
import unicodedata

from tulu.verifiers.boxed import last_box
from tulu.verifiers.text import after_thinking, last_tag, normalise_characters

_WINDOW = 4_096
"""Characters from the end of a completion in which an answer without a box is looked for."""

# Where an answer stands; the group is the answer.

# Final Answer: The final answer is 5. I hope it is correct
_MINERVA = re.compile(r"Final Answer: The final answer is([^\n]*?)\. I hope it is correct")
_HASHES = re.compile(r"^####[ \t]*+([^\n]+)", re.MULTILINE)  # #### 18
_PHRASE = re.compile(r"\banswer(?:\s+is|\s*[:=])\s*:?\s*([^\n]{1,512})", re.IGNORECASE)  # the answer is 5; Answer: 5; answer = 5
_SENTENCE_END = re.compile(r"[.!?](?:\s|$)")  # The answer ends with its sentence: "5. So we are done"
_WORD = re.compile(r"\\[A-Za-z]+(?:\{[A-Za-z ]*\})?|[A-Za-z]{2,}")  # \frac, \text{and}, or a word of two letters and more

# Units that an answer may carry; they are deleted.

_UNITS = (
    "dollars? cents? degrees? percent units? inch(?:es)? feet foot miles? hours? minutes? seconds? days? weeks? years? "
    "cm mm km kg meters? metres? points? pounds? mph people students ways square cubic"
)
# 5 cm; 12 square feet; \frac{1}{2} \ hours.
_TRAILING_UNITS = re.compile(rf"(?<=[\d}})$])\s*(?:\\?\s*(?:{'|'.join(_UNITS.split())})\b\.?\s*)+$", re.IGNORECASE)
# 5\text{ m/s}; 12\mathrm{cm}^2; 3\text{ in.^3}; but not 1\text{ or }2
_TEXT_UNIT = re.compile(
    r"(?<=[\d})])\s*\\(?:text|mbox|mathrm|textrm)\s*"
    r"\{(?!\s*(?:or|and|to|not|but)\b)[A-Za-z./ ]+(?:\^\{?-?\d\}?)?\}(?:\^\{?[23]\}?)?$"
)
# 30^\circ, 30^{\circ}, 30°, 30\degree, 30^o; 20^\circ C, 20^\circ\text{F}
_DEGREES = re.compile(
    r"(?:\^\s*(?:\{\s*\\circ\s*\}|\\circ)|°|\\degree\b|(?<=\d)\^\{?o\}?(?![a-z]))(?:\s*(?:[CF]|\\(?:text|mathrm)\{\s*[CF]\s*\})$)?"
)
_ORDINAL = re.compile(r"(?<=\d)\^?\{?\\(?:text|mathrm)\{(?:st|nd|rd|th)\}\}?")  # 3^\text{rd}, 5\text{th}
# 5 million, 5\text{ million}
_SCALE = re.compile(r"(?<=\d)\s*(?:\\?\s*|\\(?:text|mbox|mathrm)\{\s*)\b(hundred|thousand|million|billion|trillion)\b\s*\}?")
_SCALES = {"hundred": 2, "thousand": 3, "million": 6, "billion": 9, "trillion": 12}
"""Powers of ten."""

# Commands that change how an answer looks, and not what it means.

# \text{B} and \mathbf{x} become their content
_WRAPPED = re.compile(
    r"\\(?:text|textbf|textit|textrm|emph|underline|math(?:bf|rm|it|sf)|mbox|boldsymbol|ensuremath|operatorname)\s*\{([^{}]*)\}"
)
# \color{red}, \hspace{1cm}, \phantom{0}, \large, \displaystyle
_LAYOUT = re.compile(
    r"\\(?:(?:text)?color\{\w+\}|[hv]?(?:phantom|space)\*?\{[^{}]*\}|(?:bf|rm|it|[lL]arge|LARGE|small|displaystyle)(?![A-Za-z]))"
)
_ROMAN_LETTER = re.compile(r"\\mathrm\s+([A-Za-z])")  # \mathrm x
_SPACES = re.compile(r"(?<!\\)\\[!,;:> ]|~|\\q?quad\b")  # \, \! \; \quad ~; but not the second backslash of a line end, \\
_UNBRACED_FRAC = re.compile(r"\\frac\s*(?:(\d)\s*(\d)|(\d)\s*\{|\{([^{}]*)\}\s*(\d))")  # \frac12; \frac1{x}; \frac{x}2
_UNBRACED_SQRT = re.compile(r"\\sqrt\s*(\d|[a-zA-Z](?![a-zA-Z]))")  # \sqrt2, \sqrt x
_ROOT_SIGN = re.compile(r"√\s*(?:\(([^()]*)\)|(\d+|[A-Za-z]))")  # √2, √(x+1)
_SUPERSCRIPT = re.compile("[⁰¹²³⁴⁵⁶⁷⁸⁹⁻]+")  # x², 10⁻³
_INTEGER = re.compile(r"[-+]?\d+", re.ASCII)  # -17: most answers are integers, and need none of the above


def extract(completion: str) -> str | None:
    """The one answer of a completion; None where it gives none.

    It is the last box, else the first of these that there is: Minerva's sentence, an `<answer>` tag, `####`, "answer is", the
    last formula between dollars, or all of a short text that is no prose.
    """
    text = normalise_characters(after_thinking(completion))
    box = last_box(text)
    if box is not None:
        return box.content
    text = text[-_WINDOW:]
    if minerva := _MINERVA.findall(text):
        return str(minerva[-1])
    tagged = last_tag(text, "answer")
    if tagged is not None:
        return tagged
    if hashes := _HASHES.findall(text):
        return str(hashes[-1])
    if phrases := _PHRASE.findall(text):
        return _SENTENCE_END.split(phrases[-1], maxsplit=1)[0]
    parts = text.rsplit("$", 2)
    if len(parts) == 3 and parts[1].strip():
        return parts[1]
    whole = text.strip()
    # Prose is no answer, however many numbers it holds.
    prose = [word for word in _WORD.findall(whole) if not word.startswith("\\")]
    return whole if whole and "\n" not in whole and not prose else None


def tidy(answer: str) -> str:
    """An answer in one spelling: sizes, spaces, units, degrees, currencies and wrapping commands are removed."""
    # Long runs of spaces would make the patterns below slow.
    text = " ".join(normalise_characters(answer).split()).strip("*").strip()
    if _INTEGER.fullmatch(text):
        return text
    if not text.isascii():
        text = _in_tex(text)
    for before, after in (
        ("\\left", ""), ("\\right", ""), ("\\dfrac", "\\frac"), ("\\tfrac", "\\frac"), ("\\cfrac", "\\frac"), ("{,}", ","),
        ("\\$", ""), ("$", ""), ("\\%", "%"), ("\\pounds", ""), ("\\varnothing", "\\emptyset"),
        ("\\leq", "\\le"), ("\\geq", "\\ge"),
        ("\\langle", "("), ("\\rangle", ")"), ("\\(", ""), ("\\)", ""), ("\\[", ""), ("\\]", ""),
    ):  # fmt: skip
        text = text.replace(before, after)
    text = text.replace("\\lee", "\\le").replace("\\gee", "\\ge")
    text = _SPACES.sub(" ", _LAYOUT.sub(" ", _DEGREES.sub("", text)))
    text = _SCALE.sub(lambda match: f"\\times10^{{{_SCALES[match[1]]}}}", text.rstrip(" .,;:"))
    text = _TRAILING_UNITS.sub("", _TEXT_UNIT.sub("", _ORDINAL.sub("", text)))
    text = _ROMAN_LETTER.sub(r" \1", _WRAPPED.sub(r" \1 ", text))
    text = _UNBRACED_SQRT.sub(r"\\sqrt{\1}", _UNBRACED_FRAC.sub(_braced, text)).rstrip("\\ .,;:").lstrip(" ,;:")
    # Units may have been inside the wrapping.
    text = _TRAILING_UNITS.sub("", text).removeprefix("\\approx").strip()
    return " ".join(text.split())


def _in_tex(text: str) -> str:
    """A text with TeX in place of symbols beyond ASCII, and without signs of currencies."""
    for before, after in (
        ("π", "\\pi "), ("×", "\\times "), ("·", "\\cdot "), ("∞", "\\infty "), ("⁄", "/"), ("≤", "\\le "), ("≥", "\\ge "),
        ("±", "\\pm "), ("∪", "\\cup "), ("∈", "\\in "), ("∅", "\\emptyset "), ("θ", "\\theta "), ("€", ""), ("£", ""), ("¥", ""),
        ("½", "\\frac{1}{2}"), ("¼", "\\frac{1}{4}"), ("¾", "\\frac{3}{4}"), ("⅓", "\\frac{1}{3}"), ("⅔", "\\frac{2}{3}"),
    ):  # fmt: skip
        text = text.replace(before, after)
    text = _ROOT_SIGN.sub(lambda match: f"\\sqrt{{{match[1] or match[2]}}}", text)
    return _SUPERSCRIPT.sub(lambda match: f"^{{{unicodedata.normalize('NFKC', match[0]).replace(chr(0x2212), '-')}}}", text)


def _braced(match: re.Match[str]) -> str:
    """A match of _UNBRACED_FRAC with its braces: `\\frac12` is `\\frac{1}{2}`."""
    numerator, denominator, numerator_before_brace, braced_numerator, bare_denominator = match.groups()
    if numerator:
        return f"\\frac{{{numerator}}}{{{denominator}}}"
    if numerator_before_brace:
        return f"\\frac{{{numerator_before_brace}}}{{"
    return f"\\frac{{{braced_numerator}}}{{{bare_denominator}}}"
