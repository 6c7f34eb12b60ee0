"""The reward model: the trunk that all stages share, with a scalar head that is read at the last token of each completion."""

import math
from pathlib import Path
from typing import Any, Unpack

import torch
from torch import Tensor, nn
from transformers import AutoModelForSequenceClassification, PreTrainedModel, PreTrainedTokenizerBase

from tulu.errors import RecipeError
from tulu.model.batch import Batch
from tulu.model.dropout import start_training
from tulu.model.embeddings import rows_needed
from tulu.model.fidelity import SCORE
from tulu.model.gathering import whole
from tulu.model.load import LoadOptions, load_model, load_tokenizer
from tulu.model.packed import PackedModel, PackedModule
from tulu.model.published import unwrap
from tulu.model.quiet import quiet
from tulu.model.spreading import opened
from tulu.model.trunk import Read
from tulu.reward_models import families  # noqa: F401  (registers heads)

PAD = "<|pad|>"
"""The pad token that is given to a tokenizer without one."""


class RewardModule(PackedModule):
    """Trunk and scalar head."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__(model)
        self.score: nn.Linear = unwrap(model).score  # type: ignore[assignment]

    def forward(self, batch: Batch, read: Read = "last") -> Tensor:
        """(C,) rewards of the completions, or with `read="trained"` (N,) values of the states before their trained tokens."""
        hidden_CH = self.trunk(batch, read)
        # In bfloat16, rewards such as 4.01 and 4.0 would be equal, so the head works in float32.
        dtype = torch.promote_types(hidden_CH.dtype, torch.float32)
        return nn.functional.linear(hidden_CH.to(dtype), self.score.weight.to(dtype))[:, 0]


class RewardModel(PackedModel[RewardModule]):
    """A model that gives every completion of a batch a scalar reward."""

    module_class = RewardModule

    @classmethod
    def load(
        cls,
        path: str | Path,
        *,
        template: str = "tokenizer",
        trainable: bool = False,
        new_head: int | None = None,
        **options: Unpack[LoadOptions],
    ) -> "RewardModel":
        """A trained reward model, or with `new_head` (a seed) one whose head is N(0, 1/√(h+1)) on the given trunk.

        The initialisation is open-instruct's (reward_modeling.py @ e6c3044a). Raises RecipeError if the folder holds no
        trained head and none is asked for, or no model of that architecture takes a scalar head.
        """
        tokenizer = load_tokenizer(path, template, options.get("revision"), options.get("trust_remote_code", False))

        def prepare(model: Any, missing: set[str]) -> set[str]:
            if new_head is not None:
                give_pad_token(model, tokenizer)
                initialise_head(model.score, new_head)
                return {SCORE}
            if SCORE in missing:
                reason = "no trained reward head in this model (score.weight is missing)"
                raise RecipeError(f"{path}: {reason}\nTrain one with: tulu rm RECIPE")
            return set()

        auto_class = AutoModelForSequenceClassification
        with quiet():
            model = load_model(
                auto_class, path, tokenizer=tokenizer, trainable=trainable, prepare=prepare, num_labels=1, **options
            )
        reward_model = cls(model, tokenizer)
        # The head is trained as a whole beside adapters.
        reward_model.module.score.weight.requires_grad_(trainable)
        if trainable:
            start_training(reward_model.module)
        else:
            reward_model.module.eval()
        return reward_model

    def score(self, batch: Batch) -> Tensor:
        """(C,) float32 rewards, one a completion, which do not depend on what else is in the batch."""
        rewards_C: Tensor = self.runner(batch.to(self.device))
        return rewards_C


def initialise_head(head: nn.Linear, seed: int) -> None:
    """Fill the head with N(0, 1/√(h+1)), alike in every process."""
    with whole(head.weight, overwrite=True) as weight:
        generator = torch.Generator().manual_seed(seed)
        fresh = torch.empty(weight.shape).normal_(0.0, 1 / math.sqrt(weight.shape[1] + 1), generator=generator)
        weight.data.copy_(fresh)


def give_pad_token(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> None:
    """Give tokenizer and configuration a pad token that does not end a turn.

    AutoModelForSequenceClassification reads its score before trailing pad tokens, vLLM at the last token. If the pad token were
    EOS, the two would read different tokens, and neither would be sure to read the one that was trained.
    """
    if tokenizer.pad_token_id is None or tokenizer.pad_token_id == tokenizer.eos_token_id:
        tokenizer.add_special_tokens({"pad_token": PAD})
    if (needed := rows_needed(tokenizer)) > model.config.get_text_config().vocab_size:
        with opened(model):
            model.resize_token_embeddings(needed, mean_resizing=False)
    model.config.get_text_config().pad_token_id = tokenizer.pad_token_id
    model.config.pad_token_id = tokenizer.pad_token_id
