"""Scores against transformers one text at a time, implicit rewards against plain log-probs, whatever the packing."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, AutoTokenizer, PreTrainedTokenizerBase

from tulu.errors import DataError
from tulu.model.policy import Policy
from tulu.reward_models.encoding import Limits, encode_items, encode_whole, to_groups, trimmed
from tulu.reward_models.items import Item
from tulu.reward_models.model import RewardModel
from tulu.reward_models.scorers import ClassifierScorer, DpoScorer, Reduction
from tulu.reward_models.sections import is_tied
from tulu.types import Message

NO_LIMIT = Limits(None)


def item(key: str, prompt: list[str], *answers: str, chosen: int = 1) -> Item:
    roles = ["user", "assistant"]
    messages: list[Message] = [{"role": roles[k % 2], "content": content} for k, content in enumerate(prompt)]
    tails: list[tuple[Message, ...]] = [({"role": "assistant", "content": answer},) for answer in answers]
    return Item(key, "x", tuple(messages), tuple(tails[:chosen]), tuple(tails[chosen:]), f"f:{key}")


ITEMS = [
    item("1", ["What is 2 + 2?"], "4", "5, since 2 + 2 is 5"),
    item("2", ["Hi", "Hello!", "Say more"], "More words", "More", "Mo", "A ünïcode answer 🙂", chosen=2),
    item("3", ["Same start"], "The same beginning, then this", "The same beginning, then that"),
    item("4", ["Level"], "equal", "equal"),
    item("5", ["Prefix"], "abc", "abcd"),
]


def plain_score(folder: Path, tokenizer: PreTrainedTokenizerBase, one: Item) -> list[float]:
    """The oracle: transformers, one text, no batch, no padding."""
    model = AutoModelForSequenceClassification.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager").eval()
    scores = []
    for answer in one.answers:
        messages: Any = [*one.prompt, *answer]
        text = tokenizer.apply_chat_template(messages, tokenize=False)
        tokens = tokenizer(text, add_special_tokens=False, return_tensors="pt")["input_ids"]
        with torch.no_grad():
            scores.append(model(input_ids=tokens).logits[0, 0].item())
    return scores


@pytest.mark.parametrize("family", ["olmo2", "olmo3", "qwen3", "llama"])
def test_classifier_equals_transformers_one_at_a_time(family: str, tiny_reward_model: Callable[..., Path]) -> None:
    folder = tiny_reward_model(family)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    expected = [plain_score(folder, tokenizer, one) for one in ITEMS]
    model = RewardModel.load(folder)
    for row_tokens in (64, 300, 8192):
        scorer = ClassifierScorer(model, Limits(None, row_tokens=row_tokens), tokenizer.pad_token_id)
        for order in (ITEMS, ITEMS[::-1]):
            for one, found in zip(order, scorer.score(order), strict=True):
                assert found.scores == pytest.approx(expected[ITEMS.index(one)], abs=1e-5)
        alone = [scorer.score([one])[0].scores for one in ITEMS]
        assert alone == [pytest.approx(row, abs=1e-5) for row in expected]


def test_pad_that_is_eos_is_read_as_transformers_reads_it(tiny_reward_model: Callable[..., Path], tmp_path: Path) -> None:
    source = tiny_reward_model("olmo2")
    tokenizer = AutoTokenizer.from_pretrained(source)
    model = AutoModelForSequenceClassification.from_pretrained(source)
    model.config.pad_token_id = tokenizer.eos_token_id
    tokenizer.pad_token = tokenizer.eos_token
    model.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    scorer = ClassifierScorer(RewardModel.load(tmp_path), NO_LIMIT, tokenizer.eos_token_id)
    expected = [plain_score(tmp_path, tokenizer, one) for one in ITEMS]
    assert [found.scores for found in scorer.score(ITEMS)] == [pytest.approx(row, abs=1e-5) for row in expected]
    at_eos = ClassifierScorer(RewardModel.load(tmp_path), NO_LIMIT, None)
    assert at_eos.score(ITEMS[:1])[0].scores != pytest.approx(expected[0], abs=1e-5)


def test_equal_answers_tie_exactly(tiny_reward_model: Callable[..., Path]) -> None:
    found = ClassifierScorer(RewardModel.load(tiny_reward_model("olmo2")), NO_LIMIT, None).score(ITEMS)[3]
    assert is_tied(ITEMS[3].scored(found.scores), "free")


def test_long_rows_keep_their_end_and_are_counted(tiny_reward_model: Callable[..., Path]) -> None:
    folder = tiny_reward_model("olmo2")
    tokenizer = AutoTokenizer.from_pretrained(folder)
    one = item("9", ["A long question " * 5], "short", "An answer that is longer than the limit itself, by far")
    whole = encode_whole(tokenizer, [one], NO_LIMIT)[0]
    cut = encode_whole(tokenizer, [one], Limits(30))[0]
    assert [answer.tokens for answer in cut] == [answer.tokens[-30:] for answer in whole]
    assert [answer.cut for answer in cut] == [len(answer.tokens) - 30 for answer in whole]
    # "short" and EOS are 6 tokens; the other's 55 and EOS lose their first 26.
    assert [answer.answer for answer in cut] == [24, 0]
    assert [answer.answer_cut for answer in cut] == [0, len("An answer that is longer than the limit itself, by far") + 1 - 30]
    details = ClassifierScorer(RewardModel.load(folder), Limits(30), None).score([one])[0].details
    assert details["answer_cut"] == [0, 25]


def test_shared_beginnings_are_laid_once(tiny_reward_model: Callable[..., Path]) -> None:
    tokenizer = AutoTokenizer.from_pretrained(tiny_reward_model("olmo2"))
    encoded = encode_whole(tokenizer, ITEMS, NO_LIMIT)
    for answers, group in zip(encoded, to_groups(encoded, trained=False), strict=True):
        assert [[*group.prompt, *completion.tokens] for completion in group.completions] == [answer.tokens for answer in answers]
        assert all(completion.tokens for completion in group.completions)
    answered = encode_items(tokenizer, ITEMS, NO_LIMIT)
    for answers, group in zip(answered, to_groups(answered, trained=True), strict=True):
        assert len(group.prompt) <= answers[0].answer
        assert all(c.n_trained == len(a.tokens) - a.answer for c, a in zip(group.completions, answers, strict=True))


def test_bos_is_written_once(tiny_model: Callable[..., Path]) -> None:
    tokenizer = AutoTokenizer.from_pretrained(tiny_model("olmo2"))
    bos = tokenizer.bos_token_id
    plain = encode_items(tokenizer, ITEMS[:1], NO_LIMIT)[0][0]
    added = encode_items(tokenizer, ITEMS[:1], Limits(None, add_bos=True))[0][0]
    assert (added.tokens, added.answer) == ([bos, *plain.tokens], plain.answer + 1)
    tokenizer.chat_template = "{{ bos_token }}" + tokenizer.chat_template
    assert encode_items(tokenizer, ITEMS[:1], Limits(None, add_bos=True))[0][0].tokens == added.tokens


def test_trimmed_never_empties() -> None:
    from tulu.reward_models.encoding import EncodedAnswer

    assert trimmed(EncodedAnswer([7, 7, 7], 1), 7).tokens == [7]
    assert trimmed(EncodedAnswer([1, 7, 2, 7, 7], 1), 7).tokens == [1, 7, 2]
    assert trimmed(EncodedAnswer([1, 7], 1), None).tokens == [1, 7]


def test_a_template_that_refuses_names_the_row(tiny_reward_model: Callable[..., Path]) -> None:
    tokenizer = AutoTokenizer.from_pretrained(tiny_reward_model("olmo2"))
    odd = Item("1", "x", ({"role": "tool", "content": "x"},), ITEMS[0].chosen, ITEMS[0].rejected, "f:17")
    with pytest.raises(DataError, match=r"f:17: .*role tool"):
        encode_whole(tokenizer, [ITEMS[0], odd], NO_LIMIT)


def plain_logps(folder: Path, tokens: list[int], start: int) -> torch.Tensor:
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager").eval()
    with torch.no_grad():
        logps = model(input_ids=torch.tensor([tokens])).logits[0].log_softmax(-1)
    return logps[:-1].gather(1, torch.tensor(tokens[1:])[:, None])[start - 1 :, 0]


@pytest.mark.parametrize("reduction", ["sum", "avg", "norm"])
def test_reference_free_rewards(reduction: Reduction, tiny_model: Callable[..., Path]) -> None:
    folder = tiny_model("olmo2")
    policy = Policy.load(folder, trainable=False)
    reduce: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
        "sum": torch.sum,
        "avg": torch.mean,
        "norm": lambda logps: -logps.square().sum().sqrt(),
    }
    for row_tokens in (100, 8192):
        found = DpoScorer(policy, None, reduction, Limits(None, row_tokens=row_tokens)).score(ITEMS)
        for answers, one in zip(encode_items(policy.tokenizer, ITEMS, NO_LIMIT), found, strict=True):
            expected = [reduce[reduction](plain_logps(folder, answer.tokens, answer.answer)).item() for answer in answers]
            assert one.scores == pytest.approx(expected, abs=2e-4, rel=1e-5)
            assert not any(math.isnan(score) for score in one.scores)
