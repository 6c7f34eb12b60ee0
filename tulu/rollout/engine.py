"""The protocol of a rollout engine, what an engine is made from, and the requests that every engine refuses."""

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

import torch
from torch import Tensor

from tulu.errors import EngineError
from tulu.model.adapters_apart import AdapterForm
from tulu.model.masters import DTYPES
from tulu.types import Group, Problem, SamplingParams

STALE = -1
"""The version of an engine whose weights are not known to be the learner's. Such an engine refuses to sample."""

SHARED_SHARE = 0.45
"""The fraction of a GPU's memory that vLLM takes where the learner is on it, too."""

ProgressCallback = Callable[[int, int], None]
"""Called with (finished completions, requested completions) while an engine samples."""


class RolloutEngine(Protocol):
    """Samples completions with weights of a known version."""

    @property
    def version(self) -> int:
        """The version of the weights it samples with. It is STALE until the first sync and after any failure."""
        ...

    def generate(self, problems: Sequence[Problem], n: int, params: SamplingParams) -> list[Group]:
        """Sample n completions of each problem and return one Group per problem, in order.

        Every token carries its log-prob under the distribution it was drawn from; at temperature 0 that is the model's own
        distribution at temperature 1. A completion that ended by itself keeps its end token or stop text. The completions of
        a problem depend on `params.seed`, the problem's id and n, so the caller changes the seed from step to step.
        Raises EngineError if the engine is stale, a prompt does not fit, or the engine fails.
        """
        ...

    def sync(self, weights: Iterable[tuple[str, Tensor]], version: int) -> None:
        """Sample with these weights from now on; each comes with its name in a published checkpoint.

        Raises EngineError if the engine cannot take the weights; the engine is then stale.
        """
        ...

    def close(self) -> None:
        """Free what the engine holds."""
        ...


@dataclass(frozen=True)
class EngineSpec:
    """The model that an engine samples from, and its limits."""

    folder: str
    """Model folder or hub name, from which configuration, tokenizer and first weights are loaded."""
    max_length: int
    """Most tokens of a prompt and its completion together."""
    precision: Literal["bf16", "fp16", "fp32"] = "fp32"
    """The number format that the engine computes in."""
    version: int = STALE
    """The version of the folder's weights, if the engine may sample from them before a sync."""
    cache_bytes: int = 2 << 30
    """Memory for keys and values, in bytes. vLLM on a GPU uses `gpu_share` instead."""
    gpu_share: float | None = None
    """The fraction of a GPU's memory that vLLM may take; None is SHARED_SHARE."""
    sleeps: bool = False
    """Whether the engine gives its memory back while the learner trains, and takes it again with the next weights."""
    adapters: AdapterForm | None = None
    """Where syncs bring adapters alone, what those look like; None where they bring all weights."""
    load_threads: int = 1
    """On a CPU, the threads that lay new weights out as the engine computes with them: no token is sampled meanwhile."""
    timeout: float = 1800.0
    """Seconds that any one call to an engine in another process may take."""
    revision: str | None = None
    """Commit or tag of `folder` where it is a hub name."""
    trust_remote_code: bool = False
    """Whether code that the model brings along may run."""
    turn_ends: tuple[int, ...] = ()
    """Tokens that end a turn in the template that prompts are written with, where that is not the one of the folder."""

    @property
    def dtype(self) -> torch.dtype:
        """The torch dtype of `precision`."""
        return DTYPES[self.precision]


def check_request(version: int, problems: Sequence[Problem], n: int, params: SamplingParams, max_length: int) -> None:
    """Raise EngineError with the cure if an engine with weights of this version cannot sample what is requested."""
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


def check_answer(groups: list[Group]) -> list[Group]:
    """The groups that an engine sampled. Raises EngineError where the model that it sampled from predicts NaN."""
    for group in groups:
        if any(math.isnan(sum(completion.sampler_logps or ())) for completion in group.completions):
            raise EngineError(
                f"{group.id}: the model predicts NaN in place of probabilities, so what it samples means nothing\n"
                "Its weights are broken or too large; go back to a model or a checkpoint before, with a lower learning rate."
            )
    return groups
