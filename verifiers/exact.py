"""exact: the answer is the gold, letter for letter.

strict compares what stands in the last `<answer>` tag (else all after the thinking), spaces collapsed and full-width
characters read as ASCII; case, signs and punctuation count. tulu3 is open-instruct's PuzzleMatcherVerifier
(ground_truth_utils.py @ e6c3044), which lower-cases and deletes punctuation and articles, so that -5 is 5 and C++ is C.
"""

import unicodedata

from tulu.types import Verdict
from tulu.verifiers.contract import Case, Verifier, gold_texts, right, shorten
from tulu.verifiers.text import final_answer, plain, remove_thinking_section, squad


def _spelled(text: str) -> str:
    return " ".join(plain(unicodedata.normalize("NFC", text)).split())


def check(gold: object) -> None:
    """GoldError unless the ground truth is a non-empty string or number, or a list of accepted ones."""
    gold_texts(gold)


def strict(case: Case) -> Verdict:
    """1 where the answer is one of the accepted ones."""
    answer = _spelled(final_answer(case.completion))
    return right(answer in {_spelled(gold) for gold in gold_texts(case.gold)}, shorten(f"answer {answer}"))


def tulu3(case: Case) -> Verdict:
    """1 where both are equal after SQuAD's normalisation."""
    return right(squad(remove_thinking_section(case.completion)) in {squad(text) for text in gold_texts(case.gold)})


EXACT = Verifier(check=check, strict=strict, tulu3=tulu3, place="here")
