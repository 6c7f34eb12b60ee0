"""Tokens as the stretches of text that are trained and those that are only read."""

from collections.abc import Sequence
from itertools import groupby
from typing import Any

from tulu.types import Group

SHOWN_TOKENS = 1200
"""Most tokens that are shown of a sequence."""

Stretches = list[tuple[str, bool]]
"""Texts in order, and of each whether it is trained."""


def stretches(tokens: Sequence[int], trained: Sequence[bool], tokenizer: Any, most: int = SHOWN_TOKENS) -> Stretches:
    """The first tokens as stretches of text."""
    pairs = zip(tokens[:most], trained[:most], strict=True)
    return [
        (tokenizer.decode([token for token, _ in run]), bool(is_trained))
        for is_trained, run in groupby(pairs, key=lambda pair: pair[1])
    ]


def sample_row(group: Group, tokenizer: Any) -> dict[str, Any]:
    """A group as the model reads it, as plain values: {id, prompt, completions, tokens, trained, cut, margin}.

    A prompt and a completion are lists of [text, whether it is trained]; `cut` counts the tokens that are not shown.
    """
    sequences = [group.prompt, *(completion.tokens for completion in group.completions)]
    return {
        "id": group.id,
        "prompt": stretches(group.prompt, [False] * len(group.prompt), tokenizer),
        "completions": [stretches(completion.tokens, completion.trained, tokenizer) for completion in group.completions],
        "tokens": group.n_tokens,
        "trained": sum(completion.n_trained for completion in group.completions),
        "cut": sum(max(0, len(tokens) - SHOWN_TOKENS) for tokens in sequences),
        "margin": group.margin,
    }
