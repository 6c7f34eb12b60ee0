"""An engine whose answers the test knows, in place of one that samples."""

from collections.abc import Callable, Sequence
from typing import Any

from tulu.types import Completion, Group, Problem

Answer = Callable[[str, int], str]
"""The text for a question (the last turn) and the number of the sample."""


class KnownEngine:
    """Answers each question as a function of its text and the number of the sample says, and keeps what it was asked."""

    version = 0

    def __init__(self, tokenizer: Any, answer: Answer) -> None:
        self.tokenizer, self.answer = tokenizer, answer
        self.asked: list[str] = []

    def generate(self, problems: Sequence[Problem], n: int, params: Any) -> list[Group]:
        """n completions of each problem."""
        groups = []
        for problem in problems:
            question = problem.messages[-1]["content"]
            self.asked.append(question)
            texts = [self.answer(question, number) for number in range(n)]
            tokens = [self.tokenizer.encode(text, add_special_tokens=False) for text in texts]
            groups.append(
                Group(problem.prompt, [Completion(ids, [True] * len(ids), finish="stop") for ids in tokens], problem.id)
            )
        return groups

    def close(self) -> None:
        """Nothing is held."""
