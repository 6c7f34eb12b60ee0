"""multiple_choice: the one option a completion settles on.

The ground truth is a letter (A to J), or {"answer": letter, "choices": [...]} where the text of an option counts as its
letter. The last marked answer decides: a box, an `<answer>` tag, "answer is B", "Answer: B"; else a last line that is
nothing but a letter.
"""

import re
from typing import Any

from tulu.types import Verdict
from tulu.verifiers.boxed import last_box
from tulu.verifiers.contract import Case, GoldError, Verifier, right
from tulu.verifiers.text import after_thinking, last_answer, plain, same_words

_LETTER = re.compile(r"[A-J]")
_ANCHOR = re.compile(r"\b(?:answer|(?:correct|right|best) (?:option|choice))(?:\s+is)?\s*[:=]?\s*(?=(.{0,200}))", re.IGNORECASE)
_LEADING = re.compile(
    r"[\s*_($\[\"'`]*(?:\\(?:text|mathrm|textbf|boxed)\{)?(?:(?:[Oo]ption|[Cc]hoice)\s+[*_]*)?\(?([A-J])(?![\w'’])"
)
_OTHER = re.compile(
    r"\b(?:or|and)\b\s*[*_(]*[A-J](?!\w)|^\s*[)*_.]*\s*[,/&]\s*[*_(]*[A-J](?!\w)|"
    # A further letter that is no word of a sentence: "A B C D", "A. B. C. D."
    r"^[\s)*_.;:|(-]*[A-J](?=[\s)*_]*(?:$|[.,;:/|)&*_(-]|\b[A-J]\b))"
)
_SMALL = re.compile(r"[\s*_($\[\"'`]*(?:\\(?:text|mathrm|textbf)\{)?\(?([b-j]|a(?!\s))[\s})*_.$\]\"'`]*(?:\n|$)")
_LISTED = re.compile(r"[A-J][):.]\s+\S")


def _gold(gold: Any) -> tuple[str, list[str]]:
    letter, choices = (gold.get("answer"), gold.get("choices") or []) if isinstance(gold, dict) else (gold, [])
    if not isinstance(letter, str) or not _LETTER.fullmatch(letter.strip("() .").upper()):
        raise GoldError(f"ground_truth must be a letter A to J, or an object with answer and choices; got {gold!r}")
    if not isinstance(choices, list) or not all(isinstance(choice, str) for choice in choices):
        raise GoldError("choices must be a list of strings")
    letter = letter.strip("() .").upper()
    if choices and ord(letter) - ord("A") >= len(choices):
        raise GoldError(f"answer {letter} is none of {len(choices)} choices")
    return letter, choices


def check(gold: Any) -> None:
    """GoldError unless the ground truth names an option."""
    _gold(gold)


def _letter(text: str, choices: list[str]) -> str | None:
    """The option that a short answer names, None where it names none or hedges between two."""
    found = _LEADING.match(text)
    small = None if found else _SMALL.match(text)
    if small:
        return small[1].upper()
    if found and not _OTHER.search(text[found.end() : found.end() + 40]):
        return found[1]
    said = same_words(text)
    named = [at for at, choice in enumerate(choices) if same_words(choice) == said]
    return chr(ord("A") + named[0]) if len(named) == 1 else None


def extract(completion: str, choices: list[str]) -> str | None:
    """The letter that a completion settles on, or None."""
    text = plain(after_thinking(completion))[-20_000:]
    box = last_box(text)
    if box is not None:
        return None if box.content is None else _letter(box.content, choices)
    tagged = last_answer(text)
    if tagged is not None:
        return _letter(tagged, choices)
    anchors = [letter for found in _ANCHOR.findall(text) if (letter := _letter(found, choices)) or _LEADING.match(found)]
    if anchors:
        return anchors[-1]
    lines = text.strip().splitlines()
    last = lines[-1].strip() if lines else ""
    alone = len(last.removeprefix("Option ").strip("()*_. ")) == 1 or (len(lines) == 1 and _LISTED.match(last))
    return _letter(last, choices) if alone or choices else None


def strict(case: Case) -> Verdict:
    """1 where the last marked answer is the gold option."""
    letter, choices = _gold(case.gold)
    answer = extract(case.completion, choices)
    return right(answer == letter, f"answer {answer or 'none'}")


MULTIPLE_CHOICE = Verifier(check=check, strict=strict, place="here")
