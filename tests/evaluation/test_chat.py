"""A conversation remembers what was said, says it to the model as training did, and answers as transformers would."""

import io
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from tulu.data.chat import encode_prompt
from tulu.errors import DataError, RecipeError
from tulu.evaluation.chat import HELP, Chat, adapted_model, converse, load_chat, typed_lines
from tulu.evaluation.options import ChatOptions

GREEDY = ChatOptions(temperature=0.0, max_tokens=5, template="tulu")


@pytest.fixture
def folder(tiny_model: Callable[..., Path]) -> Path:
    return tiny_model("qwen3")


@pytest.fixture
def chat(folder: Path) -> Chat:
    return load_chat(str(folder), GREEDY)


def test_an_answer_is_that_of_transformers_to_the_whole_conversation(chat: Chat, folder: Path) -> None:
    first = chat.answer("1+1")
    second = chat.answer("2+2")
    said = [
        {"role": "user", "content": "1+1"},
        {"role": "assistant", "content": first},
        {"role": "user", "content": "2+2"},
        {"role": "assistant", "content": second},
    ]
    assert chat.messages == said
    prompt = torch.tensor([encode_prompt(chat.tokenizer, said[:3])])  # type: ignore[arg-type]
    plain = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    found = plain.generate(prompt, do_sample=False, max_new_tokens=5, eos_token_id=list(chat.stop_tokens), pad_token_id=0)
    assert AutoTokenizer.from_pretrained(folder).decode(found[0, prompt.shape[1] :], skip_special_tokens=True) == second


def test_commands(chat: Chat) -> None:
    said: list[str] = []
    converse(chat, ["/system Be short.", "", "hello", "/help", "/etc/passwd?", "/reset", "/quit", "never read"], said.append)
    assert said == [HELP], "a path is a question, an unknown command is explained"
    assert chat.messages == [{"role": "system", "content": "Be short."}]


def test_a_conversation_that_no_longer_fits_is_told_and_kept(chat: Chat) -> None:
    chat.answer("1+1")
    before = list(chat.messages)
    said: list[str] = []
    chat.room = 10
    converse(chat, ["a question"], said.append)
    assert "10 positions; /reset" in said[0]
    assert chat.messages == before
    with pytest.raises(DataError, match="/reset"):
        chat.answer("again")


def test_a_system_prompt_is_taken_away_by_an_empty_one(chat: Chat) -> None:
    said: list[str] = []
    converse(chat, ["/system Be short.", "/system", "/quit"], said.append)
    assert (chat.messages, said) == ([], [])


def test_positions_that_a_rotary_scaling_stretches_are_all_there(tiny_model: Callable[..., Path]) -> None:
    scaling = {"rope_type": "linear", "factor": 4.0, "rope_theta": 10000.0}
    stretched = tiny_model("llama", max_position_embeddings=64, rope_parameters=scaling)
    assert load_chat(str(stretched), GREEDY).room == 256


def test_seeds_make_answers_the_same(folder: Path) -> None:
    answers = {load_chat(str(folder), ChatOptions(max_tokens=8, seed=seed, template="tulu")).answer("1+1") for seed in (1, 1, 1)}
    assert len(answers) == 1


def test_adapters_answer_with_the_model_that_they_belong_to(folder: Path, tmp_path: Path) -> None:
    from peft import LoraConfig, get_peft_model

    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    adapted = get_peft_model(model, LoraConfig(r=4, target_modules=["q_proj", "down_proj"], init_lora_weights=False))
    adapted.save_pretrained(str(tmp_path / "lora"))
    chat = load_chat(str(tmp_path / "lora"), GREEDY)
    assert adapted_model(tmp_path / "lora") == str(folder)
    tokens = torch.tensor([[65, 66, 67]])
    with torch.no_grad():
        assert torch.allclose(chat.model(tokens).logits, adapted.eval()(tokens).logits, atol=1e-5)
        assert not torch.allclose(chat.model(tokens).logits, load_chat(str(folder), GREEDY).model(tokens).logits, atol=1e-3)


def test_adapters_bring_their_tokenizer_and_its_template(folder: Path, tmp_path: Path) -> None:
    from peft import LoraConfig, get_peft_model

    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    get_peft_model(model, LoraConfig(r=2, target_modules=["q_proj"])).save_pretrained(str(tmp_path / "lora"))
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.chat_template = "{% for message in messages %}<{{ message['content'] }}>{% endfor %}"
    # As `tulu export --adapters` does, so that the template that was trained with is not lost.
    tokenizer.save_pretrained(tmp_path / "lora")
    chat = load_chat(str(tmp_path / "lora"), ChatOptions(temperature=0.0, max_tokens=2))
    assert chat.tokenizer.chat_template == tokenizer.chat_template
    assert chat.answer("1+1") is not None


def test_adapters_of_nobody_are_refused(tmp_path: Path) -> None:
    (tmp_path / "adapter_config.json").write_text('{"peft_type": "LORA"}')
    with pytest.raises(RecipeError, match="base_model_name_or_path"):
        adapted_model(tmp_path)
    (tmp_path / "adapter_config.json").write_text("{")
    with pytest.raises(RecipeError, match=r"adapter_config\.json"):
        adapted_model(tmp_path)


@pytest.mark.parametrize(
    ("encoding", "errors", "typed", "read"),
    [
        ("ascii", "surrogateescape", "hé 😀".encode(), "hé 😀"),
        ("ascii", "strict", "hé".encode(), "hé"),
        ("ascii", "surrogateescape", b"h\xe9", "h\ufffd"),
        ("utf-8", "strict", "hé".encode(), "hé"),
        ("utf-8", "strict", b"h\xe9", "h\ufffd"),
        ("latin-1", "strict", b"h\xe9", "hé"),
    ],
)
def test_lines_are_text_whatever_the_terminal_is_said_to_have(
    encoding: str, errors: str, typed: bytes, read: str, chat: Chat, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The standard input of LANG=C has ASCII, and hands every other byte on as half a surrogate pair."""
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"/system " + typed + b"\n"), encoding=encoding, errors=errors))
    said: list[str] = []
    converse(chat, typed_lines(), said.append)
    assert (said, chat.messages) == ([], [{"role": "system", "content": read}])
    assert isinstance(chat.answer("hello"), str), "the template takes it"


def test_a_system_prompt_of_such_a_command_line_is_text(folder: Path) -> None:
    given = "hé".encode().decode("ascii", "surrogateescape")
    assert load_chat(str(folder), replace(GREEDY, system=given)).messages == [{"role": "system", "content": "hé"}]
