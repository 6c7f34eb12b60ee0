"""A tokenizer with more tokens than the model has embeddings: refused at loading, or given rows that train."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, AutoTokenizer

from tests.model.policies import LORA
from tulu.data.chat import make_byte_tokenizer
from tulu.errors import RecipeError
from tulu.model.batch import pack
from tulu.model.embeddings import rows_needed
from tulu.model.policy import Policy
from tulu.reward_models.model import RewardModel
from tulu.rollout.engine import EngineSpec
from tulu.rollout.engines import make_engine
from tulu.types import Completion, Group

TEMPLATE = "{% for message in messages %}<|im_start|>{{ message.content }}<|im_end|>{% endfor %}"


@pytest.fixture(params=["untied", "tied"])
def larger_tokenizer(request: pytest.FixtureRequest, tiny_model: Callable[..., Path], tmp_path: Path) -> Path:
    """A model with 258 embeddings, and a tokenizer with the tokens 258 and 259 besides."""
    model = tiny_model("llama", tie_word_embeddings=request.param == "tied")
    folder = Path(shutil.copytree(model, tmp_path / "larger"))
    tokenizer = make_byte_tokenizer()
    tokenizer.add_special_tokens({"additional_special_tokens": ["<|im_start|>", "<|im_end|>"]})
    tokenizer.chat_template = TEMPLATE
    tokenizer.save_pretrained(folder)
    return folder


def test_tokens_without_embeddings_are_refused_when_the_model_is_loaded(larger_tokenizer: Path) -> None:
    for trainable in (True, False):
        with pytest.raises(RecipeError, match="260 tokens and the model embeddings for 258") as error:
            Policy.load(larger_tokenizer, trainable=trainable)
        assert "<|im_start|>, <|im_end|>" in str(error.value)
        assert "resize_embeddings: true" in str(error.value)


def test_new_rows_begin_at_the_mean_and_the_old_ones_stay(larger_tokenizer: Path) -> None:
    before: Any = AutoModelForCausalLM.from_pretrained(larger_tokenizer)
    policy = Policy.load(larger_tokenizer, resize_embeddings=True)
    after: Any = policy.model
    for old, new in (
        (before.get_input_embeddings().weight, after.get_input_embeddings().weight),
        (before.get_output_embeddings().weight, after.get_output_embeddings().weight),
    ):
        assert new.shape[0] == 260
        assert torch.equal(new[:258], old)
        # transformers draws around the mean with a billionth of the covariance.
        torch.testing.assert_close(new[258:], old.mean(0).expand(2, -1), atol=1e-3, rtol=0)
    assert policy.model.config.vocab_size == 260
    assert Policy.load(larger_tokenizer, resize_embeddings=True).digest() == policy.digest(), "every process draws the same"


def test_new_rows_train_and_are_saved(larger_tokenizer: Path, tmp_path: Path) -> None:
    policy = Policy.load(larger_tokenizer, resize_embeddings=True)
    model: Any = policy.model
    rows = model.get_input_embeddings().weight
    before = rows.detach().clone()
    batch = pack([Group([258, 65], [Completion([66, 259], [True, True])])], 64)[0]
    optimizer = torch.optim.SGD(policy.module.parameters(), lr=0.1)
    (-policy.logps(batch).sum()).backward()
    optimizer.step()
    assert not torch.equal(rows[258], before[258])
    policy.save(tmp_path / "saved")
    saved = AutoModelForCausalLM.from_pretrained(tmp_path / "saved")
    assert saved.config.vocab_size == 260
    tokens = torch.tensor([[258, 65, 66, 259]])
    logps = saved(tokens).logits.log_softmax(-1)[0, [1, 2], tokens[0, 2:]]
    torch.testing.assert_close(logps, policy.logps(batch), atol=1e-5, rtol=0)
    assert Policy.load(tmp_path / "saved").digest() == policy.digest(), "the saved model needs no field any more"


def test_adapters_would_leave_new_rows_untrained(larger_tokenizer: Path) -> None:
    with pytest.raises(RecipeError, match="2 rows of embeddings are new, and adapters would not train them"):
        Policy.load(larger_tokenizer, resize_embeddings=True, lora=LORA)


def test_vllm_does_not_start_from_a_folder_that_lacks_the_new_rows(
    larger_tokenizer: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tulu.rollout.engines.has_vllm", lambda: True)
    policy = Policy.load(larger_tokenizer, resize_embeddings=True)
    with pytest.raises(RecipeError, match=r"vLLM starts from .*, which lacks the rows that were added"):
        make_engine("vllm", EngineSpec(str(larger_tokenizer), 64), policy)
    make_engine("transformers", EngineSpec(str(larger_tokenizer), 64), policy).close()


def test_a_reward_model_gets_the_rows_too(larger_tokenizer: Path, tmp_path: Path) -> None:
    RewardModel.load(larger_tokenizer, new_head=1, trainable=True, resize_embeddings=True).save(tmp_path / "rm")
    assert AutoModelForSequenceClassification.from_pretrained(tmp_path / "rm").config.vocab_size == 260
    with pytest.raises(RecipeError, match="260 tokens and the model embeddings for 258"):
        RewardModel.load(larger_tokenizer, new_head=1, trainable=True)


def test_more_embeddings_than_tokens_are_fine(tiny_model: Callable[..., Path]) -> None:
    policy = Policy.load(tiny_model("llama", vocab_size=320), resize_embeddings=True)
    assert policy.model.config.vocab_size == 320


def test_a_pad_token_alone_needs_no_embedding_in_a_policy(tiny_model: Callable[..., Path], tmp_path: Path) -> None:
    """It is never embedded; a reward model, which others read in padded batches, gets a row for it."""
    folder = Path(shutil.copytree(tiny_model("llama"), tmp_path / "padded"))
    tokenizer: Any = AutoTokenizer.from_pretrained(folder)
    tokenizer.add_special_tokens({"pad_token": "<|another pad|>"})
    tokenizer.save_pretrained(folder)
    assert Policy.load(folder).model.config.vocab_size == 258
    RewardModel.load(folder, new_head=1, trainable=True).save(tmp_path / "rm")
    rm = AutoModelForSequenceClassification.from_pretrained(tmp_path / "rm")
    assert (rm.config.vocab_size, rm.config.pad_token_id) == (259, 258)


def test_ids_may_have_gaps(tiny_model: Callable[..., Path]) -> None:
    tokenizer: Any = AutoTokenizer.from_pretrained(tiny_model("llama"))
    assert rows_needed(tokenizer) == 258
    vocabulary = {**tokenizer.get_vocab(), "far": 300}
    tokenizer.get_vocab = lambda: vocabulary
    assert rows_needed(tokenizer) == 301
