"""How open-instruct checks MATH in training (math_utils.py, ground_truth_utils.py @ e6c3044), for mode tulu3.

Its symbolic comparison fails in the threads that training uses, so what is left is Hendrycks' string equality over several
candidates: the last box and Minerva's sentence, else the last formula, else the whole text. All its quirks are kept.
"""

import re

# Minerva's tables (Lewkowycz et al. 2022, appendix D): text that is replaced, and text that is deleted.
_SUBSTITUTIONS = (
    ("an ", ""), ("a ", ""), (".$", "$"), ("\\$", ""), (r"\ ", ""), (" ", ""), ("mbox", "text"),
    (",\\text{and}", ","), ("\\text{and}", ","), ("\\text{m}", "\\text{}"),
)  # fmt: skip
_DELETED = (
    "square", "ways", "integers", "dollars", "mph", "inches", "ft", "hours", "km", "units", "\\ldots", "sue", "points",
    "feet", "minutes", "digits", "cents", "degrees", "cm", "gm", "pounds", "meters", "meals", "edges", "students",
    "childrentickets", "multiples", "\\text{s}", "\\text{.}", "\\text{\ns}", "\\text{}^2", "\\text{}^3", "\\text{\n}",
    "\\text{}", r"\mathrm{th}", r"^\circ", r"^{\circ}", r"\;", r",\!", "{,}", '"', "\\dots",
)  # fmt: skip
_MINERVA = re.compile(r"Final Answer: The final answer is(.*?). I hope it is correct.")


def _first_formula(line: str) -> str:
    """The first formula of a line, dollars included: `so $x$, and $y$` is `$x$`; the line itself where it has none."""
    parts = line.split("$", 2)
    return f"${parts[1]}$" if len(parts) == 3 else line


def normalise_final(answer: str) -> str:
    """Minerva's normalisation of a final answer (Lewkowycz et al. 2022, appendix D)."""
    answer = answer.split("=")[-1]
    for before, after in _SUBSTITUTIONS:
        answer = answer.replace(before, after)
    for word in _DELETED:
        answer = answer.replace(word, "")
    # Minerva does this with the pattern (.*?)(\$)(.*?)(\$)(.*), which takes quadratic time.
    answer = "\n".join(_first_formula(line) for line in answer.split("\n"))
    for command in ("text", "textbf", "overline"):
        answer = re.sub(rf"\\{command}\{{(.*?)\}}", r"\1", answer)
    answer = re.sub(r"\\boxed\{(.*)\}", r"\1", answer)
    answer = re.sub(r"frac([^{])(.)", r"frac{\1}{\2}", answer)
    answer = re.sub(r"sqrt([^{])", r"sqrt{\1}", answer).replace("$", "")
    return answer.replace(",", "") if answer.replace(",", "").isdigit() else answer


def last_boxed(text: str) -> str | None:
    """Content of the last box as Hendrycks' code finds it; None where there is none, or it never closes."""
    if "\\boxed " in text:
        # As upstream: a box with a space comes before any later box with a brace.
        return text.split("\\boxed ")[-1].split("$")[0]
    start = text.rfind("\\boxed")
    if start < 0 or not text.startswith("\\boxed{", start):
        return None
    depth = 0
    for position in range(start, len(text)):
        depth += {"{": 1, "}": -1}.get(text[position], 0)
        if text[position] == "}" and not depth:
            return text[start + len("\\boxed{") : position]
    return None


def _fix_fracs(text: str) -> str:
    """A text with braces around the arguments of every \\frac, as in \\frac{1}{2}; IndexError where one has no arguments."""
    head, *parts = text.split("\\frac")
    fixed = head
    for part in parts:
        fixed += "\\frac"
        if part[0] == "{":
            fixed += part
        elif len(part) < 2:
            return text
        elif part[1] == "{":
            fixed += "{" + part[0] + "}" + part[1:]
        else:
            fixed += "{" + part[0] + "}{" + part[1] + "}" + part[2:]
    return fixed


def _fix_slash(text: str) -> str:
    """`3/4` as a fraction of TeX; ValueError where the parts around a single slash are no integers."""
    parts = text.split("/")
    if len(parts) != 2:
        return text
    # Upstream fails here too where a part is no integer, and then compares the raw strings.
    numerator, denominator = int(parts[0]), int(parts[1])
    return f"\\frac{{{numerator}}}{{{denominator}}}" if text == f"{numerator}/{denominator}" else text


def _fix_sqrt(text: str) -> str:
    """A text with braces around the argument of every \\sqrt; IndexError where one has none."""
    head, *parts = text.split("\\sqrt")
    return head + "".join("\\sqrt" + (part if part.startswith("{") else "{" + part[0] + "}" + part[1:]) for part in parts)


def strip_string(text: str) -> str:
    """Hendrycks' normalisation of an answer; IndexError or ValueError where his own code fails."""
    for before, after in (
        ("\n", ""), ("\\!", ""), ("\\\\", "\\"), ("tfrac", "frac"), ("dfrac", "frac"), ("\\left", ""), ("\\right", ""),
        ("^{\\circ}", ""), ("^\\circ", ""), ("\\$", ""),
    ):  # fmt: skip
        text = text.replace(before, after)
    if "\\text{ " in text:
        text, _unit = text.split("\\text{ ")
    text = text.replace("\\%", "").replace(" .", " 0.").replace("{.", "{0.")
    if not text:
        return text
    text = "0" + text if text[0] == "." else text
    sides = text.split("=")
    text = sides[1] if len(sides) == 2 and len(sides[0]) <= 2 else text
    text = _fix_fracs(_fix_sqrt(text).replace(" ", ""))
    return _fix_slash("\\frac{1}{2}" if text == "0.5" else text)


def same_string(a: str, b: str) -> bool:
    """Hendrycks' is_equiv: equality of the stripped strings, or of the raw ones where stripping fails."""
    try:
        return strip_string(a) == strip_string(b)
    except (IndexError, ValueError):
        return a == b


def candidates(completion: str) -> list[str]:
    """The answers that open-instruct's `math` compares; one of them has to be right."""
    boxed = last_boxed(completion)
    answers = [] if boxed is None else [boxed]
    sentence = _MINERVA.search(completion + "I hope it is correct.")
    if sentence:
        answers.append(normalise_final(sentence[1].strip()))
    if answers:
        return answers
    parts = completion.rsplit("$", 2)
    if len(parts) == 3:
        return [normalise_final(parts[1])]
    return [normalise_final(completion), completion]


def strict_candidates(completion: str) -> list[str]:
    """The one answer that open-instruct's `strict_math` compares: Minerva's sentence, else the whole text."""
    sentence = _MINERVA.search(completion + "I hope it is correct.")
    return [normalise_final(sentence[1].strip() if sentence else completion)]
