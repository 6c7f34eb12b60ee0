"""exact: the answer equals the ground truth letter for letter.

strict takes the last `<answer>` tag, else all that follows the thinking; it collapses spaces and reads full-width characters as
ASCII, while case, signs and punctuation count. tulu3 is open-instruct's PuzzleMatcherVerifier
(ground_truth_utils.py @ e6c3044), which lower-cases and deletes punctuation and articles, so that -5 is 5 and C++ is C.
"""

import unicodedata

from tulu.types import Verdict
from tulu.verifiers.contract import Case, Verifier, gold_texts, pass_or_fail, shorten
from tulu.verifiers.text import final_answer, normalise_characters, normalise_squad, remove_thinking_section


def _normalise(text: str) -> str:
    return " ".join(normalise_characters(unicodedata.normalize("NFC", text)).split())


def check(gold: object) -> None:
    """GoldError unless the ground truth is a non-empty string or number, or a list of accepted ones."""
    gold_texts(gold)


def strict(case: Case) -> Verdict:
    """1 where the answer is one of the accepted ones."""
    answer = _normalise(final_answer(case.completion))
    return pass_or_fail(answer in {_normalise(gold) for gold in gold_texts(case.gold)}, shorten(f"answer {answer}"))


def tulu3(case: Case) -> Verdict:
    """1 where both are equal after SQuAD's normalisation."""
    answer = normalise_squad(remove_thinking_section(case.completion))
    return pass_or_fail(answer in {normalise_squad(text) for text in gold_texts(case.gold)})


EXACT = Verifier(check=check, strict=strict, tulu3=tulu3, place="here")
