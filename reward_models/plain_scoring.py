"""Classifiers that packed rows cannot serve, in padded batches: encoders, heads of other shapes, attention with capped logits."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForSequenceClassification, PreTrainedModel

from tulu.errors import RecipeError
from tulu.model.load import default_device, load_model, load_tokenizer
from tulu.model.weights import weights_digest
from tulu.reward_models.encoding import Limits, encode_whole
from tulu.reward_models.items import Item
from tulu.reward_models.scorers import ScoredAnswers, by_item, text_settings


def needs_plain(config: Any) -> str:
    """Why a classifier of this configuration cannot be scored in packed rows; empty where it can."""
    if config.get_text_config().to_dict().get("attn_logit_softcapping"):
        # Only eager attention caps; SDPA leaves it out without a word (allenai/reward-bench, issue 163).
        return "its attention caps logits"
    try:
        with torch.device("meta"):
            model = AutoModelForSequenceClassification.from_config(config)
    except ValueError as error:
        reason = str(error).splitlines()[0]
        raise RecipeError(f"{config.model_type}: no classifier of this architecture ({reason}); try --kind dpo") from error
    head = [dict(child.named_parameters()) for name, child in model.named_children() if name == "score"]
    return "" if head and list(head[0]) == ["weight"] else "its head is no plain `score` layer"


class PlainClassifierScorer:
    """AutoModelForSequenceClassification as it is, with eager attention, on right-padded batches of like length."""

    def __init__(
        self, path: str | Path, template: str, precision: str, limits: Limits, row_tokens: int, revision: str | None = None
    ) -> None:
        self.tokenizer = load_tokenizer(path, template, revision)
        self.limits = limits
        self.row_tokens = row_tokens

        def prepare(model: PreTrainedModel, missing: set[str]) -> None:
            if missing:
                names = ", ".join(sorted(missing))
                raise RecipeError(f"{path}: no trained reward head in this model ({names} missing); give a trained one")

        model = load_model(
            AutoModelForSequenceClassification,
            path,
            precision=precision,
            revision=revision,
            prepare=prepare,
            attn_implementation="eager",
        )
        self.model: PreTrainedModel = model.to(default_device()).eval()
        self.pad = self.model.config.get_text_config().pad_token_id
        self.settings = {
            "kind": "classifier",
            "weights": weights_digest(iter(dict(self.model.named_parameters()).items())),
            **text_settings(self.tokenizer, limits),
        }

    def close(self) -> None:
        """The model goes with the scorer."""

    def score(self, items: Sequence[Item]) -> list[ScoredAnswers]:
        """Scores in float32."""
        encoded = encode_whole(self.tokenizer, items, self.limits)
        texts = [answer.tokens for answers in encoded for answer in answers]
        scores = [float("nan")] * len(texts)
        for rows in self._batches(texts):
            for row, score in zip(rows, self._forward([texts[row] for row in rows]), strict=True):
                scores[row] = score
        return by_item(encoded, scores)

    def _batches(self, texts: Sequence[list[int]]) -> list[list[int]]:
        """Rows of like length whose padded size stays within `row_tokens`; one at a time where there is no pad token."""
        batches: list[list[int]] = []
        for row in sorted(range(len(texts)), key=lambda row: len(texts[row])):
            room = self.pad is not None and batches and (len(batches[-1]) + 1) * len(texts[row]) <= self.row_tokens
            if room:
                batches[-1].append(row)
            else:
                batches.append([row])
        return batches

    @torch.no_grad()
    def _forward(self, texts: Sequence[list[int]]) -> list[float]:
        length = max(map(len, texts))
        tokens_BL = torch.full((len(texts), length), self.pad or 0, dtype=torch.long)
        mask_BL = torch.zeros_like(tokens_BL)
        for row, tokens in enumerate(texts):
            tokens_BL[row, : len(tokens)] = torch.tensor(tokens)
            mask_BL[row, : len(tokens)] = 1
        device = next(self.model.parameters()).device
        logits_B1 = self.model(input_ids=tokens_BL.to(device), attention_mask=mask_BL.to(device)).logits
        return [float(score) for score in logits_B1[:, 0].float()]
