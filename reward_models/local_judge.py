"""A judge that is run on this machine, by the engine that samples rollouts."""

from collections.abc import Sequence
from typing import Any

from transformers import AutoConfig

from tulu.data.chat import encode_prompts, template_hash
from tulu.errors import RecipeError
from tulu.model.load import from_pretrained, load_tokenizer
from tulu.reward_models.options import RewardBenchOptions
from tulu.rollout.engine import EngineSpec, positions
from tulu.rollout.engines import make_engine
from tulu.types import Message, Problem, SamplingParams


class LocalJudge:
    """A chat model in this machine's memory."""

    def __init__(self, model: str, options: RewardBenchOptions) -> None:
        """Raises RecipeError where nothing says how many tokens the model can read."""
        self.tokenizer = load_tokenizer(model, options.template or "tokenizer")
        most = options.max_length or positions(from_pretrained(AutoConfig, model))
        if most is None:
            raise RecipeError(f"{model}: its configuration states no longest length; give one with --max-length")
        self.max_length = most
        spec = EngineSpec(model, self.max_length, options.precision, version=0)
        self.engine = make_engine(options.engine, spec)
        self.settings: dict[str, Any] = {
            "backend": "local",
            "template": template_hash(self.tokenizer),
            "max_length": self.max_length,
            "precision": options.precision,
        }

    def close(self) -> None:
        """Free the engine."""
        self.engine.close()

    def replies(self, chats: Sequence[Sequence[Message]], max_tokens: int) -> list[str | None]:
        """Greedy replies, in order; None for a conversation that leaves no room for a reply."""
        encoded = encode_prompts(self.tokenizer, chats)
        refused = next((one.problem for one in encoded if one.problem), None)
        if refused is not None:
            raise RecipeError(f"the judge's chat template refuses the judge prompt ({refused}); choose another --template")
        fits = [index for index, one in enumerate(encoded) if len(one.tokens) + max_tokens <= self.max_length]
        problems = [Problem(str(index), chats[index], encoded[index].tokens, None, ()) for index in fits]
        replies: list[str | None] = [None] * len(chats)
        if problems:
            groups = self.engine.generate(problems, 1, SamplingParams(max_tokens, temperature=0.0))
            for index, group in zip(fits, groups, strict=True):
                replies[index] = str(self.tokenizer.decode(list(group.completions[0].tokens), skip_special_tokens=True))
        return replies
