"""The frozen models of RLVR: the one that the stage starts from and a teacher, asked about tokens, and a reward model."""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from tulu.config.schema import Rlvr
from tulu.errors import RecipeError
from tulu.grading.grader import split_off_reward_model
from tulu.model.batch import Batch
from tulu.model.gathering import gathered, unsharded
from tulu.model.load import Origin, checked_config
from tulu.model.parallel import Parallel
from tulu.model.policy import Policy
from tulu.model.positions import check_length
from tulu.reward_models.grader import RewardGrader
from tulu.train.open import StageRun
from tulu.types import Problem

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

TokenLogps = Callable[[Batch], Tensor]
"""A batch to the (N,) log-probs of its trained tokens under a model that does not train."""


def load_kl_reference(
    policy: Policy, run: StageRun, stage: Rlvr, template: str, options: Origin | None = None
) -> TokenLogps | None:
    """Log-probs under the starting model: of frozen weights, or of the policy without its adapters; None if β is 0."""
    if not stage.beta:
        return None
    if stage.lora:
        return _asking(policy, policy.without_adapter, stage.temperature)
    frozen = _frozen(run.start, run.parallel, stage, template, options or Origin())
    return _asking(frozen, partial(gathered, frozen.module), stage.temperature)


def load_teacher(policy: Policy, parallel: Parallel, stage: Rlvr, trust_remote_code: bool) -> TokenLogps | None:
    """Log-probs under the recipe's teacher; None without one. RecipeError where it reads other tokens, or shorter texts."""
    if stage.teacher is None:
        return None
    path, revision = stage.teacher.path, stage.teacher.revision
    config = checked_config(path, trainable=True, revision=revision, trust_remote_code=trust_remote_code)
    check_length(stage.max_prompt + stage.max_tokens, "rlvr.max_prompt + rlvr.max_tokens", config, path)
    options = Origin(revision=revision, trust_remote_code=trust_remote_code)
    # It is asked about tokens alone, so any template will do, and a teacher may lack one.
    teacher = _frozen(path, parallel, stage, "tulu", options)
    check_same_tokens(policy.tokenizer, teacher.tokenizer, "rlvr.teacher", "the teacher", "name one of the same tokenizer")
    return _asking(teacher, partial(gathered, teacher.module), stage.temperature)


def check_same_tokens(
    tokenizer: "PreTrainedTokenizerBase", other: "PreTrainedTokenizerBase", key: str, name: str, cure: str
) -> None:
    """RecipeError unless the other tokenizer has the tokens of the policy's; it may have more, such as a pad token of its own."""
    vocabulary = other.get_vocab()
    if any(vocabulary.get(token) != index for token, index in tokenizer.get_vocab().items()):
        raise RecipeError(f"{key}: {name} has another vocabulary than the policy; {cure}")


def _frozen(path: str, parallel: Parallel, stage: Rlvr, template: str, options: Origin) -> Policy:
    frozen = Policy.load(path, template=template, precision=stage.precision, trainable=False, **options)
    parallel.prepare_frozen(frozen.module)
    return frozen


def _asking(model: Policy, weights: Callable[[], AbstractContextManager[Any]], temperature: float) -> TokenLogps:
    """Log-probs under a model whose weights are there while the context lasts.

    Under ZeRO-3 frozen weights are sharded as they load, with no engine around them to gather them.
    """

    @torch.no_grad()
    def logps(batch: Batch) -> Tensor:
        with weights():
            return model.logps(batch, temperature)

    return logps


def load_reward_model(
    stage: Rlvr, problems: Sequence[Problem], runs: Path, trust_remote_code: bool = False
) -> RewardGrader | None:
    """The recipe's reward model, whole in every process. RecipeError where no row would ask it, or there is none."""
    if stage.reward_model is None:
        return None
    if stage.reward_model.rows == "named" and all(split_off_reward_model(problem)[1] is None for problem in problems):
        raise RecipeError("rlvr.reward_model.rows: named, and no row's verifiers name reward_model; set it to all, or name it")
    with unsharded():
        return RewardGrader.load(stage.reward_model, runs / "rm" / "model", trust_remote_code)
