# ruff: noqa: E501 (many short cases on a line)
from typing import Any

import pytest

from tulu.verifiers.contract import GoldError
from tulu.verifiers.registry import VERIFIERS
from tulu.verifiers.strings import EXACT

TAG = "<answer>{}</answer>".format
FINISH = "<finish>{}</finish>".format
# (verifier, completion, ground truth, strict, tulu3)
CASES: list[tuple[str, str, Any, float, float]] = [
    ("string_match", TAG("The Cat."), "cat", 1, 1),
    ("string_match", "cat", "cat", 0, 0),
    ("string_match", TAG("dog") + TAG("cat"), "cat", 1, 1),
    ("string_match", TAG("cat") + TAG("dog"), "cat", 0, 0),
    ("string_match", "<think>" + TAG("cat") + "</think>", "cat", 0, 1),
    ("string_match", TAG("-5"), "5", 0, 1),
    ("string_match", TAG("1.5"), "15", 0, 1),
    ("string_match", TAG("C++"), "C", 0, 1),
    ("string_match", TAG("the"), "a", 0, 1),
    ("string_match", TAG("42.0"), "42", 1, 0),
    ("puzzle", "<think>a city</think>" + TAG("The capital of France is Paris."), "capital of france is paris", 1, 1),
    ("puzzle", "The answer is 42!", "answer is 42", 1, 1),
    ("puzzle", "", "42", 0, 0),
    ("puzzle", "hello\tworld\n", "hello world", 1, 1),
    ("puzzle", "!!!", "???", 0, 1),
    ("string_f1", "hello world", "hello", 2 / 3, 2 / 3),
    ("string_f1", "hello world", ["goodbye", "hello world"], 1, 1),
    ("string_f1", "hello world", ["hello", "world"], 2 / 3, 2 / 3),
    ("string_f1", "hello world", "goodbye", 0, 0),
    ("string_f1", "-5", "5", 0, 1),
    ("string_f1", "<think>hello</think>", "hello", 0, 0),
    ("flan", "So. The answer is: Paris.", "paris", 1, 1),
    ("flan", "The answer is: Rome. The answer is: Paris", "Paris", 1, 1),
    ("flan", "Paris", "Paris", 1, 1),
    ("flan", "The answer is: Paris and Rome", "Paris", 0, 0),
    ("re_search", FINISH("Paris"), '["paris", "Lutetia"]', 1, 1),
    ("re_search", FINISH("Rome") + FINISH("Paris"), "Paris", 1, 0),
    ("re_search", "Paris", "Paris", 0, 0),
    ("re_search_f1", FINISH("London"), "Paris", 0.1, 0.1),
    ("re_search_f1", "London", "Paris", 0, 0),
    ("re_search_f1", "Paris </finish>", "Paris", 0, 1),
    ("re_search_f1", FINISH("Paris France"), '["Paris"]', 2 / 3, 2 / 3),
]


@pytest.mark.parametrize(("name", "completion", "gold", "strict", "tulu3"), CASES)
def test_both_modes(name: str, completion: str, gold: Any, strict: float, tulu3: float) -> None:
    verifier = VERIFIERS[name]
    verifier.check(gold)
    assert verifier(completion, gold).score == pytest.approx(strict)
    assert verifier(completion, gold, "tulu3").score == pytest.approx(tulu3)


def test_the_old_name_is_the_same_verifier() -> None:
    assert VERIFIERS["string_matcher"] is VERIFIERS["string_match"]


@pytest.mark.parametrize(
    ("a", "b"),
    [(".5", "5"), ("-.5", "5"), ("-.5", ".5"), ("+.25", "25"), ("3/4", "4/3"), ("x<3", "x>3"), ("2*3", "2^3"), ("-5", "5"), ("C++", "C"), ("1.5", "15"), ("1,5", "15")],
)  # fmt: skip
def test_a_sign_is_part_of_a_value(a: str, b: str) -> None:
    for name, form in (
        ("string_f1", "{}"),
        ("puzzle", "{}"),
        ("string_match", "<answer>{}</answer>"),
        ("flan", "The answer is: {}"),
    ):
        for answer, gold in ((a, b), (b, a)):
            assert (VERIFIERS[name](form.replace("{}", answer), gold).score or 0) < 1, (name, answer, gold)
            assert VERIFIERS[name](form.replace("{}", answer), answer).score == 1


NOTHING = ["", " ", "\u200b", "\ufeff", "\u2800", "\u3164", "\u0301", "<think>Paris", "<think>Paris</think>", "<thinking>Paris</thinking>", "\u25c1think\u25b7Paris\u25c1/think\u25b7"]  # fmt: skip
HOLLOW = [
    "<answer>\u200b</answer>",
    "<answer></answer>",
    "<finish> </finish>",
    "<finish>\u200b</finish>",
    "The answer is:",
    "$$",
    "****",
    "\\boxed{}",
    "\\text{}",
]


@pytest.mark.parametrize(
    "name", ["string_match", "puzzle", "flan", "exact", "string_f1", "re_search", "re_search_f1", "multiple_choice"]
)
def test_nothing_is_no_answer(name: str) -> None:
    for gold in ("A",) if name == "multiple_choice" else ("Paris", "a", "the", "-"):
        for completion in (*NOTHING, *HOLLOW):
            assert VERIFIERS[name](completion, gold).score == 0, (completion, gold)


CHOICES = {"answer": "B", "choices": ["Rome", "Paris", "Oslo"]}


@pytest.mark.parametrize(
    ("completion", "gold", "score"),
    [
        ("The answer is (B).", "B", 1),
        ("The answer is B", "b", 1),
        (r"\boxed{B}", "B", 1),
        (r"\boxed{\text{(B)}}", "B", 1),
        (TAG("B"), "B", 1),
        ("**Answer: B**", "B", 1),
        ("A is wrong.\n\n(B)", "B", 1),
        ("B", "B", 1),
        ("The answer is A. No: the answer is B", "B", 1),
        ("The answer is B. Option C is wrong.", "B", 1),
        ("The answer is A or B", "B", 0),
        ("The answer is B or C", "B", 0),
        ("A, B, C", "B", 0),
        (r"\boxed{A, B}", "A", 0),
        ("<think>The answer is B</think> unsure", "B", 0),
        ("Because of this and that", "B", 0),
        ("The answer is Paris.", CHOICES, 1),
        ("The answer is Oslo", CHOICES, 0),
        (TAG("Paris"), CHOICES, 1),
        ("", "B", 0),
    ],
)
def test_multiple_choice(completion: str, gold: Any, score: float) -> None:
    assert VERIFIERS["multiple_choice"](completion, gold).score == score


@pytest.mark.parametrize(
    ("completion", "score"),
    [
        ("answer is b", 1), ("b", 1), ("(b)", 1), (r"\boxed{b}", 1), ("The answer is b.", 1), ("<answer>b)</answer>", 1),
        ("Option B", 1), ("The answer is option B", 1), ("The answer is **B**.", 1), ("B) Paris", 1), ("B: Paris", 1),
        ("The answer is B. A is wrong.", 1), ("The answer is B (not A)", 1), ("The answer is b because", 0), ("the answer is a bit odd", 0),
        ("The answer is B A C D", 0), ("The answer is B. A. C.", 0), ("The answer is B (A)", 0), ("A) Rome\nB) Paris", 0),
        ("Answer: B: A: C:", 0), ("<answer>B A</answer>", 0),
    ],
)  # fmt: skip
def test_letters_in_other_dress_and_lists_of_letters(completion: str, score: float) -> None:
    assert VERIFIERS["multiple_choice"](completion, "B").score == score


@pytest.mark.parametrize("name", ["string_match", "puzzle", "flan", "exact", "math", "string_f1"])
def test_a_list_of_golds_means_any_in_both_modes(name: str) -> None:
    for mode in ("strict", "tulu3"):
        for gold, score in ((["4", "5"], 1), (["4", "6"], 0)):
            completion = {"string_match": "<answer>5</answer>", "math": r"\boxed{5}"}.get(name, "5")
            assert VERIFIERS[name](completion, gold, mode).score == score


@pytest.mark.parametrize("gold", ["", "Z", "AB", 3, {"answer": "D", "choices": ["a"]}, {"answer": "A", "choices": [1]}, None])
def test_multiple_choice_golds(gold: Any) -> None:
    with pytest.raises(GoldError):
        VERIFIERS["multiple_choice"].check(gold)


@pytest.mark.parametrize(
    ("completion", "gold", "strict", "tulu3"),
    [
        # The tulu3 column holds open-instruct's own tests of its puzzle verifier, and its measured quirks.
        (
            "<think>a city</think><answer>The capital of France is Paris.</answer>",
            "The capital of France is Paris.",
            1,
            1,
        ),
        ("<think>a city</think><answer>The capital of France is Paris.</answer>", "capital of france is paris", 0, 1),
        ("The answer is 42!", "answer is 42", 0, 1),
        ("", "42", 0, 0),
        ("hello\tworld\n", "hello world", 1, 1),
        ("-5", "5", 0, 1),
        ("1.5", "15", 0, 1),
        ("C++", "C", 0, 1),
        ("the", "a", 0, 1),
        ("!!!", "???", 0, 1),
        ("５", "5", 1, 0),
        ("<answer>1</answer> <answer>2</answer>", "2", 1, 0),
        ("<answer>1</answer> <answer>2</answer>", "1", 0, 0),
        ("<think>7</think>", "7", 0, 0),
        ("<think>7", "7", 0, 0),
    ],
)
def test_exact(completion: str, gold: str, strict: float, tulu3: float) -> None:
    assert EXACT(completion, gold).score == strict
    assert EXACT(completion, gold, "tulu3").score == tulu3


def test_any_answer_that_exact_accepts_counts() -> None:
    assert EXACT("NYC", ["New York", "NYC"]).score == 1


@pytest.mark.parametrize("gold", ["", "  ", None, [], ["x", ""], {"a": 1}])
def test_golds_that_exact_cannot_use(gold: object) -> None:
    with pytest.raises(GoldError):
        EXACT.check(gold)
