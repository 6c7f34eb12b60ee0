"""reward_model: the name under which a row asks for the score of a reward model.

This file loads no model. RLVR, `tulu sample` and `tulu verify` hand all completions of a batch to a reward model at once
(reward_models/grader.py), so that it computes each prompt once.
"""

from typing import Any

from tulu.errors import RecipeError
from tulu.types import Verdict
from tulu.verifiers.contract import Case, Settings, Verifier

NAME = "reward_model"


def ready(_settings: Settings) -> None:
    """Always raises RecipeError: a command that has a reward model does not call this."""
    raise RecipeError(
        f"verifier {NAME!r}: there is no reward model to ask; set rlvr.reward_model.path in the recipe, "
        "or --reward-model PATH on the command line (`tulu rm` trains one)"
    )


def check(_gold: Any) -> None:
    """Accepts any ground truth, also none: a reward model reads the prompt and the completion alone."""


def strict(_case: Case) -> Verdict:
    """Always raises RecipeError: a reward model scores a batch, not one completion."""
    raise RecipeError("a reward model scores completions in batches, not one by one")


REWARD_MODEL = Verifier(check=check, strict=strict, place="here", ready=ready)
