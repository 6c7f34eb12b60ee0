"""reward_model: a place for a learned score among the verifiers.

Nothing here loads a model: whoever holds one (tulu.reward_models) registers a function of prompt and answer for as long as
it can be asked.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from tulu.errors import RecipeError
from tulu.types import Verdict
from tulu.verifiers.contract import Case, Verifier
from tulu.verifiers.text import after_thinking

Scorer = Callable[[str, str], float]
_scorers: list[Scorer] = []


@contextmanager
def serving(scorer: Scorer) -> Iterator[None]:
    """Answers the verifier's questions with `scorer(prompt, answer)`, which has to be safe to call from threads."""
    _scorers.append(scorer)
    try:
        yield
    finally:
        _scorers.remove(scorer)


def ready() -> None:
    """RecipeError unless a reward model is being served in this process."""
    if not _scorers:
        raise RecipeError("verifier 'reward_model': no reward model is served in this process")


def check(_gold: Any) -> None:
    """Any ground truth will do: the model judges by the prompt."""


def strict(case: Case) -> Verdict:
    """The model's score of what follows the thinking."""
    ready()
    return Verdict(float(_scorers[-1](case.prompt, after_thinking(case.completion))))


REWARD_MODEL = Verifier(check=check, strict=strict, place="thread", ready=ready)
