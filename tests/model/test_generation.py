"""A model stops where training taught it to: at the end of a turn as the template writes it, in engines and in what is saved."""

import json
import shutil
from collections.abc import Callable
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig, PreTrainedTokenizerBase

from tulu.data.chat import apply_template, make_byte_tokenizer
from tulu.errors import RecipeError
from tulu.model.companions import rehearse_saving
from tulu.model.generation import save_generation_config, stop_token_ids, turn_end_tokens
from tulu.model.policy import Policy

CHATML = (
    "{% for message in messages %}<|im_start|>{{ message.role }}\n{{ message.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
NO_END = "{% for message in messages %}[{{ message.role }}] {{ message.content }}{% endfor %}"
PIECES = (
    "{% for message in messages %}{{ message.role }}: {{ message.content }} END\n{% endfor %}"
    "{% if add_generation_prompt %}assistant: {% endif %}"
)
LAST_DIFFERS = (
    "{% for message in messages %}<|im_start|>{{ message.role }}\n{{ message.content }}"
    "{% if message.role == 'assistant' and loop.last %}<|return|>{% else %}<|im_end|>\n{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
IN_TWO_BLOCKS = (
    "{% for message in messages %}<|im_start|>{{ message.role }}\n{% if message.role == 'assistant' %}{% generation %}"
    "{{ message.content }}<|im_end|>\n{% endgeneration %}{% else %}{{ message.content }}<|im_end|>\n{% endif %}{% endfor %}"
    "{% generation %}{{ eos_token }}{% endgeneration %}"
)
"""The answer, and what ends the text, are marked apart, as in the template of Phi-3 that TRL marks."""
SPECIAL = ["<|im_start|>", "<|im_end|>", "<|return|>", "<|start|>", "<|end|>", "<|message|>", "<|channel|>", "<|call|>"]


def byte_tokenizer(template: str) -> PreTrainedTokenizerBase:
    """Bytes, and the special tokens of chat templates from id 258 on."""
    tokenizer = make_byte_tokenizer()
    tokenizer.add_special_tokens({"additional_special_tokens": SPECIAL})
    tokenizer.chat_template = template
    return tokenizer


def names(tokenizer: PreTrainedTokenizerBase, ids: Any) -> list[str]:
    return [str(tokenizer.convert_ids_to_tokens(index)) for index in ids]


@pytest.mark.parametrize(
    ("template", "ends"),
    [
        (CHATML, ["<|im_end|>"]),
        (LAST_DIFFERS, ["<|return|>", "<|im_end|>"]),
        (IN_TWO_BLOCKS, ["<|im_end|>"]),
        (PIECES, []),
        (NO_END, []),
    ],
)
def test_the_end_of_a_turn_is_read_from_the_template(template: str, ends: list[str]) -> None:
    tokenizer = byte_tokenizer(template)
    assert names(tokenizer, turn_end_tokens(tokenizer)) == ends


def test_named_templates_end_as_they_train() -> None:
    """olmo ends past turns with <|im_end|> and the last one with the end token, and trains both."""
    tokenizer = byte_tokenizer("")
    apply_template(tokenizer, "olmo")
    assert names(tokenizer, turn_end_tokens(tokenizer)) == ["<|endoftext|>", "<|im_end|>"]
    apply_template(tokenizer, "tulu")
    assert names(tokenizer, turn_end_tokens(tokenizer)) == ["<|endoftext|>"]


def test_a_token_that_also_stands_inside_of_a_turn_does_not_end_it() -> None:
    """gpt-oss closes thoughts and past answers with <|end|>: to stop there would lose every answer behind its thoughts."""
    harmony = files("trl") / "chat_templates" / "gptoss_training.jinja"
    tokenizer = byte_tokenizer(harmony.read_text())
    assert names(tokenizer, turn_end_tokens(tokenizer)) == ["<|return|>"]


def test_without_a_template_no_turn_ends() -> None:
    assert turn_end_tokens(make_byte_tokenizer()) == ()


@pytest.mark.parametrize(("settings", "expected"), [(None, [256]), (256, [256]), (7, [7, 256]), ([9, 7], [7, 9, 256])])
def test_what_ends_a_completion_is_what_tokenizer_and_model_say(settings: int | list[int] | None, expected: list[int]) -> None:
    tokenizer = make_byte_tokenizer()
    assert tokenizer.eos_token_id == 256
    assert stop_token_ids(tokenizer, GenerationConfig(eos_token_id=settings)) == expected


def test_stop_tokens_are_those_of_tokenizer_settings_template_and_caller() -> None:
    tokenizer = byte_tokenizer(CHATML)
    assert stop_token_ids(tokenizer, GenerationConfig(eos_token_id=[7, 9])) == [7, 9, 256, 259]
    assert stop_token_ids(tokenizer, GenerationConfig(eos_token_id=7), turn_ends=(261,)) == [7, 256, 259, 261]
    tokenizer.chat_template = None
    assert stop_token_ids(tokenizer, GenerationConfig()) == [256]


# -- what is saved -------------------------------------------------------------------------------------------------


@pytest.fixture
def base_model(tiny_model: Callable[..., Path], tmp_path: Path) -> Path:
    """A base model, whose end token is not the one that its chat template ends turns with, as in published base models."""
    folder = Path(shutil.copytree(tiny_model("llama", vocab_size=272), tmp_path / "base"))
    byte_tokenizer(CHATML).save_pretrained(folder)
    return folder


def test_what_a_turn_ends_with_is_saved_so_that_transformers_stops_there(base_model: Path, tmp_path: Path) -> None:
    policy = Policy.load(base_model)
    policy.save(tmp_path / "saved")
    saved = GenerationConfig.from_pretrained(tmp_path / "saved")
    assert saved.eos_token_id == [256, 259]
    # A model that writes <|im_end|> whatever it has read: transformers' own generate stops behind it.
    model: Any = AutoModelForCausalLM.from_pretrained(tmp_path / "saved")
    with torch.no_grad():
        model.model.norm.weight.zero_()
        model.lm_head = torch.nn.Linear(32, 272)
        model.lm_head.bias.copy_(torch.nn.functional.one_hot(torch.tensor(259), 272))
    output = model.generate(torch.tensor([[65, 66]]), max_new_tokens=8, do_sample=False)
    assert output.tolist() == [[65, 66, 259]]
    Policy.load(tmp_path / "saved").save(tmp_path / "again")
    assert GenerationConfig.from_pretrained(tmp_path / "again").eos_token_id == [256, 259]


def test_end_tokens_that_were_known_stay_as_they_are(tiny_model: Callable[..., Path], tmp_path: Path) -> None:
    Policy.load(tiny_model("llama")).save(tmp_path)
    assert GenerationConfig.from_pretrained(tmp_path).eos_token_id == 256


LLAMA_2 = {"bos_token_id": 256, "eos_token_id": 256, "do_sample": False, "temperature": 0.9, "top_p": 0.6, "max_length": 4096}


def test_settings_that_transformers_refuses_to_save_are_kept_as_they_were(base_model: Path, tmp_path: Path) -> None:
    (base_model / "generation_config.json").write_text(json.dumps(LLAMA_2))
    policy = Policy.load(base_model)
    with pytest.raises(ValueError, match="temperature"):
        policy.model.generation_config.save_pretrained(tmp_path)
    policy.rehearse_saving(tmp_path / "rehearsal")
    policy.save(tmp_path / "saved")
    written = json.loads((tmp_path / "saved" / "generation_config.json").read_text())
    written.pop("transformers_version", None)
    assert written == {**LLAMA_2, "eos_token_id": [256, 259]}
    assert Policy.load(tmp_path / "saved").digest() == policy.digest()
    assert not (tmp_path / "rehearsal").exists()


def test_a_reward_model_has_no_generation_settings(tiny_reward_model: Callable[..., Path]) -> None:
    assert not (tiny_reward_model("olmo2") / "generation_config.json").exists()


def test_what_cannot_be_saved_is_refused_at_the_start(base_model: Path, tmp_path: Path) -> None:
    policy = Policy.load(base_model)
    policy.model.config.odd = object()
    with pytest.raises(RecipeError, match=r"cannot be saved .*not JSON serializable") as error:
        rehearse_saving(policy.model, policy.tokenizer, tmp_path / "rehearsal")
    assert "It would fail after the training as it does now" in str(error.value)
    assert not (tmp_path / "rehearsal").exists()


def test_a_full_disk_is_no_fault_of_the_model(base_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    policy = Policy.load(base_model)

    def refuse(*_: Any, **__: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(type(policy.tokenizer), "save_pretrained", refuse)
    with pytest.raises(OSError, match="No space left"):
        policy.rehearse_saving(tmp_path / "rehearsal")


def test_settings_of_generation_are_not_changed_by_saving_them(base_model: Path, tmp_path: Path) -> None:
    policy = Policy.load(base_model)
    save_generation_config(policy.model, policy.tokenizer, tmp_path)
    assert policy.model.generation_config.eos_token_id == 256
    assert AutoTokenizer.from_pretrained(base_model).eos_token_id == 256
