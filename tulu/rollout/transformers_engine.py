"""Rollouts in the learner's own process, with the learner's own model object."""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase

from tulu.errors import EngineError
from tulu.rollout.cache import bytes_per_token
from tulu.rollout.decode import Ending, decode
from tulu.rollout.engine import STALE, EngineSpec, Progress, check_request
from tulu.rollout.sampling import StopTexts, end_tokens
from tulu.types import Group, Problem, SamplingParams

MAX_ROWS = 512
"""Completions decoded together: beyond it a CPU gains nothing and logits grow large."""
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}


@contextmanager
def ordinary_attention(model: PreTrainedModel) -> Iterator[None]:
    """The model with transformers' own attention, whichever one it trains with; put back afterwards."""
    before = model.config._attn_implementation
    if before in ("sdpa", "eager"):
        yield
        return
    model.set_attn_implementation("sdpa")
    try:
        yield
    finally:
        model.set_attn_implementation(before)


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """The model in evaluation mode and without gradients; every module gets its own mode back."""
    training = [module for module in model.modules() if module.training]
    model.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        for module in training:
            module.training = True


class TransformersEngine:
    """Samples in process, without a second copy of the weights."""

    def __init__(
        self,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        spec: EngineSpec,
        progress: Progress | None = None,
        own: bool = False,
    ) -> None:
        self.model = model
        self.tokenizer = tokenizer
        self.spec = spec
        self.version = spec.version
        self.progress = progress
        self.own = own
        """Whether the model was loaded here; otherwise it is the learner's, and always has the learner's weights."""

    @classmethod
    def load(cls, spec: EngineSpec, progress: Progress | None = None) -> "TransformersEngine":
        """An engine with a model of its own. Raises EngineError if the folder does not load."""
        try:
            model: Any = AutoModelForCausalLM.from_pretrained(spec.folder, dtype=DTYPES[spec.precision])
            tokenizer = AutoTokenizer.from_pretrained(spec.folder)
        except (OSError, ValueError) as error:
            raise EngineError(f"{spec.folder}: the model does not load ({error})") from error
        return cls(model.to("cuda" if torch.cuda.is_available() else "cpu"), tokenizer, spec, progress, own=True)

    def sync(self, weights: Iterable[tuple[str, Tensor]], version: int) -> None:
        """Take note of the version: the weights are the learner's own, so there is nothing to copy."""
        if self.own:
            self.version = STALE
            raise EngineError(
                f"this engine holds the weights of {self.spec.folder}; to follow a learner, make it with the learner's model"
            )
        self.version = version

    def close(self) -> None:
        """Refuse to sample from now on."""
        self.version = STALE

    def generate(self, problems: Sequence[Problem], n: int, params: SamplingParams) -> list[Group]:
        """One Group of n completions per problem, in order; what each samples does not depend on the others but by rounding."""
        check_request(self.version, problems, n, params, self.spec.max_length)
        device = self.model.device
        ending = Ending(
            tokens=torch.tensor(end_tokens(self.model.generation_config, self.tokenizer), dtype=torch.long, device=device),
            texts=StopTexts(self.tokenizer, params.stop) if params.stop else None,
        )
        groups: dict[int, Group] = {}
        with ExitStack() as stack:
            stack.enter_context(ordinary_attention(self.model))
            stack.enter_context(evaluating(self.model))
            stack.enter_context(torch.autocast(device.type, torch.bfloat16, enabled=self.spec.precision == "bf16"))
            for indices in self._chunks(problems, n, params.max_tokens):
                earlier = len(groups) * n
                sampled = decode(
                    self.model,
                    [problems[index] for index in indices],
                    n,
                    params,
                    ending,
                    finished=partial(self._tell_after, earlier, len(problems) * n),
                )
                completions = sampled.completions(self.version)
                for i, index in enumerate(indices):
                    problem = problems[index]
                    groups[index] = Group(problem.prompt, completions[i * n : (i + 1) * n], problem.id)
                self._tell(len(groups) * n, len(problems) * n)
        return [groups[index] for index in range(len(problems))]

    def _tell_after(self, earlier: int, total: int, done: int) -> None:
        self._tell(earlier + done, total)

    def _tell(self, done: int, total: int) -> None:
        if self.progress is not None:
            self.progress(done, total)

    def _chunks(self, problems: Sequence[Problem], n: int, max_tokens: int) -> Iterator[list[int]]:
        """Indices of problems with like prompt lengths, as many as memory and MAX_ROWS allow; at least one."""
        budget = self.spec.cache_bytes // bytes_per_token(self.model.config, self.model.dtype)
        chunk: list[int] = []
        for index in sorted(range(len(problems)), key=lambda i: len(problems[i].prompt)):
            rows = (len(chunk) + 1) * n
            if chunk and (rows > MAX_ROWS or rows * (len(problems[index].prompt) + max_tokens) > budget):
                yield chunk
                chunk = []
            chunk.append(index)
        if chunk:
            yield chunk
