"""Scorers of preference items: a classifier's score at the last token, or the implicit reward of a DPO policy.

Classifiers and policies read packed prompt groups, so that a prompt is computed once for all its answers and nothing is padded.
Classifiers that packed rows cannot serve (encoders, heads of another shape, attention with capped logits) read padded batches.
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from transformers import AutoModelForSequenceClassification, PreTrainedModel, PreTrainedTokenizerBase

from tulu.data.chat import template_hash
from tulu.errors import RecipeError
from tulu.losses import sum_by_owner
from tulu.model.batch import Batch, pack
from tulu.model.devices import default_device
from tulu.model.load import load_model, load_tokenizer
from tulu.model.policy import Policy
from tulu.model.weights import weights_digest
from tulu.reward_models.encoding import EncodedAnswer, Limits, encode_items, encode_whole, to_groups, trimmed
from tulu.reward_models.items import Item, Scored
from tulu.reward_models.model import RewardModel
from tulu.reward_models.options import Reduction


class Scorer(Protocol):
    """Anything that scores the answers of items."""

    settings: Mapping[str, Any]
    """What the scores depend on."""

    def score(self, items: Sequence[Item]) -> list[Scored]:
        """The scores of every item, in order."""

    def close(self) -> None:
        """Free what the scorer holds besides its models, which go with it."""
        return


class ClassifierScorer(Scorer):
    """A reward model: its scalar at each answer's last token."""

    def __init__(self, model: RewardModel, limits: Limits, pad: int | None) -> None:
        """`pad` is the pad token of the model's own configuration: scores are read before trailing ones."""
        self.model, self.limits, self.pad = model, limits, pad
        self.settings = {"kind": "classifier", "weights": model.digest(), **text_settings(model.tokenizer, limits)}

    def score(self, items: Sequence[Item]) -> list[Scored]:
        """Scores in float32, which depend neither on the packing nor on the order."""
        encoded = [
            [trimmed(answer, self.pad) for answer in answers]
            for answers in encode_whole(self.model.tokenizer, items, self.limits)
        ]
        return group_by_item(items, encoded, score_packed(encoded, self.model.score, self.limits.row_tokens, trained=False))


class DpoScorer(Scorer):
    """A DPO policy: the sum of log pi minus log ref over the answer; without a reference a reduction of log pi.

    There is no β and no length norm (allenai/reward-bench, rewardbench/dpo.py @ 05a9005).
    """

    def __init__(self, policy: Policy, reference: Policy | None, reduction: Reduction, limits: Limits) -> None:
        """Raises RecipeError where policy and reference have the same weights."""
        self.policy, self.reference, self.reduction, self.limits = policy, reference, reduction, limits
        policy_digest = policy.digest()
        reference_digest = None if reference is None else reference.digest()
        if policy_digest == reference_digest:
            raise RecipeError(
                "--reference: the same weights as the policy, so that every reward is 0; give the model DPO started from"
            )
        self.settings = {
            "kind": "dpo",
            "weights": policy_digest,
            "reference": reference_digest,
            "reduction": reduction,
            **text_settings(policy.tokenizer, limits),
        }

    def score(self, items: Sequence[Item]) -> list[Scored]:
        """Implicit rewards in float32."""
        encoded = encode_items(self.policy.tokenizer, items, self.limits)
        return group_by_item(items, encoded, score_packed(encoded, self._rewards, self.limits.row_tokens, trained=True))

    def _rewards(self, batch: Batch) -> Tensor:
        """(C,) implicit rewards of a batch's completions."""
        logps_N = self.policy.logps(batch)
        owner_N = batch.owner_N.to(logps_N.device)
        if self.reference is not None:
            logps_N = logps_N - self.reference.logps(batch).to(logps_N.device)
        if self.reduction == "norm":
            return -sum_by_owner(logps_N.square(), owner_N, batch.n_completions).sqrt()
        total_C = sum_by_owner(logps_N, owner_N, batch.n_completions)
        return total_C if self.reduction == "sum" else total_C / batch.lengths_C.to(total_C.device).clamp(min=1)


class PlainClassifierScorer(Scorer):
    """AutoModelForSequenceClassification as it is, with eager attention, on right-padded batches of similar length."""

    def __init__(
        self,
        path: str | Path,
        template: str,
        precision: str,
        limits: Limits,
        revision: str | None = None,
        trust_remote_code: bool = False,
    ) -> None:
        """Raises RecipeError where the folder holds no trained head."""
        self.tokenizer = load_tokenizer(path, template, revision, trust_remote_code)
        self.limits = limits

        def refuse_new_head(model: PreTrainedModel, missing: set[str]) -> None:
            if missing:
                names = ", ".join(sorted(missing))
                raise RecipeError(f"{path}: no trained reward head in this model ({names} missing); give a trained one")

        model = load_model(
            AutoModelForSequenceClassification,
            path,
            precision=precision,
            revision=revision,
            trust_remote_code=trust_remote_code,
            tokenizer=self.tokenizer,
            prepare=refuse_new_head,
            attn_implementation="eager",
        )
        self.model: PreTrainedModel = model.to(default_device()).eval()
        self.pad = self.model.config.get_text_config().pad_token_id
        self.settings = {
            "kind": "classifier",
            "weights": weights_digest(self.model.named_parameters()),
            **text_settings(self.tokenizer, limits),
        }

    def score(self, items: Sequence[Item]) -> list[Scored]:
        """Scores in float32."""
        encoded = encode_whole(self.tokenizer, items, self.limits)
        texts = [answer.tokens for answers in encoded for answer in answers]
        scores = [float("nan")] * len(texts)
        for rows in self._batches(texts):
            for row, score in zip(rows, self._forward([texts[row] for row in rows]), strict=True):
                scores[row] = score
        return group_by_item(items, encoded, scores)

    def _batches(self, texts: Sequence[list[int]]) -> list[list[int]]:
        """Indices of texts of similar length, padded to at most `row_tokens`; one text a batch where there is no pad token."""
        batches: list[list[int]] = []
        for row in sorted(range(len(texts)), key=lambda row: len(texts[row])):
            if self.pad is not None and batches and (len(batches[-1]) + 1) * len(texts[row]) <= self.limits.row_tokens:
                batches[-1].append(row)
            else:
                batches.append([row])
        return batches

    @torch.no_grad()
    def _forward(self, texts: Sequence[list[int]]) -> list[float]:
        rows = [torch.tensor(tokens) for tokens in texts]
        tokens_BL = pad_sequence(rows, batch_first=True, padding_value=self.pad or 0)
        mask_BL = pad_sequence([torch.ones_like(row) for row in rows], batch_first=True)
        device = next(self.model.parameters()).device
        logits_B1 = self.model(input_ids=tokens_BL.to(device), attention_mask=mask_BL.to(device)).logits
        return [float(score) for score in logits_B1[:, 0].float()]


def text_settings(tokenizer: PreTrainedTokenizerBase, limits: Limits) -> dict[str, Any]:
    """What decides which tokens a model reads of a text: the template's hash, the longest length, and who writes BOS."""
    return {"template": template_hash(tokenizer), "max_length": limits.max_length, "add_bos": limits.add_bos}


@torch.no_grad()
def score_packed(
    encoded: Sequence[Sequence[EncodedAnswer]], score: Callable[[Batch], Tensor], row_tokens: int, trained: bool
) -> list[float]:
    """One score per answer, in the order of the answers, from packed rows.

    Equal answers of an item are read once: rounding depends on the place in a row, and they have to tie.
    """
    distinct = [{(*answer.tokens, answer.answer): answer for answer in answers} for answers in encoded]
    scores = [[float("nan")] * len(answers) for answers in distinct]
    for batch in pack(to_groups([list(answers.values()) for answers in distinct], trained), row_tokens):
        for (item, answer), value in zip(batch.index_C, score(batch).float().tolist(), strict=True):
            scores[item][answer] = value
    by_answer = [dict(zip(answers, row, strict=True)) for answers, row in zip(distinct, scores, strict=True)]
    return [row[(*answer.tokens, answer.answer)] for row, answers in zip(by_answer, encoded, strict=True) for answer in answers]


def group_by_item(items: Sequence[Item], encoded: Sequence[Sequence[EncodedAnswer]], scores: Sequence[float]) -> list[Scored]:
    """The items with the scores of their answers, token counts and what was cut."""
    remaining = iter(scores)
    return [
        item.scored(
            [next(remaining) for _ in answers],
            details={
                "tokens": [len(answer.tokens) for answer in answers],
                "cut": [answer.cut for answer in answers],
                "answer_cut": [answer.answer_cut for answer in answers],
            },
        )
        for item, answers in zip(items, encoded, strict=True)
    ]
