"""Finding the answer of a math solution."""

import re

from tulu.verifiers.boxed import last_box
from tulu.verifiers.math.read import read
from tulu.verifiers.math.values import Text
from tulu.verifiers.text import after_thinking, last_tag, normalise_characters, visible_text

_WINDOW = 4_096
"""Characters from the end of a completion in which an answer without a box is looked for."""
_MOST_BOXES = 16
_LONGEST_LINK = 40
"""Characters between two boxes of one answer."""
_LONGEST_LINE = 120
"""Characters of a line that is an answer by itself."""

# Final Answer: The final answer is 5. I hope it is correct
_MINERVA = re.compile(r"Final Answer: The final answer is([^\n]*?)\. I hope it is correct")
_HASHES = re.compile(r"^####[ \t]*+([^\n]+)", re.MULTILINE)  # #### 18
# the answer is 5; Answer: 5; **Final answer:** 5; answer = 5
_PHRASE = re.compile(
    r"\banswer\b(?P<middle>[^\n.!?=:<>]{0,60}?)(?:\b(?:is|are|was|be)\b(?:\s*:)?|[:=])[*_\s]*:?[*_]*(?P<after>[^\n]{0,512})",
    re.IGNORECASE,
)
_SENTENCE_START = re.compile(r"[\n.!?]")
_NEGATED = re.compile(r"\b(?:not|never|cannot|neither|nor|doubt|unlikely|wrong|incorrect)\b|n['’]t\b", re.IGNORECASE)
_DENIED = re.compile(
    r"\s*(?:\$|\\\)|\\\])?\s*,?\s*(?:is|was|cannot be|can't be)\s*(?:not|n't|wrong|incorrect|never)?\b[^.\n]*", re.IGNORECASE
)
_SENTENCE_END = re.compile(
    r"[.!?](?:\s|$)|,?\s+(?:because|since|as required|which|so that)\b"
)  # 5. So we are done; 5, because 2 + 3 is
FORMULA = re.compile(
    # $$17$$, \[17\], \(17\), $17$; an escaped dollar is money
    r"\$\$(?P<display>[^$]+)\$\$|\\\[(?P<bracket>(?:[^\\]|\\[^\]])+)\\\]|\\\((?P<round>(?:[^\\]|\\[^)])+)\\\)|(?<!\\)\$(?P<inline>(?:[^$\\\n]|\\[^\n])+)\$"
)
"""A formula between its marks; one of the groups is its content."""
_LINK = re.compile(r"[\s$\\()\[\]*.,;&]*(?:(?:and|or|as well as|,)[\s$\\()\[\]*,]*)?(?:[A-Za-z](?:_\d)?\s*=\s*)?[\s$\\()\[\]*]*")
_FENCE = re.compile(r"^\s*```[a-zA-Z]*\s*$", re.MULTILINE)
_BOLD = re.compile(r"\*\*|__")


def boxes(completion: str) -> list[str] | None:
    """The boxes at the end that make up one answer, the last one last; None where there is no box."""
    contents, end = list[str](), len(completion)
    box = last_box(completion)
    if box is None:
        return None
    while box is not None and len(contents) < _MOST_BOXES:
        if box.content is None:
            return contents[::-1]
        if contents and not _LINK.fullmatch(completion[box.end : end][: _LONGEST_LINK + 1]):
            break
        contents.append(box.content)
        end = box.start
        box = last_box(completion[max(0, end - 600) : end])
        if box is not None:
            start = max(0, end - 600)
            box = box._replace(start=box.start + start, end=box.end + start)
    return contents[::-1]


def extract(completion: str) -> list[str]:
    """The parts of a completion's answer: the boxes at its end, else one part; none where it gives no answer.

    Without a box it is the first of these that there is: Minerva's sentence, an `<answer>` tag, `####`, "answer is", the last
    formula, or all of a short text of one line.
    """
    text = normalise_characters(visible_text(after_thinking(completion)))
    boxed = boxes(text)
    if boxed is not None:
        return [content for content in boxed if content.strip()]
    answer = _without_box(_FENCE.sub("", text[-_WINDOW:]).strip())
    return [answer] if answer is not None and answer.strip() else []


def _without_box(text: str) -> str | None:
    if minerva := _MINERVA.findall(text):
        return str(minerva[-1])
    tagged = last_tag(text, "answer")
    if tagged is not None:
        return tagged
    if hashes := _HASHES.findall(text):
        return str(hashes[-1])
    phrases = list(_PHRASE.finditer(text))
    if phrases:
        return _after_phrase(text, phrases[-1])
    formulas = list(FORMULA.finditer(text))
    if formulas:
        last = formulas[-1]
        return None if _is_denied(text[last.end() : last.end() + 80]) else _content(last)
    line = _BOLD.sub("", text).strip()
    return line if "\n" not in line and len(line) <= _LONGEST_LINE else None


def _is_denied(following: str) -> bool:
    """Whether the words behind a formula say that it is not the answer."""
    denied = _DENIED.match(following)
    return denied is not None and _NEGATED.search(denied[0]) is not None


def _content(match: re.Match[str]) -> str:
    return next(group for group in match.groups() if group is not None)


def _after_phrase(text: str, phrase: re.Match[str]) -> str | None:
    """What the words `the answer is` introduce, in their line or below; None where they are denied."""
    before = _SENTENCE_START.split(text[max(0, phrase.start() - 200) : phrase.start()])[-1]
    if _NEGATED.search(before + phrase["middle"]) or _NEGATED.match(phrase["after"].strip()):
        return None
    start = phrase.start("after")
    if not _BOLD.sub("", phrase["after"]).strip(" \t:*_"):
        below = FORMULA.match(text[start:].lstrip(" \t:*_\n"))
        if below:
            return _content(below)
        lines = text[start:].strip(" \t:*_\n").split("\n")
        return _BOLD.sub("", lines[0]).strip()
    formulas = list(FORMULA.finditer(text, start))
    rest = text[start:].split("\n")[0]
    if formulas and (formulas[0].start() < start + len(rest) and not text[start : formulas[0].start()].strip(" :*_([")):
        if formulas[0].end() > start + len(rest):
            return _content(formulas[0])
        return _joined(text, start, formulas, start + len(rest))
    rest = _BOLD.sub("", rest)
    end = _SENTENCE_END.search(rest)
    if end is not None and end[0].startswith("?"):
        return None
    return rest[: end.start()] if end else rest


def _joined(text: str, start: int, formulas: list[re.Match[str]], end: int) -> str:
    """The formulas of a sentence with the words between them: `$x=1$ and $y=2$`."""
    stop = _SENTENCE_END.search(text, formulas[0].end(), end)
    limit = stop.start() if stop else end
    inside = [formula for formula in formulas if formula.end() <= limit]
    parts, position = list[str](), start
    for formula in inside:
        parts += [text[position : formula.start()], _content(formula)]
        position = formula.end()
    parts.append(text[position:limit])
    return _BOLD.sub("", "".join(parts)).strip(" :*_")


def formula_of(gold: str) -> str:
    """A gold without the marks of its formulas; of a sentence with one formula that means nothing as a whole, that formula."""
    text = normalise_characters(visible_text(gold))
    formulas = list(FORMULA.finditer(text))
    if not formulas:
        return text.strip()
    parts, position = list[str](), 0
    for formula in formulas:
        parts += [text[position : formula.start()], _content(formula)]
        position = formula.end()
    whole = "".join([*parts, text[position:]]).strip()
    in_prose = len(formulas) == 1 and not _NEGATED.search(whole) and isinstance(read(whole)[0], Text)
    return _content(formulas[0]).strip() if in_prose else whole
