"""multiple_choice: the one option that a completion settles on.

The ground truth is a letter (A to J), or {"answer": letter, "choices": [...]}, in which case the text of an option counts as its
letter. The last marked answer decides: a box, an `<answer>` tag, "answer is B", "Answer: B"; else a last line that holds
nothing but a letter.
"""

import re
from typing import Any

from tulu.types import Verdict
from tulu.verifiers.boxed import last_box
from tulu.verifiers.contract import Case, GoldError, Verifier, pass_or_fail
from tulu.verifiers.text import after_thinking, last_tag, normalise_characters, normalise_words

_LONGEST = 20_000
"""Characters from the end of a completion in which the answer is looked for."""
_LETTER = re.compile(r"[A-J]")
_MARKED = re.compile(r"\b(?:answer|(?:correct|right|best) (?:option|choice))(?:\s+is)?\s*[:=]?\s*(?=(.{0,200}))", re.IGNORECASE)
"""Words before an answer: `answer is`, `Answer:`, `the best choice is`; the group is what follows on the line."""
_FIRST_LETTER = re.compile(
    # Brackets, quotes and emphasis before the letter: "(", "**", "\text{"
    r"[\s*_($\[\"'`]*(?:\\(?:text|mathrm|textbf|boxed)\{)?"
    # "B", "(B)", "Option B"; but not the first letter of "Berlin" or of "I'm"
    r"(?:(?:[Oo]ption|[Cc]hoice)\s+[*_]*)?\(?([A-J])(?![\w'’])"
)
_SECOND_LETTER = re.compile(
    # "B or C", "B and **C**"; "B, C", "B/C", "B & C"
    r"\b(?:or|and)\b\s*[*_(]*[A-J](?!\w)|^\s*[)*_.]*\s*[,/&]\s*[*_(]*[A-J](?!\w)|"
    # A further letter that is no word of a sentence: "A B C D", "A. B. C. D."
    r"^[\s)*_.;:|(-]*[A-J](?=[\s)*_]*(?:$|[.,;:/|)&*_(-]|\b[A-J]\b))"
)
"""What follows the first letter where an answer names two."""
_LOWER_CASE = re.compile(r"[\s*_($\[\"'`]*(?:\\(?:text|mathrm|textbf)\{)?\(?([b-j]|a(?!\s))[\s})*_.$\]\"'`]*(?:\n|$)")
"""A lower-case letter alone on its line: "b", "(c)"; but not the article of "a dog"."""
_LISTED = re.compile(r"[A-J][):.]\s+\S")
"""An option with its text: "B) Paris"."""


def parse(gold: Any) -> tuple[str, list[str]]:
    """The letter of the right option, and the texts of all options where they are given; GoldError for anything else."""
    letter, choices = (gold.get("answer"), gold.get("choices") or []) if isinstance(gold, dict) else (gold, [])
    if not isinstance(letter, str) or not _LETTER.fullmatch(letter.strip("() .").upper()):
        raise GoldError(f"ground_truth must be a letter A to J, or an object with answer and choices; got {gold!r}")
    if not isinstance(choices, list) or not all(isinstance(choice, str) for choice in choices):
        raise GoldError("choices must be a list of strings")
    letter = letter.strip("() .").upper()
    if choices and ord(letter) - ord("A") >= len(choices):
        raise GoldError(f"answer {letter} is none of {len(choices)} choices")
    return letter, choices


def _letter(text: str, choices: list[str]) -> str | None:
    """The option that a short answer names; None where it names none, or two."""
    first = _FIRST_LETTER.match(text)
    lower_case = None if first else _LOWER_CASE.match(text)
    if lower_case:
        return lower_case[1].upper()
    if first and not _SECOND_LETTER.search(text[first.end() : first.end() + 40]):
        return first[1]
    words = normalise_words(text)
    matches = [index for index, choice in enumerate(choices) if normalise_words(choice) == words]
    return chr(ord("A") + matches[0]) if len(matches) == 1 else None


def extract(completion: str, choices: list[str]) -> str | None:
    """The letter that a completion settles on, or None."""
    text = normalise_characters(after_thinking(completion))[-_LONGEST:]
    box = last_box(text)
    if box is not None:
        return None if box.content is None else _letter(box.content, choices)
    tagged = last_tag(text, "answer")
    if tagged is not None:
        return _letter(tagged, choices)
    marked = [letter for rest in _MARKED.findall(text) if (letter := _letter(rest, choices)) or _FIRST_LETTER.match(rest)]
    if marked:
        return marked[-1]
    lines = text.strip().splitlines()
    last = lines[-1].strip() if lines else ""
    is_letter = len(last.removeprefix("Option ").strip("()*_. ")) == 1 or (len(lines) == 1 and _LISTED.match(last))
    return _letter(last, choices) if is_letter or choices else None


def strict(case: Case) -> Verdict:
    """1 where the last marked answer is the right option."""
    letter, choices = parse(case.gold)
    answer = extract(case.completion, choices)
    return pass_or_fail(answer == letter, f"answer {answer or 'none'}")


MULTIPLE_CHOICE = Verifier(check=parse, strict=strict, place="here")
