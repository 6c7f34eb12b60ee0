"""Reading the one answer of a math solution, and comparing what linear time can compare: spelling and exact numbers."""

import re
import unicodedata

from tulu.verifiers.boxed import last_box
from tulu.verifiers.numbers import Number, parse_number, same_number
from tulu.verifiers.text import after_thinking, last_answer, plain

ANSWER_LIMIT = 512
"""Characters of an answer that is compared as mathematics; longer ones can only be right letter for letter."""
_OPENED, _INCLUSIVE = ("(", "["), ("\\le", "\\ge")
_NESTING_LIMIT = 20
_LITERAL_LIMIT = 10_000
_WINDOW = 4_096

_MINERVA = re.compile(r"Final Answer: The final answer is([^\n]*?)\. I hope it is correct")
_HASHES = re.compile(r"^####[ \t]*+([^\n]+)", re.MULTILINE)
_PHRASE = re.compile(r"\banswer(?:\s+is|\s*[:=])\s*:?\s*([^\n]{1,512})", re.IGNORECASE)
_SENTENCE_END = re.compile(r"[.!?](?:\s|$)")
_WORD = re.compile(r"\\[A-Za-z]+(?:\{[A-Za-z ]*\})?|[A-Za-z]{2,}")
_UNITS = (
    "dollars? cents? degrees? percent units? inch(?:es)? feet foot miles? hours? minutes? seconds? days? weeks? years? "
    "cm mm km kg meters? metres? points? pounds? mph people students ways square cubic"
)
_TRAILING_UNITS = re.compile(rf"(?<=[\d}})$])\s*(?:\\?\s*(?:{'|'.join(_UNITS.split())})\b\.?\s*)+$", re.IGNORECASE)
_TEXT_UNIT = re.compile(
    r"(?<=[\d})])\s*\\(?:text|mbox|mathrm|textrm)\s*"
    r"\{(?!\s*(?:or|and|to|not|but)\b)[A-Za-z./ ]+(?:\^\{?-?\d\}?)?\}(?:\^\{?[23]\}?)?$"
)
_COUNTED = re.compile(r"(.*\d\)?)((?: [a-z]{3,}){1,4})")
_NO_UNITS = frozenset(
    "and but not nor plus minus times over mod half halves third thirds quarter quarters dozen score hundred thousand million "
    "billion trillion alpha beta gamma delta epsilon theta lambda sigma omega phi psi rho tau sin cos tan log exp sqrt".split()
)
_ORDINAL = re.compile(r"(?<=\d)\^?\{?\\(?:text|mathrm)\{(?:st|nd|rd|th)\}\}?")
_WRAP = re.compile(
    r"\\(?:text|textbf|textit|textrm|emph|underline|math(?:bf|rm|it|sf)|mbox|boldsymbol|ensuremath|operatorname)\s*\{([^{}]*)\}"
)
_DRESS = re.compile(
    r"\\(?:(?:text)?color\{\w+\}|[hv]?(?:phantom|space)\*?\{[^{}]*\}|(?:bf|rm|it|[lL]arge|LARGE|small|displaystyle)(?![A-Za-z]))"
)
_BARE_ROMAN = re.compile(r"\\mathrm\s+([A-Za-z])")
_SPACES = re.compile(r"(?<!\\)\\[!,;:> ]|~|\\q?quad\b")
_FRAC_TOKENS = re.compile(r"\\frac\s*(?:(\d)\s*(\d)|(\d)\s*\{|\{([^{}]*)\}\s*(\d))")
_SQRT_TOKEN = re.compile(r"\\sqrt\s*(\d|[a-zA-Z](?![a-zA-Z]))")
_DEGREES = re.compile(
    r"(?:\^\s*(?:\{\s*\\circ\s*\}|\\circ)|°|\\degree\b|(?<=\d)\^\{?o\}?(?![a-z]))(?:\s*(?:[CF]|\\(?:text|mathrm)\{\s*[CF]\s*\})$)?"
)
_SCALE = re.compile(r"(?<=\d)\s*(?:\\?\s*|\\(?:text|mbox|mathrm)\{\s*)\b(hundred|thousand|million|billion|trillion)\b\s*\}?")
_SCALES = {"hundred": 2, "thousand": 3, "million": 6, "billion": 9, "trillion": 12}
_ROOT = re.compile(r"√\s*(?:\(([^()]*)\)|(\d+|[A-Za-z]))")
_RAISED = re.compile("[⁰¹²³⁴⁵⁶⁷⁸⁹⁻]+")
_NUMERAL = re.compile(r"[-+]?\d+", re.ASCII)
_SIMPLE_FRAC = re.compile(r"([-+]?)\\frac\{([-+]?)(\d{1,400})\}\{(\d{1,400})\}")
_MIXED_FRAC = re.compile(r"([-+]?)(\d{1,300})\\frac\{(\d{1,300})\}\{(\d{1,300})\}")
_REPEATING = re.compile(r"([-+]?)(\d{0,100})\.(\d{0,100})\\(?:overline|dot|bar)(?:\{(\d{1,100})\}|(\d))")
_SCIENTIFIC = re.compile(r"([-+]?[\d.]+)(?:\\times|\\cdot|\*)10\^(?:\{([-+]?\d{1,9})\}|(\d))")
_SLASH = re.compile(r"\s*/\s*")
_POWER_OF_TEN = re.compile(r"([-+]?)10\^(?:\{([-+]?\d{1,9})\}|(\d))")
_NAME = re.compile(r"(?:[A-Za-z]|\\[a-z]+)(?:_\{?\w+\}?)?(?:\([a-z](?:,[a-z])*\))?'?")
_CHAIN = re.compile(r"([^<>=]+?)(<|\\lt|\\le)([A-Za-z])(<|\\lt|\\le)([^<>=]+)")
_BOUND = re.compile(r"([A-Za-z])(<|>|\\lt|\\gt|\\le|\\ge)([^<>=]+)")
_OPTION = re.compile(r"(?:option|choice) ", re.IGNORECASE)
_LETTERED = re.compile(r"\(([A-Z])\)([^()]*)")
_FURTHER = re.compile(r"\b(?:[A-Z]|or|and)\b")
_UNEVALUATED = re.compile(
    r"\\(?:sum|prod|int|iint|oint|lim|limsup|max|min|gcd|lcm|det|b?mod|pmod)(?![a-z])|\bd\}?\{d[a-z]\b|\blcm\b"
)
_FUNCTION = re.compile(r"\\(?:log|ln|lg|(?:arc)?(?:sin|cos|tan)|cot|sec|csc|exp|[lr]floor|[lr]ceil)(?![a-z])|\|")
_ARITHMETIC = re.compile(r"[\d)}!]\s*(?:[-+*/]|\\times|\\cdot|\\div)\s*[-+]?\s*(?:\d|\(|\{|\\frac|\\sqrt|\\binom)|[\d)}]\s*\(")
_BIG_POWER = re.compile(r"(?:\^|\*\*)\s*[({]?\s*[-+]?(\d{5,})")
_TOWER = re.compile(r"(?:\^|\*\*)\s*[({]?\s*-?\s*\d+[)}]?\s*[)}]?\s*(?:\^|\*\*|!)")
_BIG_FACTORIAL = re.compile(r"(?:\d{5,}|!)\s*[)}]?\s*!|\\binom\s*\{\s*\d{5,}")


def extract(completion: str) -> str | None:
    """The one answer: the last box, else Minerva's sentence, `<answer>`, `####`, "answer is", the last formula, a bare one."""
    text = plain(after_thinking(completion))
    box = last_box(text)
    if box is not None:
        return box.content
    text = text[-_WINDOW:]
    if minerva := _MINERVA.findall(text):
        return str(minerva[-1])
    tagged = last_answer(text)
    if tagged is not None:
        return tagged
    if hashes := _HASHES.findall(text):
        return str(hashes[-1])
    if phrases := _PHRASE.findall(text):
        return _SENTENCE_END.split(phrases[-1], maxsplit=1)[0]
    parts = text.rsplit("$", 2)
    if len(parts) == 3 and parts[1].strip():
        return parts[1]
    bare = text.strip()
    # Prose is no answer, however many numbers it holds.
    prose = [word for word in _WORD.findall(bare) if not word.startswith("\\")]
    return bare if bare and "\n" not in bare and not prose else None


def tidy(answer: str) -> str:
    """One spelling for what TeX and people spell in many ways: sizes, spaces, units, degrees, currency, outer wrapping."""
    # Long runs of spaces would make the patterns below slow.
    text = " ".join(plain(answer).split()).strip("*").strip()
    if _NUMERAL.fullmatch(text):
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
    text = _SPACES.sub(" ", _DRESS.sub(" ", _DEGREES.sub("", text)))
    text = _SCALE.sub(lambda match: f"\\times10^{{{_SCALES[match[1]]}}}", text.rstrip(" .,;:"))
    text = _TRAILING_UNITS.sub("", _TEXT_UNIT.sub("", _ORDINAL.sub("", text)))
    text = _BARE_ROMAN.sub(r" \1", _WRAP.sub(r" \1 ", text))
    text = _SQRT_TOKEN.sub(r"\\sqrt{\1}", _FRAC_TOKENS.sub(_braced, text)).rstrip("\\ .,;:").lstrip(" ,;:")
    # Units may have been inside the wrapping.
    text = _TRAILING_UNITS.sub("", text).removeprefix("\\approx").strip()
    return " ".join(text.split())


def _in_tex(text: str) -> str:
    """Symbols beyond ASCII as the TeX that means the same; currencies go."""
    for before, after in (
        ("π", "\\pi "), ("×", "\\times "), ("·", "\\cdot "), ("∞", "\\infty "), ("⁄", "/"), ("≤", "\\le "), ("≥", "\\ge "),
        ("±", "\\pm "), ("∪", "\\cup "), ("∈", "\\in "), ("∅", "\\emptyset "), ("θ", "\\theta "), ("€", ""), ("£", ""), ("¥", ""),
        ("½", "\\frac{1}{2}"), ("¼", "\\frac{1}{4}"), ("¾", "\\frac{3}{4}"), ("⅓", "\\frac{1}{3}"), ("⅔", "\\frac{2}{3}"),
    ):  # fmt: skip
        text = text.replace(before, after)
    text = _ROOT.sub(lambda match: f"\\sqrt{{{match[1] or match[2]}}}", text)
    return _RAISED.sub(lambda match: f"^{{{unicodedata.normalize('NFKC', match[0]).replace(chr(0x2212), '-')}}}", text)


def _braced(match: re.Match[str]) -> str:
    both, second, before_brace, inside, last = match.groups()
    if both:
        return f"\\frac{{{both}}}{{{second}}}"
    if before_brace:
        return f"\\frac{{{before_brace}}}{{"
    return f"\\frac{{{inside}}}{{{last}}}"


def exact_number(text: str) -> Number | None:
    """The exact rational that a tidied answer spells, percent sign ignored; None where it is something else."""
    if " /" in text or "/ " in text:
        text = _SLASH.sub("/", text)
    packed = text.replace(" ", "").removesuffix("%")
    mixed = text.removesuffix("%").strip()
    if packed[:1] + packed[-1:] in ("()", "{}"):
        packed = mixed = packed[1:-1]
    number = parse_number(packed if "/" not in packed or " " not in mixed else mixed)
    if number is not None:
        return number
    if match := _SIMPLE_FRAC.fullmatch(packed):
        sign = "-" if (match[1] == "-") != (match[2] == "-") else ""
        return parse_number(f"{sign}{match[3]}/{match[4]}")
    if match := _MIXED_FRAC.fullmatch(packed):
        return parse_number(f"{match[1]}{match[2]} {match[3]}/{match[4]}")
    if match := _REPEATING.fullmatch(packed):
        sign, whole, head = match.groups()[:3]
        tail = match[4] or match[5]
        above = int((whole or "0") + head + tail) - int((whole or "0") + head)
        return parse_number(f"{sign}{above}/{'9' * len(tail)}{'0' * len(head)}")
    if match := _SCIENTIFIC.fullmatch(packed):
        return parse_number(f"{match[1]}e{match[2] or match[3]}")
    if match := _POWER_OF_TEN.fullmatch(packed):
        return parse_number(f"{match[1]}1e{match[2] or match[3]}")
    return None


def without_name(answer: str, gold: str) -> str:
    """`x = 5` as `5` where the gold names nothing, `a < x < b` as an interval where it is one; the rest is left as it is."""
    if gold[:1] in _OPENED and gold[-1:] in ("]", ")"):
        answer = _interval(answer.replace(" ", "")) or answer
    name, equals, value = answer.partition("=")
    plain_equation = equals and "=" not in value and value.strip() and name.strip()[-1:] not in ("<", ">", "!", ":")
    return value.strip() if plain_equation and "=" not in gold and _NAME.fullmatch(name.replace(" ", "")) else answer


def _interval(answer: str) -> str | None:
    """A solved inequality in one letter as the interval it is; None for what still has to be solved, and for all else."""
    if chain := _CHAIN.fullmatch(answer):
        low, opened, _, closed, high = chain.groups()
    elif bound := _BOUND.fullmatch(answer):
        upper = bound[2] in ("<", "\\lt", "\\le")
        low, high = ("-\\infty", bound[3]) if upper else (bound[3], "\\infty")
        opened, closed = ("<", bound[2]) if upper else (bound[2], "<")
    else:
        return None
    if re.search("[A-Za-z]", re.sub(r"\\[a-z]+", "", low + high)):
        return None
    return f"{'[' if opened in _INCLUSIVE else '('}{low},{high}{']' if closed in _INCLUSIVE else ')'}"


def same_words(answer: str, gold: str) -> bool | None:
    """Whether two answers that are words or choice letters agree; None where the gold is neither."""
    letters = gold.strip("() ")
    if re.fullmatch(r"[A-Z]", letters):
        lettered = _LETTERED.fullmatch(answer)
        if lettered and not _FURTHER.search(lettered[2]):
            # "(A) 5": an option and its text.
            return lettered[1] == letters
        given = _OPTION.sub("", answer).strip("(). ")
        return given == letters if len(given) == 1 or exact_number(given) is not None else None
    if re.fullmatch(r"[A-Za-z][A-Za-z' -]*[A-Za-z]", letters) and re.search(r"[A-Za-z]{3}", letters):
        return answer.strip("() ").casefold() == letters.casefold()
    return None


def agrees(answer: str, gold: str) -> bool | None:
    """Whether two tidied answers are equal, where spelling or exact numbers tell; None where mathematics must."""
    if not answer:
        return False
    if answer.replace(" ", "") == gold.replace(" ", ""):
        return True
    number, wanted = exact_number(answer), exact_number(gold)
    if number is None and wanted is not None and (counted := _COUNTED.fullmatch(answer)):
        number = None if _NO_UNITS & set(counted[2].split()) else exact_number(counted[1])
    if number is not None and wanted is not None:
        # 50% is written for both 50 and 1/2, so a percentage may also be compared by its value.
        return same_number(number, wanted) or _percent_agrees(answer, number, gold, wanted)
    if wanted is not None and not re.search(r"\d|\\[a-z]|[a-zA-Z]", answer):
        return False
    return same_words(answer, gold)


def _percent_agrees(answer: str, number: Number, gold: str, wanted: Number) -> bool:
    if answer.endswith("%") == gold.endswith("%"):
        return False
    percent, other = (number, wanted) if answer.endswith("%") else (wanted, number)
    if not isinstance(percent, tuple):
        return same_number(percent / 100, other)
    sign, digits, exponent = percent
    return same_number((sign, digits, exponent - 2 if digits else 0), other)


def refused(answer: str, gold: str) -> str | None:
    """Why an answer scores 0 without being computed: too big, too deep, too costly, or the problem restated; else None."""
    if len(answer) > ANSWER_LIMIT:
        return f"answer of {len(answer)} characters"
    depth = deepest = 0
    for character in answer:
        depth += (character in "({[") - (character in ")}]")
        deepest = max(deepest, depth)
    if deepest > _NESTING_LIMIT or answer.count("\\sqrt") + answer.count("\\frac") > _NESTING_LIMIT:
        return "nested too deep"
    powers = [int(digits) for digits in _BIG_POWER.findall(answer)]
    if any(power > _LITERAL_LIMIT for power in powers) or _TOWER.search(answer) or _BIG_FACTORIAL.search(answer):
        return "power or factorial too large"
    if _UNEVALUATED.search(answer) and not _UNEVALUATED.search(gold):
        return "not evaluated"
    if exact_number(gold) is not None and (_ARITHMETIC.search(answer) or _FUNCTION.search(answer)):
        return "not evaluated"
    return None
