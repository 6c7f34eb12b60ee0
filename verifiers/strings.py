"""Verifiers of answers that are words: string_match, puzzle, flan, string_f1, re_search and re_search_f1.

strict compares what carries meaning (signs, points, C++) and ignores case, spacing, a leading article and a final stop.
tulu3 is open-instruct (ground_truth_utils.py @ e6c3044) with SQuAD's normalisation, which deletes all punctuation.
"""

import json
import re
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any

from tulu.types import Verdict
from tulu.verifiers.contract import Case, Verifier, gold_texts, pass_or_fail, shorten
from tulu.verifiers.numbers import parse_number, same_number
from tulu.verifiers.text import (
    after_thinking,
    final_answer,
    last_tag,
    normalise_squad,
    normalise_words,
    remove_thinking_section,
)

_ARTICLE = re.compile(r"(?:a|an|the) (?=\S)")
_WORD = re.compile(r"[-+]?\d+(?:[.,]\d+)*|\w+(?:['’.\-]\w+)*[+#]*")  # `-3`, `1,234.5`; `don't`, `U.S`, `C++`, `C#`
_FLAN = re.compile(r"the answer is:?\s", re.IGNORECASE)
_FINISH = re.compile(r"<finish>(.*?)</finish>", re.IGNORECASE | re.DOTALL)
_FORMAT_SHARE = 0.1
"""The score of re_search_f1 for a wrong answer in the right tags."""


def normalise_phrase(text: str) -> str:
    """A text as it is compared: without regard to case and spacing, a leading article and a final stop."""
    words = normalise_words(text)
    return _ARTICLE.sub("", words, count=1) if _ARTICLE.match(words) else words


def same_phrase(answer: str, gold: str) -> bool:
    """Whether two short texts are equal, as words or as exact numbers."""
    a, b = normalise_phrase(answer), normalise_phrase(gold)
    if a == b:
        return bool(a)
    number, other = parse_number(a), parse_number(b)
    return number is not None and other is not None and same_number(number, other)


def check(gold: Any) -> None:
    """GoldError unless the ground truth is a non-empty string or number, or a list of accepted ones."""
    gold_texts(gold)


def check_json(gold: Any) -> None:
    """As check, but a list may also be written as JSON."""
    gold_texts(_parse_labels(gold))


def _match_any(answer: str | None, gold: Any) -> Verdict:
    """1 where an answer equals an accepted one; None is an answer that is missing."""
    if answer is None:
        return Verdict(0.0, detail="no <answer>")
    return pass_or_fail(any(same_phrase(answer, text) for text in gold_texts(gold)), shorten(f"answer {answer.strip()}"))


def strict_match(case: Case) -> Verdict:
    """1 where the last `<answer>` tag holds an accepted answer; without a tag there is no answer."""
    return _match_any(last_tag(after_thinking(case.completion), "answer"), case.gold)


def tulu3_match(case: Case) -> Verdict:
    """open-instruct's StringMatcherVerifier."""
    if "<answer>" not in case.completion or "</answer>" not in case.completion:
        return Verdict(0.0)
    answer = case.completion.split("<answer>")[-1].split("</answer>")[0]
    return _match_any_squad(answer, case.gold)


def _match_any_squad(answer: str, gold: Any) -> Verdict:
    return pass_or_fail(normalise_squad(answer) in {normalise_squad(text) for text in gold_texts(gold)})


def strict_puzzle(case: Case) -> Verdict:
    """1 where the answer, in a tag or not, is an accepted one."""
    return _match_any(final_answer(case.completion), case.gold)


def tulu3_puzzle(case: Case) -> Verdict:
    """open-instruct's PuzzleMatcherVerifier."""
    return _match_any_squad(remove_thinking_section(case.completion), case.gold)


def strict_flan(case: Case) -> Verdict:
    """1 where the text after the last "The answer is:", else the whole answer, is an accepted one."""
    text = final_answer(case.completion)
    return _match_any(_FLAN.split(text)[-1].split("\n")[0] if _FLAN.search(text) else text, case.gold)


def tulu3_flan(case: Case) -> Verdict:
    """open-instruct's FlanVerifier, which grades the thinking too."""
    return _match_any_squad(case.completion.split("The answer is: ")[-1].strip(), case.gold)


def f1(answer: list[str], gold: list[str]) -> float:
    """Harmonic mean of precision and recall over two lists of words, whose order does not count."""
    common = sum((Counter(answer) & Counter(gold)).values())
    return 2 * common / (len(answer) + len(gold)) if common else 0.0


def _words(text: str) -> list[str]:
    words = _WORD.findall(normalise_words(text))
    return [word for word in words if word not in ("a", "an", "the")] or words


def _squad_words(text: str) -> list[str]:
    return normalise_squad(text).split()


def _best_f1(answer: str, golds: Iterable[str], split: Callable[[str], list[str]]) -> float:
    words = split(answer)
    return max(f1(words, split(gold)) for gold in golds)


def strict_f1(case: Case) -> Verdict:
    """Word F1 with the closest accepted answer."""
    return Verdict(_best_f1(final_answer(case.completion), gold_texts(case.gold), _words))


def tulu3_f1(case: Case) -> Verdict:
    """open-instruct's F1Verifier."""
    text = case.completion.split("</think>")[-1].replace("<answer>", "").replace("</answer>", "")
    return Verdict(_best_f1(text, gold_texts(case.gold), _squad_words))


def _parse_labels(gold: Any) -> Any:
    """The accepted answers of a ground truth, which may be a list written as JSON."""
    if not isinstance(gold, str):
        return gold
    try:
        labels = json.loads(gold)
    except (ValueError, RecursionError):
        return gold.strip()
    return [str(label) for label in labels] if isinstance(labels, list) else gold.strip()


def _last_finish(text: str) -> str | None:
    """The content of the last closed `<finish>` tag; None where there is none, or an empty one."""
    return (last_tag(text, "finish") or "").strip() or None


def strict_search(case: Case) -> Verdict:
    """1 where the last `<finish>` tag holds an accepted answer."""
    return _match_any(_last_finish(after_thinking(case.completion)), _parse_labels(case.gold))


def tulu3_search(case: Case) -> Verdict:
    """open-instruct's R1SearchVerifier: the first `<finish>` tag."""
    match = _FINISH.search(case.completion)
    answer = match[1].strip() if match else ""
    return _match_any_squad(answer, _parse_labels(case.gold)) if answer else Verdict(0.0)


def strict_search_f1(case: Case) -> Verdict:
    """Word F1 of the last closed `<finish>` tag; 0.1 where no word is right."""
    answer = _last_finish(after_thinking(case.completion))
    if answer is None:
        return Verdict(0.0, detail="no <finish>")
    score = _best_f1(answer, gold_texts(_parse_labels(case.gold)), _words)
    return Verdict(score or _FORMAT_SHARE, detail=shorten(f"answer {answer}"))


def tulu3_search_f1(case: Case) -> Verdict:
    """open-instruct's ReSearchVerifierF1, for which an opening or a closing tag alone is enough."""
    if "<finish>" not in case.completion and "</finish>" not in case.completion:
        return Verdict(0.0)
    answer = case.completion.split("<finish>")[-1].split("</finish>")[0]
    if not answer:
        return Verdict(0.0)
    return Verdict(_best_f1(answer, gold_texts(_parse_labels(case.gold)), _squad_words) or _FORMAT_SHARE)


STRING_MATCH = Verifier(check=check, strict=strict_match, tulu3=tulu3_match, place="here")
PUZZLE = replace(STRING_MATCH, strict=strict_puzzle, tulu3=tulu3_puzzle)
FLAN = replace(STRING_MATCH, strict=strict_flan, tulu3=tulu3_flan)
STRING_F1 = replace(STRING_MATCH, strict=strict_f1, tulu3=tulu3_f1)
RE_SEARCH = replace(STRING_MATCH, check=check_json, strict=strict_search, tulu3=tulu3_search)
RE_SEARCH_F1 = replace(STRING_MATCH, check=check_json, strict=strict_search_f1, tulu3=tulu3_search_f1)
