import pytest

from tulu.verifiers.contract import GoldError
from tulu.verifiers.exact import EXACT


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
def test_both_modes(completion: str, gold: str, strict: float, tulu3: float) -> None:
    assert EXACT(completion, gold).score == strict
    assert EXACT(completion, gold, "tulu3").score == tulu3


def test_any_accepted_answer_counts() -> None:
    assert EXACT("NYC", ["New York", "NYC"]).score == 1


@pytest.mark.parametrize("gold", ["", "  ", None, [], ["x", ""], {"a": 1}])
def test_unusable_golds(gold: object) -> None:
    with pytest.raises(GoldError):
        EXACT.check(gold)
