"""Rows of random tokens with the lengths that the speed cases need. Lengths matter to speed, what the tokens are does not."""

from collections.abc import Sequence

import numpy

from tulu.types import Completion, Group

PROMPT_SHARE = 0.2
"""The share of a conversation that is not trained."""
MEAN, SIGMA = 800, 0.8
"""Of the log-normal lengths of conversations, as instruction mixes have them: a median of 580 tokens."""


class Rows:
    """Groups of random tokens; the same arguments give the same rows."""

    def __init__(self, vocabulary: int) -> None:
        # The last ids are left out, so that a tokenizer's special tokens never appear.
        self.vocabulary = min(vocabulary, 256) if vocabulary < 1000 else vocabulary - 300
        self.random_state = numpy.random.RandomState(0)

    def tokens(self, count: int) -> list[int]:
        """So many random ids."""
        return list(map(int, self.random_state.randint(0, self.vocabulary, count)))

    def completion(self, count: int, sampled: bool = False) -> Completion:
        """A completion that is trained throughout."""
        logps = [0.0] * count if sampled else None
        return Completion(self.tokens(count), [True] * count, logps, "stop" if sampled else "data")

    def conversations(self, lengths: Sequence[int]) -> list[Group]:
        """A prompt and an answer for each length."""
        prompts = [max(1, int(PROMPT_SHARE * length)) for length in lengths]
        return [
            Group(self.tokens(prompt), (self.completion(length - prompt),), f"row:{number}")
            for number, (prompt, length) in enumerate(zip(prompts, lengths, strict=True))
        ]

    def pairs(self, lengths: Sequence[int]) -> list[Group]:
        """A prompt and two answers of different lengths for each length, which is that of a prompt with one answer on average."""
        groups = []
        for number, length in enumerate(lengths):
            prompt = max(1, length // 3)
            answers = max(2, 4 * (length - prompt) // 3), max(1, 2 * (length - prompt) // 3)
            groups.append(Group(self.tokens(prompt), tuple(map(self.completion, answers)), f"pair:{number}"))
        return groups

    def sampled(self, prompts: int, samples: int, prompt: int, answer: int) -> list[Group]:
        """Prompts with as many sampled completions each, all of full length."""
        return [
            Group(self.tokens(prompt), tuple(self.completion(answer, True) for _ in range(samples)), f"problem:{number}")
            for number in range(prompts)
        ]


def ragged(total: int, longest: int, mean: int = MEAN) -> list[int]:
    """Log-normal lengths that add up to about `total`, in the order in which they were drawn."""
    random_state = numpy.random.RandomState(1)
    lengths: list[int] = []
    while (left := total - sum(lengths)) > mean // 4:
        drawn = int(random_state.lognormal(numpy.log(mean) - SIGMA**2 / 2, SIGMA))
        lengths.append(max(8, min(drawn, longest, left)))
    return lengths


def useful_tokens(groups: Sequence[Group]) -> int:
    """The tokens of all sequences, each with its prompt: what a trainer without shared prompts would read, padding left out."""
    return sum(len(group.prompt) + len(completion.tokens) for group in groups for completion in group.completions)
