"""A reward model in use: rewards of answers to prompts, to pick the best of N, to keep samples or drop them."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from transformers import AutoConfig

from tulu.policy import from_pretrained
from tulu.reward_models.best_of import best_of
from tulu.reward_models.encoding import Limits
from tulu.reward_models.items import Item
from tulu.reward_models.model import RewardModel
from tulu.reward_models.scoring import ClassifierScorer
from tulu.types import Message


@dataclass(frozen=True, slots=True)
class Choice:
    """The answer that a reward model prefers, and what it said of all."""

    index: int
    rewards: tuple[float, ...]
    cut: bool
    """Whether the conversation was longer than the model reads, so that its start was cut."""


class AnswerScorer:
    """Rewards of texts, in float32, whatever else is scored beside them."""

    def __init__(self, scorer: ClassifierScorer) -> None:
        self.scorer = scorer

    @classmethod
    def load(
        cls,
        path: str | Path,
        *,
        template: str = "tokenizer",
        precision: str = "fp32",
        max_length: int | None = None,
        row_tokens: int = 8192,
    ) -> "AnswerScorer":
        """From a folder or hub name. Raises RecipeError if it holds no trained head, or its tokenizer has no template."""
        config = from_pretrained(AutoConfig, path).get_text_config()
        positions = config.to_dict().get("max_position_embeddings")
        limits = [limit for limit in (max_length, positions) if limit is not None]
        model = RewardModel.load(path, template=template, precision=precision)
        return cls(ClassifierScorer(model, Limits(min(limits, default=None)), row_tokens, config.pad_token_id))

    def choose(self, prompts: Sequence[Sequence[Message]], answers: Sequence[Sequence[str]]) -> list[Choice]:
        """For each prompt (messages that end with the user) the best of its answers."""
        items = [_item(prompt, texts) for prompt, texts in zip(prompts, answers, strict=True)]
        return [
            Choice(best_of(found.scores), found.scores, any((found.details or {}).get("cut", ())))
            for found in self.scorer.score(items)
        ]

    def rewards(self, prompts: Sequence[Sequence[Message]], answers: Sequence[Sequence[str]]) -> list[tuple[float, ...]]:
        """The reward of each answer to each prompt."""
        return [choice.rewards for choice in self.choose(prompts, answers)]


def _item(prompt: Sequence[Message], texts: Sequence[str]) -> Item:
    tails: tuple[tuple[Message, ...], ...] = tuple(({"role": "assistant", "content": text},) for text in texts)
    return Item("", "", tuple(prompt), tails, ())
