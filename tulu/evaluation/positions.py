"""How long answers may be, so that every prompt and its answer fit the positions of the model that answers."""

import logging
from collections.abc import Sequence

from tulu.config.options import USUAL_ANSWER
from tulu.config.positions import usual_answer
from tulu.errors import RecipeError, first_few
from tulu.types import Problem

log = logging.getLogger("tulu")


def answer_tokens(given: int | None, most: int, option: str) -> int:
    """Most tokens of an answer of a model with `most` positions; `given` is None where nobody named a number.

    Raises RecipeError where the number that somebody gave as `option` leaves no position to a prompt.
    """
    if given is None:
        tokens = usual_answer(USUAL_ANSWER, most)
        if tokens < USUAL_ANSWER:
            log.info(
                "answers have at most %d tokens, half of the model's %d positions; %s sets another number", tokens, most, option
            )
        return tokens
    if given >= most:
        raise RecipeError(f"{option} {given}: the model has {most} positions, for prompt and answer; lower it")
    return given


def check_prompts(problems: Sequence[Problem], tokens: int, most: int, option: str) -> None:
    """Raise RecipeError where a prompt and an answer of so many tokens need more positions than the model has."""
    long = [problem for problem in problems if len(problem.prompt) + tokens > most]
    if not long:
        return
    longest = max(len(problem.prompt) for problem in long)
    room = most - longest
    cure = f"lower {option} to {room} or less, or " if room > 0 else ""
    rows = first_few([problem.id for problem in long])
    raise RecipeError(
        f"{len(long)} of {len(problems)} prompts leave no room for answers of {tokens} tokens: the longest has {longest}, and "
        f"the model {most} positions for both; {cure}leave these rows out: {rows}"
    )
