"""Sampling a batch of completions from a transformers model: each prompt is read once, and all rows are decoded together.

Shape letters: P prompts, N completions, R rows of the current batch, L tokens, T most tokens of a completion, V vocabulary.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel
from transformers.cache_utils import Cache

from tulu.rollout.cache import growing_cache
from tulu.rollout.sampling import StopTexts, draw, uniforms
from tulu.types import Completion, Problem, SamplingParams

KEEP_FULL = 0.85
"""Finished rows are removed once less than this fraction of the rows is unfinished. Moving the others costs about one step."""


@dataclass
class Rows:
    """The current batch: R rows, some of which may be finished already."""

    cache: Cache
    logits_RV: Tensor
    """Predictions of each row's next token."""
    mask_RL: Tensor
    """1 for tokens, 0 for the padding to the left of a short prompt. It covers the prompt and the longest completion."""
    position_R: Tensor
    """Position of the last token that was read."""
    length: int
    """Tokens read so far, including padding."""
    row_R: Tensor
    """The completion of each row, as its index among the N completions."""

    def select(self, index: Tensor) -> None:
        """Make row i the former row index[i]. Rows may be repeated or left out."""
        self.cache.reorder_cache(index)  # type: ignore[arg-type]
        self.logits_RV, self.mask_RL, self.position_R, self.row_R = (
            tensor[index] for tensor in (self.logits_RV, self.mask_RL, self.position_R, self.row_R)
        )


class Sampled:
    """What has been sampled for n completions of at most `length` tokens each."""

    def __init__(self, n: int, length: int, device: torch.device) -> None:
        self.tokens_NT = torch.zeros(n, length, dtype=torch.long, device=device)
        self.logps_NT = torch.zeros(n, length, device=device)
        self.length_N = torch.full((n,), length, device=device)
        self.done_N = torch.zeros(n, dtype=torch.bool, device=device)

    def record(self, rows: Rows, step: int, tokens_R: Tensor, logps_R: Tensor) -> None:
        """Store the tokens drawn in a step, and their log-probs."""
        self.tokens_NT[rows.row_R, step] = tokens_R
        self.logps_NT[rows.row_R, step] = logps_R

    def end(self, rows: Rows, step: int, ended_R: Tensor) -> Tensor:
        """Finish the completions that ended in a step, and return the (R,) rows that are unfinished.

        A finished row is decoded until it leaves the batch; what it draws then lies beyond its length and is ignored.
        """
        done_R = self.done_N[rows.row_R]
        # torch.where and not a selection of rows, which would wait for the device.
        self.length_N[rows.row_R] = torch.where(ended_R & ~done_R, step + 1, self.length_N[rows.row_R])
        self.done_N[rows.row_R] = done_R | ended_R
        return ~(done_R | ended_R)

    def completions(self, version: int) -> list[Completion]:
        """The N completions, marked with the version of the weights."""
        rows = zip(self.tokens_NT.tolist(), self.logps_NT.tolist(), self.length_N.tolist(), self.done_N.tolist(), strict=True)
        return [
            Completion(
                tokens=tokens[:length],
                trained=[True] * length,
                sampler_logps=logps[:length],
                finish="stop" if done else "length",
                versions=[(0, version)],
            )
            for tokens, logps, length, done in rows
        ]


@dataclass(frozen=True)
class EndCondition:
    """What ends a completion: an end token, or a stop text in what was decoded so far."""

    tokens: Tensor
    texts: StopTexts | None

    def reached(self, tokens_R: Tensor, sampled: Sampled, rows: Rows, step: int) -> Tensor:
        """(R,) whether the token just drawn is the last one of its row."""
        ended_R = torch.isin(tokens_R, self.tokens)
        if self.texts is not None:
            recent = sampled.tokens_NT[rows.row_R, max(0, step + 1 - self.texts.window) : step + 1]
            ended_R |= torch.tensor(self.texts.contained(recent.tolist()), device=ended_R.device)
        return ended_R


def decode(
    model: PreTrainedModel,
    problems: Sequence[Problem],
    n: int,
    params: SamplingParams,
    end: EndCondition,
    report_finished: Callable[[int], None],
) -> Sampled:
    """Sample n completions of each problem, problem by problem.

    `report_finished` is called after every step with the number of finished completions, which a device that works on its own
    tells a step late: to ask it for that of the present step would mean to wait until it has nothing left to do.
    """
    rows = prefill(model, problems, n, params.max_tokens)
    sampled = Sampled(len(problems) * n, params.max_tokens, model.device)
    uniforms_NT = torch.cat([uniforms(params.seed, problem.id, n, params.max_tokens) for problem in problems]).to(model.device)
    counts = Counts(late=model.device.type == "cuda")
    for step in range(params.max_tokens):
        tokens_R, logps_R = draw(rows.logits_RV, uniforms_NT[rows.row_R, step], params.temperature, params.top_p)
        sampled.record(rows, step, tokens_R, logps_R)
        unfinished_R = sampled.end(rows, step, end.reached(tokens_R, sampled, rows, step))
        unfinished = counts.next(unfinished_R.sum())
        if unfinished is not None:
            report_finished(len(sampled.done_N) - unfinished)
        if unfinished == 0 or step + 1 == params.max_tokens:
            break
        if unfinished is not None and unfinished < KEEP_FULL * len(unfinished_R):
            index = unfinished_R.nonzero().squeeze(-1)
            if not len(index):
                break
            rows.select(index)
            tokens_R = tokens_R[index]
        advance(model, rows, tokens_R)
    return sampled


class Counts:
    """Whole numbers of a device. Where they are `late`, each is read when the next one is given, and the device has work left."""

    def __init__(self, late: bool) -> None:
        self._late = late
        self._before: tuple[Tensor, torch.cuda.Event | None] | None = None

    def next(self, count: Tensor) -> int | None:
        """This count, or where they are late the one before, which is None at first."""
        if not self._late:
            return int(count)
        before, self._before = self._before, _begin_reading(count)
        if before is None:
            return None
        copied, event = before
        if event is not None:
            event.synchronize()
        return int(copied)


def _begin_reading(count: Tensor) -> tuple[Tensor, torch.cuda.Event | None]:
    """Memory that a number of a device is copied to, and the event after which it is there."""
    if not count.is_cuda:
        return count.clone(), None
    copied = torch.empty((), dtype=count.dtype, pin_memory=True).copy_(count, non_blocking=True)
    event = torch.cuda.Event()
    event.record()
    return copied, event


def prefill(model: PreTrainedModel, problems: Sequence[Problem], n: int, max_tokens: int) -> Rows:
    """Read each prompt once, padded on the left, and make n rows of it."""
    device = model.device
    longest = max(len(problem.prompt) for problem in problems)
    tokens_PL = torch.zeros(len(problems), longest, dtype=torch.long)
    mask_PL = torch.ones(len(problems), longest + max_tokens, dtype=torch.long)
    for i, problem in enumerate(problems):
        padding = longest - len(problem.prompt)
        tokens_PL[i, padding:] = torch.tensor(problem.prompt)
        mask_PL[i, :padding] = 0
    # They are filled on the CPU and moved once, instead of one small copy to the device per prompt.
    tokens_PL, mask_PL = tokens_PL.to(device), mask_PL.to(device)
    positions_PL = (mask_PL[:, :longest].cumsum(-1) - 1).clamp(min=0)
    cache = growing_cache(model.config)
    logits_PV = predict(model, cache, tokens_PL, mask_PL[:, :longest], positions_PL)
    rows = Rows(cache, logits_PV, mask_PL, positions_PL[:, -1], longest, torch.arange(len(problems), device=device))
    rows.select(rows.row_R.repeat_interleave(n))
    rows.row_R = torch.arange(len(problems) * n, device=device)
    return rows


def advance(model: PreTrainedModel, rows: Rows, tokens_R: Tensor) -> None:
    """Read the tokens just drawn, so that the rows hold the predictions of their next tokens."""
    rows.position_R = rows.position_R + 1
    rows.length += 1
    rows.logits_RV = predict(model, rows.cache, tokens_R[:, None], rows.mask_RL[:, : rows.length], rows.position_R[:, None])


def predict(model: PreTrainedModel, cache: Cache, tokens_RL: Tensor, mask_RK: Tensor, positions_RL: Tensor) -> Tensor:
    """Read L more tokens per row into the cache and return (R, V) predictions of the next one.

    The mask covers all K tokens read so far, the new ones included.
    """
    output: Any = model(
        input_ids=tokens_RL,
        attention_mask=mask_RK,
        position_ids=positions_RL,
        past_key_values=cache,
        use_cache=True,
        logits_to_keep=1,
    )
    logits_RV: Tensor = output.logits[:, -1]
    return logits_RV
