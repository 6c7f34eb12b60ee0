"""Rewards of answers: a classifier's score at the last token, or a DPO policy's implicit reward.

Both read packed prompt groups, so a prompt is computed once for all its answers and nothing is padded.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from tulu.data.chat import template_hash
from tulu.errors import RecipeError
from tulu.model.batch import Batch, pack, sum_by_owner
from tulu.model.policy import Policy
from tulu.reward_models.encoding import EncodedAnswer, Limits, encode_items, encode_whole, to_groups, trimmed
from tulu.reward_models.items import Item
from tulu.reward_models.model import RewardModel

Reduction = Literal["sum", "avg", "norm"]


@dataclass(frozen=True, slots=True)
class ScoredAnswers:
    """What a scorer found for one item: a score per answer, and more columns for its row."""

    scores: tuple[float, ...]
    credit: float | None = None
    details: Mapping[str, Any] | None = None


class Scorer(Protocol):
    """Anything that scores items; `settings` is what the scores depend on."""

    @property
    def settings(self) -> Mapping[str, Any]: ...

    def score(self, items: Sequence[Item]) -> list[ScoredAnswers]: ...

    def close(self) -> None: ...


class ClassifierScorer:
    """A reward model: the scalar at each answer's last token."""

    def __init__(self, model: RewardModel, limits: Limits, row_tokens: int, pad: int | None) -> None:
        """`pad` is the pad token of the model's own configuration: scores are read before trailing ones."""
        self.model = model
        self.limits = limits
        self.row_tokens = row_tokens
        self.pad = pad
        self.settings = {"kind": "classifier", "weights": model.digest(), **text_settings(model.tokenizer, limits)}

    def close(self) -> None:
        """The model goes with the scorer."""

    def score(self, items: Sequence[Item]) -> list[ScoredAnswers]:
        """Scores in float32, whatever the packing and the order."""
        encoded = [
            [trimmed(answer, self.pad) for answer in answers]
            for answers in encode_whole(self.model.tokenizer, items, self.limits)
        ]
        return by_item(encoded, score_packed(encoded, self.model.score, self.row_tokens, trained=False))


class DpoScorer:
    """A DPO policy's implicit reward: sum of log pi minus log ref over the answer; without reference a reduction of log pi.

    No β, no length norm (allenai/reward-bench, rewardbench/dpo.py @ 05a9005).
    """

    def __init__(self, policy: Policy, reference: Policy | None, reduction: Reduction, limits: Limits, row_tokens: int) -> None:
        self.policy = policy
        self.reference = reference
        self.reduction: Reduction = reduction
        self.limits = limits
        self.row_tokens = row_tokens
        weights = policy.digest()
        against = None if reference is None else reference.digest()
        if weights == against:
            raise RecipeError(
                "--reference: the same weights as the policy, so that every reward is 0; give the model DPO started from"
            )
        self.settings = {
            "kind": "dpo",
            "weights": weights,
            "reference": against,
            "reduction": reduction,
            **text_settings(policy.tokenizer, limits),
        }

    def close(self) -> None:
        """The models go with the scorer."""

    def score(self, items: Sequence[Item]) -> list[ScoredAnswers]:
        """Implicit rewards in float32."""
        encoded = encode_items(self.policy.tokenizer, items, self.limits)
        return by_item(encoded, score_packed(encoded, self._rewards, self.row_tokens, trained=True))

    def _rewards(self, batch: Batch) -> Tensor:
        logps_N = self.policy.logps(batch)
        owner_N = batch.owner_N.to(logps_N.device)
        if self.reference is not None:
            logps_N = logps_N - self.reference.logps(batch).to(logps_N.device)
        if self.reduction == "norm":
            return -sum_by_owner(logps_N.square(), owner_N, batch.n_completions).sqrt()
        total_C = sum_by_owner(logps_N, owner_N, batch.n_completions)
        return total_C if self.reduction == "sum" else total_C / batch.lengths_C.to(total_C.device).clamp(min=1)


def text_settings(tokenizer: PreTrainedTokenizerBase, limits: Limits) -> dict[str, Any]:
    """What a text is to a model: its template by hash, its longest length, who writes BOS."""
    return {"template": template_hash(tokenizer), "max_length": limits.max_length, "add_bos": limits.add_bos}


@torch.no_grad()
def score_packed(
    encoded: Sequence[Sequence[EncodedAnswer]], score: Callable[[Batch], Tensor], row_tokens: int, trained: bool
) -> list[float]:
    """One score per answer, in the order of the answers, from packed rows.

    Equal answers of an item are read once: rounding depends on the place in a row, and they have to tie.
    """
    different = [{(*answer.tokens, answer.answer): answer for answer in answers} for answers in encoded]
    scores = [[float("nan")] * len(answers) for answers in different]
    for batch in pack(to_groups([list(answers.values()) for answers in different], trained), row_tokens):
        values = score(batch).float().tolist()
        for (item, answer), value in zip(batch.index_C, values, strict=True):
            scores[item][answer] = value
    named = [dict(zip(answers, row, strict=True)) for answers, row in zip(different, scores, strict=True)]
    return [own[(*answer.tokens, answer.answer)] for own, answers in zip(named, encoded, strict=True) for answer in answers]


def by_item(encoded: Sequence[Sequence[EncodedAnswer]], scores: Sequence[float]) -> list[ScoredAnswers]:
    """Scores back to their items, with token counts and what was cut."""
    results, start = [], 0
    for answers in encoded:
        own = tuple(scores[start : start + len(answers)])
        start += len(answers)
        details = {
            "tokens": [len(answer.tokens) for answer in answers],
            "cut": [answer.cut for answer in answers],
            "answer_cut": [answer.answer_cut for answer in answers],
        }
        results.append(ScoredAnswers(own, None, details))
    return results
