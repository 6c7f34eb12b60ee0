"""reward_model: a learned score among the verifiers.

Nothing here loads or asks a model: whoever has completions (RLVR, `tulu sample`, `tulu verify`) asks a reward model for all of
them at once (tulu.reward_models.grader.RewardGrader), so that prompts are shared and rows are packed.
"""

from typing import Any

from tulu.errors import RecipeError
from tulu.types import Verdict
from tulu.verifiers.contract import Case, Verifier

NAME = "reward_model"


def ready() -> None:
    """RecipeError: where a reward model is at hand, nobody asks this."""
    raise RecipeError(
        f"verifier {NAME!r}: there is no reward model to ask; set rlvr.reward_model.path in the recipe, "
        "or --reward-model PATH on the command line (`tulu rm` trains one)"
    )


def check(_gold: Any) -> None:
    """Any ground truth will do, also none: the model judges by the prompt."""


def strict(_case: Case) -> Verdict:
    """One completion alone is never asked for here."""
    raise RecipeError("a reward model scores completions in batches, not one by one")


REWARD_MODEL = Verifier(check=check, strict=strict, place="here", ready=ready)
