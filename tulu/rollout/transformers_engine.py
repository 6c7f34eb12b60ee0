"""Rollouts in the process of the learner, with the learner's own model object where that holds whole weights."""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase

from tulu.errors import EngineError, RecipeError
from tulu.model.attention import ordinary_attention_of
from tulu.model.devices import default_device
from tulu.model.dropout import evaluating
from tulu.model.gathering import unsharded
from tulu.model.generation import stop_token_ids
from tulu.model.load import from_pretrained, load_model
from tulu.model.private_state import attention_of
from tulu.model.published import merged_weights
from tulu.rollout.cache import bytes_per_token
from tulu.rollout.decode import EndCondition, decode
from tulu.rollout.engine import STALE, EngineSpec, Part, Places, ProgressCallback, check_answer, check_request
from tulu.rollout.sampling import StopTexts
from tulu.types import Completion, Group, Problem, SamplingParams

MAX_ROWS = 512
"""Most completions that are decoded together. With more, a CPU gains nothing and the logits grow large."""


@contextmanager
def ordinary_attention(model: PreTrainedModel) -> Iterator[None]:
    """Give the model transformers' own attention, and afterwards the attention that it had before."""
    before, ordinary = attention_of(model), ordinary_attention_of(model)
    if before == ordinary:
        yield
        return
    model.set_attn_implementation(ordinary)
    try:
        yield
    finally:
        model.set_attn_implementation(before)


class TransformersEngine:
    """Samples in this process, without a second copy of the weights."""

    exact = True

    def __init__(
        self,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        spec: EngineSpec,
        progress: ProgressCallback | None = None,
        loaded_here: bool = False,
        learner: nn.Module | None = None,
    ) -> None:
        self.model = model
        self.tokenizer = tokenizer
        self.spec = spec
        self.version = spec.version
        self.progress = progress
        self.loaded_here = loaded_here
        """Whether this engine loaded the model. Otherwise it is the learner's model and always has the learner's weights."""
        self.stop_tokens = stop_token_ids(tokenizer, model.generation_config, spec.turn_ends)
        """The tokens that end a completion."""
        self.learner = learner
        """The model of a learner whose weights are sharded, which an engine that loaded its own copies at every sync."""

    @classmethod
    def load(
        cls, spec: EngineSpec, progress: ProgressCallback | None = None, learner: nn.Module | None = None
    ) -> "TransformersEngine":
        """Make an engine that loads its own model, which may follow a learner. Raises EngineError if the folder does not load."""
        try:
            origin: Any = {"revision": spec.revision, "trust_remote_code": spec.trust_remote_code}
            tokenizer = from_pretrained(AutoTokenizer, spec.folder, **origin)
            with unsharded():
                model = load_model(AutoModelForCausalLM, spec.folder, precision=spec.precision, tokenizer=tokenizer, **origin)
        except RecipeError as error:
            raise EngineError(str(error)) from error
        return cls(model.to(default_device()), tokenizer, spec, progress, loaded_here=True, learner=learner)

    def sync(self, weights: Iterable[tuple[str, Tensor]], version: int) -> None:
        """Record the version. Nothing is copied where the weights are the learner's own.

        Raises EngineError if this engine loaded its own model and follows no learner.
        """
        if self.learner is not None:
            self._copy(self.learner)
        elif self.loaded_here:
            self.version = STALE
            raise EngineError(
                f"this engine holds the weights of {self.spec.folder}; to follow a learner, make it with the learner's model"
            )
        self.version = version

    @torch.no_grad()
    def _copy(self, learner: nn.Module) -> None:
        """Take over a learner's weights, one after the other; every process must do so."""
        self.version = STALE
        own = self.model.state_dict(keep_vars=True)
        for name, tensor in merged_weights(learner):
            own[name].copy_(tensor)

    def close(self) -> None:
        """Refuse to sample from now on."""
        self.version = STALE

    def generate(self, problems: Sequence[Problem], n: int, params: SamplingParams) -> list[Group]:
        """Sample n completions of each problem and return one Group per problem, in order.

        Except for rounding, the completions of a problem do not depend on the other problems.
        """
        completions: list[list[Completion]] = [[] for _ in problems]
        for part in self.sample(problems, n, params, [range(n)] * len(problems)):
            for index, _, completion in part:
                completions[index].append(completion)
        return [Group(problem.prompt, own, problem.id) for problem, own in zip(problems, completions, strict=True)]

    def sample(self, problems: Sequence[Problem], n: int, params: SamplingParams, wanted: Places) -> Iterator[Part]:
        """The same completions, those of each batch when its last one ends.

        A batch is sampled whole or not at all, because its rows move each other's log-probs by a rounding. Of the problems that
        are left after some batches the same batches are made again, and so a run that was killed ends at the same bits.
        """
        check_request(self.version, problems, n, params, self.spec.max_length)
        device = self.model.device
        end = EndCondition(
            tokens=torch.tensor(self.stop_tokens, dtype=torch.long, device=device),
            texts=StopTexts(self.tokenizer, params.stop) if params.stop else None,
        )
        total, before = len(problems) * n, 0

        def report_finished(finished: int) -> None:
            """Report the completions of earlier batches and those that are finished in the current one."""
            if self.progress is not None:
                self.progress(before + finished, total)

        for indices in self._batches(problems, n, params.max_tokens):
            chosen = [problems[index] for index in indices]
            with ordinary_attention(self.model), evaluating(self.model):
                completions = decode(self.model, chosen, n, params, end, report_finished).completions(self.version)
            before += len(completions)
            report_finished(0)
            rows = {index: completions[i * n : (i + 1) * n] for i, index in enumerate(indices)}
            check_answer([Group((), rows[index], problems[index].id) for index in sorted(rows)])
            yield [(index, sample, rows[index][sample]) for index in indices for sample in wanted[index]]

    def _batches(self, problems: Sequence[Problem], n: int, max_tokens: int) -> Iterator[list[int]]:
        """Indices of problems with prompts of similar length, at least one and as many as memory and MAX_ROWS allow."""
        budget = self.spec.cache_bytes // bytes_per_token(self.model.config, self.model.dtype)
        batch: list[int] = []
        for index in sorted(range(len(problems)), key=lambda i: len(problems[i].prompt)):
            rows = (len(batch) + 1) * n
            if batch and (rows > MAX_ROWS or rows * (len(problems[index].prompt) + max_tokens) > budget):
                yield batch
                batch = []
            batch.append(index)
        if batch:
            yield batch
