"""Sampling a batch of completions from a transformers model: prompts read once, all rows decoded together."""

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
"""Finished rows leave the batch once fewer than this part of its rows are still going: moving the others costs about a step."""


@dataclass
class Rows:
    """The batch of a moment: R rows, of which some may have finished already."""

    cache: Cache
    logits_RV: Tensor
    """Predictions of each row's next token."""
    mask_RL: Tensor
    """1 for tokens, 0 for the padding left of a short prompt; as long as prompt and completion may become."""
    position_R: Tensor
    """Position of the last token that was read."""
    length: int
    """Tokens read, padding included."""
    row_R: Tensor
    """Which completion each row is."""

    def keep(self, index: Tensor) -> None:
        """Make row i what row index[i] was; rows may repeat and may be left out."""
        self.cache.reorder_cache(index)  # type: ignore[arg-type]
        self.logits_RV, self.mask_RL, self.position_R, self.row_R = (
            tensor[index] for tensor in (self.logits_RV, self.mask_RL, self.position_R, self.row_R)
        )


class Sampled:
    """What comes of N completions of at most T tokens."""

    def __init__(self, n: int, length: int, device: torch.device) -> None:
        self.tokens_NT = torch.zeros(n, length, dtype=torch.long, device=device)
        self.logps_NT = torch.zeros(n, length, device=device)
        self.length_N = torch.full((n,), length, device=device)
        self.done_N = torch.zeros(n, dtype=torch.bool, device=device)

    def completions(self, version: int) -> list[Completion]:
        """One Completion each, stamped with the weights' version."""
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
class Ending:
    """What ends a completion: tokens, or texts found in what was decoded so far."""

    tokens: Tensor
    texts: StopTexts | None

    def reached(self, tokens_R: Tensor, sampled: Sampled, rows: Rows, step: int) -> Tensor:
        """(R,) whether the token just drawn is a row's last."""
        ended_R = torch.isin(tokens_R, self.tokens)
        if self.texts is not None:
            recent = sampled.tokens_NT[rows.row_R, max(0, step + 1 - self.texts.window) : step + 1]
            ended_R |= torch.tensor(self.texts.found(recent.tolist()), device=ended_R.device)
        return ended_R


def prefill(model: PreTrainedModel, problems: Sequence[Problem], n: int, max_tokens: int) -> Rows:
    """Read each prompt once, padded on the left, and lay out n rows for it."""
    device = model.device
    longest = max(len(problem.prompt) for problem in problems)
    tokens_PL = torch.zeros(len(problems), longest, dtype=torch.long)
    mask_PL = torch.ones(len(problems), longest + max_tokens, dtype=torch.long)
    for i, problem in enumerate(problems):
        padding = longest - len(problem.prompt)
        tokens_PL[i, padding:] = torch.tensor(problem.prompt)
        mask_PL[i, :padding] = 0
    tokens_PL, mask_PL = tokens_PL.to(device), mask_PL.to(device)
    positions_PL = (mask_PL[:, :longest].cumsum(-1) - 1).clamp(min=0)
    cache = growing_cache(model.config)
    logits_PV = read(model, cache, tokens_PL, mask_PL[:, :longest], positions_PL)
    rows = Rows(cache, logits_PV, mask_PL, positions_PL[:, -1], longest, torch.arange(len(problems), device=device))
    rows.keep(rows.row_R.repeat_interleave(n))
    rows.row_R = torch.arange(len(problems) * n, device=device)
    return rows


def read(model: PreTrainedModel, cache: Cache, tokens_RL: Tensor, mask_RK: Tensor, positions_RL: Tensor) -> Tensor:
    """(R, V) predictions of the next token after reading L more tokens into the cache; the mask covers all K so far."""
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


def decode(
    model: PreTrainedModel,
    problems: Sequence[Problem],
    n: int,
    params: SamplingParams,
    ending: Ending,
    finished: Callable[[int], None],
) -> Sampled:
    """Sample n completions of each problem, problem by problem; tells `finished` how many have ended."""
    rows = prefill(model, problems, n, params.max_tokens)
    sampled = Sampled(len(problems) * n, params.max_tokens, model.device)
    uniforms_NT = torch.cat([uniforms(params.seed, problem.id, n, params.max_tokens) for problem in problems]).to(model.device)
    for step in range(params.max_tokens):
        tokens_R, logps_R = draw(rows.logits_RV, uniforms_NT[rows.row_R, step], params.temperature, params.top_p)
        sampled.tokens_NT[rows.row_R, step] = tokens_R
        sampled.logps_NT[rows.row_R, step] = logps_R
        # A finished row runs on until it leaves the batch; what it draws then is beyond its length.
        going_R = ~sampled.done_N[rows.row_R]
        ended = rows.row_R[going_R & ending.reached(tokens_R, sampled, rows, step)]
        sampled.done_N[ended] = True
        sampled.length_N[ended] = step + 1
        going_R = ~sampled.done_N[rows.row_R]
        going = int(going_R.sum())
        finished(len(sampled.done_N) - going)
        if not going or step + 1 == params.max_tokens:
            break
        advance(model, rows, tokens_R, going_R if going < KEEP_FULL * len(going_R) else None)
    return sampled


def advance(model: PreTrainedModel, rows: Rows, tokens_R: Tensor, keep_R: Tensor | None) -> None:
    """Read the tokens just drawn, after dropping the rows that are not kept."""
    if keep_R is not None:
        index = keep_R.nonzero().squeeze(-1)
        rows.keep(index)
        tokens_R = tokens_R[index]
    rows.position_R = rows.position_R + 1
    rows.length += 1
    rows.logits_RV = read(model, rows.cache, tokens_R[:, None], rows.mask_RL[:, : rows.length], rows.position_R[:, None])
