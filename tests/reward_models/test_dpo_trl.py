"""Implicit rewards are TRL's log-ratios, row by row."""

from collections.abc import Callable
from pathlib import Path

import pytest

from tulu.errors import RecipeError
from tulu.model.policy import Policy
from tulu.reward_models.encoding import Limits
from tulu.reward_models.items import Item
from tulu.reward_models.scorers import DpoScorer
from tulu.types import Message

TEXTS = [
    ("What is 2 + 2?", "4", "5, I think"),
    ("Sky?", "Blue by day.", "Green."),
    ("Short", "abc", "abcd"),
    ("Long " * 30, "a", "b" * 60),
]


def to_item(index: int, prompt: str, chosen: str, rejected: str) -> Item:
    def say(text: str) -> tuple[Message, ...]:
        return ({"role": "assistant", "content": text},)

    return Item(str(index), "x", ({"role": "user", "content": prompt},), (say(chosen),), (say(rejected),))


def test_rewards_equal_trl_log_ratios(tiny_model: Callable[..., Path], tmp_path: Path) -> None:
    from datasets import Dataset
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from trl import DPOConfig, DPOTrainer

    folder, start = tiny_model("olmo2", 0), tiny_model("olmo2", 1)
    items = [to_item(index, *texts) for index, texts in enumerate(TEXTS)]
    rows = {
        str(index): Dataset.from_list(
            [{"prompt": list(item.prompt), "chosen": list(item.chosen[0]), "rejected": list(item.rejected[0])}]
        )
        for index, item in enumerate(items)
    }
    config = DPOConfig(
        output_dir=str(tmp_path),
        beta=1.0,
        max_length=None,
        bf16=False,
        use_cpu=True,
        report_to="none",
        per_device_eval_batch_size=1,
        disable_tqdm=True,
    )
    trainer = DPOTrainer(
        model=AutoModelForCausalLM.from_pretrained(folder),
        ref_model=AutoModelForCausalLM.from_pretrained(start),
        args=config,
        train_dataset=rows["0"],
        eval_dataset=rows,
        processing_class=AutoTokenizer.from_pretrained(folder),
    )
    trainer.evaluate()
    logged = [entry for entry in trainer.state.log_history if "eval_rewards/chosen" in entry]

    policy, reference = Policy.load(folder, trainable=False), Policy.load(start, trainable=False)
    found = DpoScorer(policy, reference, "sum", Limits(None, row_tokens=4096)).score(items)
    for one, entry in zip(found, logged, strict=True):
        expected = (entry["eval_rewards/chosen"], entry["eval_rewards/rejected"])
        assert one.scores == pytest.approx(expected, rel=1e-5, abs=1e-4)


def test_a_policy_is_no_reference_of_itself(tiny_model: Callable[..., Path]) -> None:
    folder = tiny_model("olmo2", 0)
    policy, same = (Policy.load(folder, trainable=False) for _ in range(2))
    with pytest.raises(RecipeError, match="same weights"):
        DpoScorer(policy, same, "sum", Limits(None, row_tokens=4096))
