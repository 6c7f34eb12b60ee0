"""Completions that settle on option B in many ways, and such as leave several options open."""

import time

import pytest

from tulu.verifiers.registry import VERIFIERS

MULTIPLE_CHOICE = VERIFIERS["multiple_choice"]
SETTLED = [
    "B",
    "$B$",
    "**B.**",
    '{"answer": "B"}',
    "答案：B",
    "答案是 B",
    "**Answer:** B",
    "Answer: **B**",
    "Answer:\n\nB",
    "The correct answer is **(B)**.",
    "The answer is B) Paris",
    '```json\n{"answer": "B"}\n```',
    "Die richtige Antwort ist B.",
    "La réponse correcte est B.",
    "A resposta correta é a letra B",
    "Правильный ответ: B",
    "正解はBです",
    "정답: B",
    "The answer to this question is B.",
    "I choose option B.",
    "So it must be (B).",
    "Option B is correct.",
    "B is the correct answer.",
    "A is wrong, so the answer is B.",
    "The answer is B, not A.",
    "The answer is B because A is wrong and C describes a plant.",
    "Answer: B\n\nExplanation: A is too small. C and D are too large.",
    "Answer: B\n(A) is incorrect: small.\n(C) is incorrect.",
    "\\boxed{\\textbf{(B)}}",
    "\\boxed{B. \\text{Paris}}",
    "\\boxed{\\mathrm{B}}",
    "$\\boxed{B}$",
    "The answer is $\\text{B}$.",
    "The best option is B",
    "B) 5",
    "B. 5",
    "Let me think.\nB) 5",
    "The final answer is: B",
    "Answer: B.",
    "answer: b",
    "Final answer: (b)",
    "The answer is B rather than A.",
    "Answer: B (A and C are wrong)",
    "The answer is: **B. Vitamin C**",
    "Answer: B) Type A blood",
    "Answer: B: plan A",
    "<answer>B</answer>",
    "<answer>(B) Paris</answer>",
    '{"reasoning": "A is bad", "answer": "B"}',
    '{"answer": "B) Paris"}',
    "Answer: B) Both A and C",
    "The answer is option B: both parties.",
    "The answer is B; it fits best.",
    "The answer is (B) I think.",
    "Reasoning...\n\n**B**",
    "ANSWER: B",
    "Ans: B? The answer is B",
    "The answer would be B.",
    "答案为B",
    "所以选B",
    "الإجابة: B",
    "Answer = B",
    "My answer: B",
    'The answer is "B".',
    "The answer is ‘B’.",
    "A, C and D are wrong; hence B is the answer.",
    "The answer is B, since C would need heat.",
    "B is correct because a dog barks.",
    "\\[\\boxed{B}\\]",
    "Answer: B - Paris",
    "B",
    "La respuesta correcta es la B",
    "It must be B",
    "So B is the best answer.",
    "Answer: $\\boxed{\\text{B}}$",
    "The correct option is B.",
    "**Final Answer: B**",
]
OPEN = [
    "A or B",
    "B or C",
    "Answer: B/C",
    "Answer: B and C",
    "Answer: B, C",
    "Answer: B & C",
    "Answer: B; C",
    "Answer: B + C",
    "Answer: B (or C)",
    "Answer: B if not C",
    "Answer: B unless C",
    "Answer: B, possibly C",
    "Answer: B maybe C",
    "Answer: either B or C",
    "Answer: B then C",
    "Answer: B\nC",
    "Answer: B\n\nC\n\nD",
    "Answer: (B) x (C) y",
    "Answer: B. C. D.",
    "\\boxed{B, C}",
    "\\boxed{B \\lor C}",
    "<answer>B C</answer>",
    "<answer>B|C</answer>",
    '{"answer": "B or C"}',
    '{"answer": ["B", "C"]}',
    "The answer is B. Or C.",
    "The answer is B. Maybe C.",
    "The answer is B, but C is also correct.",
    "The answer is B. C is also possible.",
    "The answer is not B",
    "Answer: none",
    "Answer: all of A, B, C",
    "Answer: B 50%, C 50%",
    "The answer is B (C)",
    "The answer is B or perhaps C",
    "B? C? D?",
    "Answer: B versus C",
    "Answer: B=C",
    "Answer: B | C",
    "Answer: B > C",
    "Answer: B because C",
    "The answer is B as well as C",
    "Answer: B\n- C\n- D",
    "Answer: B: x\nC: y",
    "\\boxed{B \\text{ and } C}",
    "\\boxed{\\{B, C\\}}",
    "A B C D",
    "ABCD",
    "A\nB\nC\nD",
    "A) Rome\nB) Paris\nC) Oslo",
    "答案：B或C",
    "答案：BC",
    "答案：B、C",
    "I don't think the answer is B",
    "The answer is B, or C if not",
    "la respuesta no es B",
    "It is not B",
    "Answer: B?? C??",
]


@pytest.mark.parametrize("completion", SETTLED)
def test_one_option_is_read(completion: str) -> None:
    assert [MULTIPLE_CHOICE(completion, gold).score for gold in "ABCD"] == [0, 1, 0, 0]


@pytest.mark.parametrize("completion", OPEN)
def test_several_options_are_none(completion: str) -> None:
    assert [MULTIPLE_CHOICE(completion, gold).score for gold in "ABCD"] == [0, 0, 0, 0]


JOINTS = [
    " or ",
    ", ",
    "/",
    " and ",
    " & ",
    "; ",
    " | ",
    " vs ",
    " then ",
    " also ",
    " if not ",
    " (or ",
    " (",
    ", maybe ",
    " as well as ",
    "\n",
    ") x (",
    ": x, ",
]
FORMS = [
    "Answer: {}",
    "The answer is {}.",
    "\\boxed{{}}",
    "<answer>{}</answer>",
    '{"answer": "{}"}',
    "**Answer: {}**",
    "The correct option is {}",
]


@pytest.mark.parametrize("form", FORMS)
def test_two_options_in_one_answer_are_none(form: str) -> None:
    """Every joint between every two options, in every form: 18 joints times 12 pairs."""
    for joint in JOINTS:
        for first in "ABCD":
            for second in set("ABCD") - {first}:
                completion = form.replace("{}", f"{first}{joint}{second}".replace("\n", "\\n" if form[0] == "{" else "\n"))
                assert [MULTIPLE_CHOICE(completion, gold).score for gold in (first, second)] == [0, 0], completion


def test_hostile_texts_answer_at_once() -> None:
    texts = [
        "answer " * 20_000,
        "The answer is A or " * 20_000,
        "A, " * 100_000,
        "(" * 1_000_000,
        "not A " * 100_000,
        "\\text{" * 100_000,
        '{"a":' * 100_000 + '"',
        "respuesta a " * 20_000,
    ]
    for text in texts:
        began = time.process_time()
        assert MULTIPLE_CHOICE(text, "B").score == 0
        assert time.process_time() - began < 1
