"""Answers that are words: string_match, puzzle, flan, string_f1 and the two search verifiers.

strict keeps what carries meaning (signs, points, C++) and forgives case, spacing, a leading article and a final stop.
tulu3 is open-instruct (ground_truth_utils.py @ e6c3044) with SQuAD's normalisation, which deletes all punctuation.
"""

import json
import re
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any

from tulu.types import Verdict
from tulu.verifiers.contract import Case, Verifier, gold_texts, right, shorten
from tulu.verifiers.numbers import parse_number, same_number
from tulu.verifiers.text import after_thinking, final_answer, last_answer, remove_thinking_section, same_words, squad

_ARTICLE = re.compile(r"(?:a|an|the) (?=\S)")
_WORD = re.compile(r"[-+]?\d+(?:[.,]\d+)*|\w+(?:['’.\-]\w+)*[+#]*")
_FLAN = re.compile(r"the answer is:?\s", re.IGNORECASE)
_FINISH = re.compile(r"<finish>(.*?)</finish>", re.IGNORECASE | re.DOTALL)
_FORMAT_SHARE = 0.1
"""What a well-formed wrong answer is worth to re_search_f1."""


def phrase(text: str) -> str:
    """A text as it is compared: case folded, spaces collapsed, without a leading article and final stop."""
    words = same_words(text)
    return _ARTICLE.sub("", words, count=1) if _ARTICLE.match(words) else words


def same_phrase(answer: str, gold: str) -> bool:
    """Whether two short texts say the same, as words or as exact numbers."""
    a, b = phrase(answer), phrase(gold)
    if a == b:
        return bool(a)
    number, wanted = parse_number(a), parse_number(b)
    return number is not None and wanted is not None and same_number(number, wanted)


def check(gold: Any) -> None:
    """GoldError unless the ground truth is a non-empty string or number, or a list of accepted ones."""
    gold_texts(gold)


def check_json(gold: Any) -> None:
    """As check, for a list that may be written as JSON."""
    gold_texts(_labels(gold))


def _matches(answer: str | None, gold: Any) -> Verdict:
    if answer is None:
        return Verdict(0.0, detail="no <answer>")
    return right(any(same_phrase(answer, text) for text in gold_texts(gold)), shorten(f"answer {answer.strip()}"))


def strict_match(case: Case) -> Verdict:
    """1 where the last `<answer>` tag holds an accepted answer; without a tag there is no answer."""
    return _matches(last_answer(after_thinking(case.completion)), case.gold)


def tulu3_match(case: Case) -> Verdict:
    """open-instruct's StringMatcherVerifier."""
    if "<answer>" not in case.completion or "</answer>" not in case.completion:
        return Verdict(0.0)
    answer = case.completion.split("<answer>")[-1].split("</answer>")[0]
    return _same_squad(answer, case.gold)


def _same_squad(answer: str, gold: Any) -> Verdict:
    return right(squad(answer) in {squad(text) for text in gold_texts(gold)})


def strict_puzzle(case: Case) -> Verdict:
    """1 where the answer, in a tag or not, is an accepted one."""
    return _matches(final_answer(case.completion), case.gold)


def tulu3_puzzle(case: Case) -> Verdict:
    """open-instruct's PuzzleMatcherVerifier."""
    return _same_squad(remove_thinking_section(case.completion), case.gold)


def strict_flan(case: Case) -> Verdict:
    """1 where what follows the last "The answer is:" (else the whole answer) is an accepted answer."""
    text = final_answer(case.completion)
    return _matches(_FLAN.split(text)[-1].split("\n")[0] if _FLAN.search(text) else text, case.gold)


def tulu3_flan(case: Case) -> Verdict:
    """open-instruct's FlanVerifier, which grades the thinking too."""
    return _same_squad(case.completion.split("The answer is: ")[-1].strip(), case.gold)


def f1(answer: list[str], gold: list[str]) -> float:
    """Harmonic mean of precision and recall of two bags of words."""
    same = sum((Counter(answer) & Counter(gold)).values())
    return 2 * same / (len(answer) + len(gold)) if same else 0.0


def _words(text: str) -> list[str]:
    words = _WORD.findall(same_words(text))
    kept = [word for word in words if word not in ("a", "an", "the")]
    return kept or words


def _best(answer: str, golds: Iterable[str], words: Callable[[str], list[str]]) -> float:
    bag = words(answer)
    return max(f1(bag, words(gold)) for gold in golds)


def strict_f1(case: Case) -> Verdict:
    """Token F1 with the closest accepted answer."""
    return Verdict(_best(final_answer(case.completion), gold_texts(case.gold), _words))


def tulu3_f1(case: Case) -> Verdict:
    """open-instruct's F1Verifier."""
    text = case.completion.split("</think>")[-1].replace("<answer>", "").replace("</answer>", "")
    return Verdict(_best(text, gold_texts(case.gold), lambda value: squad(value).split()))


def _labels(gold: Any) -> Any:
    """Accepted answers that may be written as a JSON list."""
    if not isinstance(gold, str):
        return gold
    try:
        found = json.loads(gold)
    except (ValueError, RecursionError):
        return gold.strip()
    return [str(label) for label in found] if isinstance(found, list) else gold.strip()


def _finish(text: str) -> str | None:
    end = text.rfind("</finish>")
    start = text.rfind("<finish>", 0, max(end, 0))
    return text[start + len("<finish>") : end].strip() or None if end >= 0 and start >= 0 else None


def strict_search(case: Case) -> Verdict:
    """1 where the last `<finish>` tag holds an accepted answer."""
    return _matches(_finish(after_thinking(case.completion)), _labels(case.gold))


def tulu3_search(case: Case) -> Verdict:
    """open-instruct's R1SearchVerifier: the first `<finish>` tag."""
    found = _FINISH.search(case.completion)
    answer = found[1].strip() if found else ""
    return right(bool(answer) and any(squad(answer) == squad(label) for label in gold_texts(_labels(case.gold))))


def strict_search_f1(case: Case) -> Verdict:
    """Token F1 of the last `<finish>` tag, 0.1 where all words are wrong; both tags are needed."""
    answer = _finish(after_thinking(case.completion))
    if answer is None:
        return Verdict(0.0, detail="no <finish>")
    return Verdict(_best(answer, gold_texts(_labels(case.gold)), _words) or _FORMAT_SHARE, detail=shorten(f"answer {answer}"))


def tulu3_search_f1(case: Case) -> Verdict:
    """open-instruct's ReSearchVerifierF1, for which one tag is enough."""
    if "<finish>" not in case.completion and "</finish>" not in case.completion:
        return Verdict(0.0)
    answer = case.completion.split("<finish>")[-1].split("</finish>")[0]
    if not answer:
        return Verdict(0.0)
    return Verdict(_best(answer, gold_texts(_labels(case.gold)), lambda value: squad(value).split()) or _FORMAT_SHARE)


STRING_MATCH = Verifier(check=check, strict=strict_match, tulu3=tulu3_match, place="here")
PUZZLE = replace(STRING_MATCH, strict=strict_puzzle, tulu3=tulu3_puzzle)
FLAN = replace(STRING_MATCH, strict=strict_flan, tulu3=tulu3_flan)
STRING_F1 = replace(STRING_MATCH, strict=strict_f1, tulu3=tulu3_f1)
RE_SEARCH = replace(STRING_MATCH, check=check_json, strict=strict_search, tulu3=tulu3_search)
RE_SEARCH_F1 = replace(STRING_MATCH, check=check_json, strict=strict_search_f1, tulu3=tulu3_search_f1)
