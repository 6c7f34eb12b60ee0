"""Verifiers of answers that are words: string_match, puzzle, exact, flan, string_f1, re_search and re_search_f1.

strict compares what carries meaning (signs, points, C++) and ignores case, spacing, a leading article and a final stop; `exact`
ignores spacing alone. What only dresses an answer (dollars, boxes, emphasis, a fence) counts in neither (`spelling.py`).
tulu3 is open-instruct (ground_truth_utils.py @ e6c3044) with SQuAD's normalisation, which deletes all punctuation and articles,
so that -5 is 5 and C++ is C.
"""

import json
import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any

from tulu.types import Verdict
from tulu.verifiers.contract import Case, Grade, Verifier, gold_texts, pass_or_fail, shorten
from tulu.verifiers.numbers import parse_number, same_number
from tulu.verifiers.spelling import spellings, undressed
from tulu.verifiers.text import (
    after_thinking,
    final_answer,
    has_content,
    last_tag,
    normalise_characters,
    normalise_squad,
    normalise_words,
    remove_thinking_section,
)

_Find = Callable[[str], str | None]
"""Takes a completion; returns its answer, or None where it gives none."""
_Accepted = Callable[[Any], list[str]]
"""Takes a ground truth; returns the accepted answers."""
_ARTICLE = re.compile(r"(?:a|an|the) (?=\S)")
_WORD = re.compile(
    r"[-+]?\d+(?:[.,]\d+)*(?:/\d+)?|"  # `-3`, `1,234.5`, `3/4`
    r"[-+]?\.\d+|"  # `.5`, which is not 5
    r"\w+(?:['’.\-]\w+)*[+#]*|"  # `don't`, `U.S`, `C++`, `C#`
    r"[<>=/%°]|(?<=\w)[*^!](?=\w)"  # `x<3` is not `x>3`, `2*3` is not `2^3`
)
_FLAN = re.compile(r"the answer is:?\s+", re.IGNORECASE)
_EXCLAIMED = re.compile(r"[-+\d.,/]*\d!+")  # 5!, which is 120 and not 5
_SHOWN = re.compile(r"\\\[[^\[\]]*\\\]|\$\$[^$]*\$\$|```[\w+-]*\n[^`]*\n```")  # \[ … \], $$ … $$, ```text … ```
_FINISH = re.compile(r"<finish>(.*?)</finish>", re.IGNORECASE | re.DOTALL)
_FORMAT_SHARE = 0.1
"""The score of re_search_f1 for a wrong answer in the right tags."""


def normalise_phrase(text: str) -> str:
    """A text as it is compared: without regard to case and spacing, a leading article and a final stop."""
    words = normalise_words(text)
    return _ARTICLE.sub("", words, count=1) if _ARTICLE.match(words) else words


def same_phrase(answer: str, gold: str) -> bool:
    """Whether two short texts are equal, as words or as exact numbers."""
    answers, golds = _phrases(answer), _phrases(gold)
    if any(phrase in golds for phrase in answers):
        return True
    number = parse_number(answers[-1]) if answers else None
    other = parse_number(golds[-1]) if golds else None
    return number is not None and other is not None and same_number(number, other)


def _phrases(text: str) -> list[str]:
    """The spellings of a text, the plainest last, each as it is compared; none where there is nothing to see."""
    phrases = (layer if _EXCLAIMED.fullmatch(layer) else normalise_phrase(layer) for layer in spellings(text))
    return [phrase for phrase in phrases if has_content(phrase)]


def search_labels(gold: Any) -> list[str]:
    """The accepted answers of a ground truth, which may be a list written as JSON; GoldError where any cannot be used."""
    if isinstance(gold, str):
        try:
            labels = json.loads(gold)
        except (ValueError, RecursionError):
            labels = None
        gold = [str(label) for label in labels] if isinstance(labels, list) else gold.strip()
    return gold_texts(gold)


def _phrase_grade(find: _Find, accepted: _Accepted = gold_texts) -> Grade:
    """A grade that is 1 where the answer that is found equals an accepted one, as words or as numbers."""

    def strict(case: Case) -> Verdict:
        answer = find(case.completion)
        if answer is None:
            return Verdict(0.0, detail="no <answer>")
        return pass_or_fail(any(same_phrase(answer, text) for text in accepted(case.gold)), shorten(f"answer {answer.strip()}"))

    return strict


def _squad_grade(find: _Find, accepted: _Accepted = gold_texts) -> Grade:
    """A grade that is 1 where the answer that is found equals an accepted one in SQuAD's normalisation."""

    def tulu3(case: Case) -> Verdict:
        answer = find(case.completion)
        return pass_or_fail(
            answer is not None and normalise_squad(answer) in {normalise_squad(text) for text in accepted(case.gold)}
        )

    return tulu3


def _last_answer(completion: str) -> str | None:
    return last_tag(after_thinking(completion), "answer")


def _upstream_last_answer(completion: str) -> str | None:
    tagged = "<answer>" in completion and "</answer>" in completion
    return completion.split("<answer>")[-1].split("</answer>")[0] if tagged else None


def _flan_answer(completion: str) -> str:
    """The rest of the line (or the formula) after the last "The answer is:", else the whole answer."""
    text = final_answer(completion)
    if not _FLAN.search(text):
        return text
    rest = _FLAN.split(text)[-1]
    # A formula or a fence may go over several lines.
    shown = _SHOWN.match(rest)
    return shown[0] if shown else rest.partition("\n")[0]


def _last_finish(completion: str) -> str | None:
    """The content of the last closed `<finish>` tag; None where there is none, or nothing to see in it."""
    content = (last_tag(after_thinking(completion), "finish") or "").strip()
    return content if has_content(content) else None


def _upstream_first_finish(completion: str) -> str | None:
    match = _FINISH.search(completion)
    return (match[1].strip() or None) if match else None


def _exact_spellings(text: str) -> set[str]:
    """The spellings of a text, with single spaces, and full-width characters as ASCII; none where there is nothing to see."""
    plain = normalise_characters(unicodedata.normalize("NFC", text))
    return {" ".join(layer.split()) for layer in spellings(plain) if has_content(layer)}


def strict_exact(case: Case) -> Verdict:
    """1 where the answer is an accepted one letter for letter, whatever dollars, boxes, emphasis or full stop are around it."""
    answer = final_answer(case.completion)
    accepted = set[str]().union(*map(_exact_spellings, gold_texts(case.gold)))
    return pass_or_fail(not accepted.isdisjoint(_exact_spellings(answer)), shorten(f"answer {answer}"))


def f1(answer: list[str], gold: list[str]) -> float:
    """Harmonic mean of precision and recall over two lists of words, whose order does not count."""
    common = sum((Counter(answer) & Counter(gold)).values())
    return 2 * common / (len(answer) + len(gold)) if common else 0.0


def _words(text: str) -> list[str]:
    words = _WORD.findall(normalise_words(undressed(text)))
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


def strict_search_f1(case: Case) -> Verdict:
    """Word F1 of the last closed `<finish>` tag; 0.1 where no word is right."""
    answer = _last_finish(case.completion)
    if answer is None:
        return Verdict(0.0, detail="no <finish>")
    score = _best_f1(answer, search_labels(case.gold), _words)
    return Verdict(score or _FORMAT_SHARE, detail=shorten(f"answer {answer}"))


def tulu3_search_f1(case: Case) -> Verdict:
    """open-instruct's ReSearchVerifierF1, for which an opening or a closing tag alone is enough."""
    if "<finish>" not in case.completion and "</finish>" not in case.completion:
        return Verdict(0.0)
    answer = case.completion.split("<finish>")[-1].split("</finish>")[0]
    if not answer:
        return Verdict(0.0)
    return Verdict(_best_f1(answer, search_labels(case.gold), _squad_words) or _FORMAT_SHARE)


STRING_MATCH = Verifier(
    check=gold_texts,
    strict=_phrase_grade(_last_answer),
    # open-instruct's StringMatcherVerifier.
    tulu3=_squad_grade(_upstream_last_answer),
    place="here",
)
# open-instruct's PuzzleMatcherVerifier.
PUZZLE = replace(STRING_MATCH, strict=_phrase_grade(final_answer), tulu3=_squad_grade(remove_thinking_section))
EXACT = replace(PUZZLE, strict=strict_exact)
FLAN = replace(
    STRING_MATCH,
    strict=_phrase_grade(_flan_answer),
    # open-instruct's FlanVerifier, which grades the thinking too.
    tulu3=_squad_grade(lambda completion: completion.split("The answer is: ")[-1].strip()),
)
STRING_F1 = replace(STRING_MATCH, strict=strict_f1, tulu3=tulu3_f1)
RE_SEARCH = replace(
    STRING_MATCH,
    check=search_labels,
    strict=_phrase_grade(_last_finish, search_labels),
    # open-instruct's R1SearchVerifier: the first `<finish>` tag.
    tulu3=_squad_grade(_upstream_first_finish, search_labels),
)
RE_SEARCH_F1 = replace(RE_SEARCH, strict=strict_search_f1, tulu3=tulu3_search_f1)
