"""Templates against the strings open-instruct renders, masks against lists worked out by hand."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from tulu.data.chat import (
    TEMPLATES,
    encode_batch,
    encode_prompt,
    encode_prompts,
    make_byte_tokenizer,
    tokenize,
)
from tulu.errors import DataError
from tulu.types import Message

EOS = 256
CHATML = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
OLMO_SYSTEM = (
    "<|im_start|>system\nYou are OLMo, a helpful function-calling AI assistant built by Ai2. "
    "Your date cutoff is November 2024, and your model weights are available at https://huggingface.co/allenai. "
    "You do not currently have access to any functions. <functions></functions><|im_end|>\n"
)


def chat(*turns: str) -> list[Message]:
    """`S:...`, `U:...`, `A:...` to messages."""
    roles = {"S": "system", "U": "user", "A": "assistant", "T": "tool"}
    return [{"role": roles[turn[0]], "content": turn[2:]} for turn in turns]


def tokenizer_with(template: str, *specials: str) -> PreTrainedTokenizerFast:
    tokenizer = make_byte_tokenizer()
    tokenizer.add_special_tokens({"additional_special_tokens": list(specials)} if specials else {})
    tokenizer.chat_template = TEMPLATES.get(template, template)
    return tokenizer


def encode(tokenizer: Any, messages: Sequence[Message], train: Any) -> tuple[list[int], list[bool]]:
    """Tokens and trained flags of a single conversation."""
    [encoded] = encode_batch(tokenizer, [messages], train)
    return encoded.tokens, encoded.trained


def trained_text(tokenizer: Any, messages: Sequence[Message], train: Any = "all") -> str:
    tokens, trained = encode(tokenizer, messages, train)
    return str(tokenizer.decode([token for token, flag in zip(tokens, trained, strict=True) if flag]))


QA = chat("U:Q", "A:A")
MULTI = chat("S:S", "U:Q1", "A:A1", "U:Q2", "A:A2")


@pytest.mark.parametrize(
    ("template", "messages", "prompt", "expected"),
    [
        ("tulu", QA, False, "<|user|>\nQ\n<|assistant|>\nA<|endoftext|>"),
        ("tulu", QA[:1], True, "<|user|>\nQ\n<|assistant|>\n"),
        (
            "tulu",
            MULTI,
            False,
            "<|system|>\nS\n<|user|>\nQ1\n<|assistant|>\nA1<|endoftext|>\n<|user|>\nQ2\n<|assistant|>\nA2<|endoftext|>",
        ),
        ("tulu_bos", QA, False, "<|endoftext|><|user|>\nQ\n<|assistant|>\nA<|endoftext|>"),
        ("tulu_bos", QA[:1], True, "<|endoftext|><|user|>\nQ\n<|assistant|>\n"),
        ("olmo", QA, False, OLMO_SYSTEM + "<|im_start|>user\nQ<|im_end|>\n<|im_start|>assistant\nA<|endoftext|>"),
        ("olmo", QA[:1], True, OLMO_SYSTEM + "<|im_start|>user\nQ<|im_end|>\n<|im_start|>assistant\n"),
        (
            "olmo",
            MULTI,
            False,
            "<|im_start|>system\nS You do not currently have access to any functions. <functions></functions><|im_end|>\n"
            "<|im_start|>user\nQ1<|im_end|>\n<|im_start|>assistant\nA1<|im_end|>\n"
            "<|im_start|>user\nQ2<|im_end|>\n<|im_start|>assistant\nA2<|endoftext|>",
        ),
    ],
)
def test_templates_render_as_open_instruct_does(template: str, messages: list[Message], prompt: bool, expected: str) -> None:
    tokenizer: Any = tokenizer_with(template)
    assert tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=prompt) == expected
    tokens = encode_prompt(tokenizer, messages) if prompt else encode(tokenizer, messages, "all")[0]
    assert tokens == tokenizer(expected, add_special_tokens=False)["input_ids"]


def test_byte_tokens_and_mask_written_by_hand() -> None:
    tokens, trained = encode(tokenizer_with("tulu"), chat("U:hi", "A:né"), "all")
    header = list(b"<|user|>\nhi\n<|assistant|>\n")
    assert tokens == [*header, ord("n"), 0xC3, 0xA9, EOS]
    assert trained == [False] * len(header) + [True] * 4


@pytest.mark.parametrize(
    ("template", "train", "expected"),
    [
        ("tulu", "all", "A1<|endoftext|>A2<|endoftext|>"),
        ("tulu", "last", "A2<|endoftext|>"),
        ("tulu_bos", "all", "A1<|endoftext|>A2<|endoftext|>"),
        ("olmo", "all", "A1<|im_end|>A2<|endoftext|>"),
        ("olmo", "last", "A2<|endoftext|>"),
        (CHATML, "all", "A1<|im_end|>\nA2<|im_end|>\n"),
        (CHATML, "last", "A2<|im_end|>\n"),
    ],
)
@pytest.mark.parametrize("specials", [(), ("<|im_start|>", "<|im_end|>")])
def test_every_turn_is_trained_with_its_end(template: str, train: str, expected: str, specials: tuple[str, ...]) -> None:
    assert trained_text(tokenizer_with(template, *specials), MULTI, train) == expected


def test_mask_of_marked_template_agrees_with_transformers() -> None:
    tokenizer: Any = tokenizer_with("olmo", "<|im_start|>", "<|im_end|>")
    theirs = tokenizer.apply_chat_template(MULTI, return_dict=True, return_assistant_tokens_mask=True)
    tokens, trained = encode(tokenizer, MULTI, "all")
    assert tokens == theirs["input_ids"]
    assert [int(flag) for flag in trained] == theirs["assistant_masks"]


def bpe(template: str) -> PreTrainedTokenizerFast:
    """A BPE of letters whose merges join `lo`, `hel`, and the header's newline with an answer that begins with `z`."""
    letters = sorted({*"abcdefghijklmnopqrstuvwxyz<|>0123456789", "Ċ"})
    merges = [("l", "o"), ("h", "e"), ("he", "l"), ("Ċ", "z")]
    vocab = {token: index for index, token in enumerate([*letters, *("".join(pair) for pair in merges)])}
    backend = Tokenizer(models.BPE(vocab=vocab, merges=merges))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    backend.decoder = decoders.ByteLevel()
    backend.add_special_tokens([AddedToken("<|eos|>", special=True)])
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, eos_token="<|eos|>", clean_up_tokenization_spaces=False)
    tokenizer.chat_template = TEMPLATES[template]
    return tokenizer


@pytest.mark.parametrize(
    ("answer", "last_tokens", "n_trained"),
    [
        ("hello", ["Ċ", "hel", "lo", "<|eos|>"], 3),
        # The token that holds the header's last newline and the answer's first letter overlaps the turn.
        ("zlo", ["Ċz", "lo", "<|eos|>"], 3),
    ],
)
def test_bpe_tokens_and_mask(answer: str, last_tokens: list[str], n_trained: int) -> None:
    tokenizer = bpe("tulu")
    tokens, trained = encode(tokenizer, chat("U:a", f"A:{answer}"), "all")
    assert tokenizer.convert_ids_to_tokens(tokens)[-len(last_tokens) :] == last_tokens
    assert trained == [False] * (len(tokens) - n_trained) + [True] * n_trained


QWEN_LIKE = (
    "{% for m in messages %}{% set text = m['content'] %}{% set inner = not loop.last %}"
    "{% if m['role'] == 'assistant' and inner and '</think>' in text %}{% set text = text.split('</think>')[-1] %}{% endif %}"
    "<|im_start|>{{ m['role'] }}\n{{ text }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n<think>\n{% endif %}"
)
END_AT_LAST = (
    "{% for m in messages %}{{ m['role'] }}: {{ m['content'] }}{% if loop.last %}{{ eos_token }}{% endif %}{{ '\n' }}{% endfor %}"
)
IM_ENDS = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}"
    "{% if loop.last and m['role'] == 'assistant' %}{{ eos_token }}{% else %}<|im_end|>\n{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


@pytest.mark.parametrize(
    ("template", "messages", "expected"),
    [
        # Past thoughts are cut: the inner turn is found by what is left of it, and ends as the last one does.
        (QWEN_LIKE, chat("U:a", "A:<think>\nx</think>b", "U:c", "A:d"), "b<|im_end|>\nd<|im_end|>\n"),
        # The prompt opens a thought that the answer does not have.
        (QWEN_LIKE, chat("U:a", "A:d"), "d<|im_end|>\n"),
        # The last turn ends in another token than the inner ones.
        (IM_ENDS, chat("U:a", "A:b", "U:c", "A:d"), "b<|im_end|>d<|endoftext|>"),
        # Two turns of the assistant, and one that opens the conversation.
        (TEMPLATES["tulu"], chat("U:a", "A:b", "A:c"), "b<|endoftext|>c<|endoftext|>"),
        (TEMPLATES["tulu"], chat("A:hello", "U:a", "A:b"), "hello<|endoftext|>b<|endoftext|>"),
        # The answer stands in the question, and in the header.
        (TEMPLATES["tulu"], chat("U:user", "A:user"), "user<|endoftext|>"),
        (TEMPLATES["tulu"], chat("U:a", "A:assistant"), "assistant<|endoftext|>"),
    ],
)
def test_templates_without_stable_prefix(template: str, messages: list[Message], expected: str) -> None:
    assert trained_text(tokenizer_with(template, "<|im_start|>", "<|im_end|>"), messages) == expected


def test_what_cannot_be_derived_is_not_trained_and_says_why() -> None:
    tokenizer = tokenizer_with(END_AT_LAST)
    tokens, trained = encode(tokenizer, chat("U:hi", "A:HELLO"), "all")
    assert tokens == [*b"user: hi\nassistant: HELLO", EOS, *b"\n"]
    assert not any(trained)
    [encoded] = encode_batch(tokenizer, [chat("U:hi", "A:HELLO")], "all")
    assert "does not show where the assistant's turn begins" in encoded.problem
    assert "write {% generation %}" in encoded.problem


def test_a_refused_conversation_leaves_its_neighbours_alone() -> None:
    tokenizer = tokenizer_with("tulu")
    bad, good = encode_batch(tokenizer, [chat("U:a", "T:tool says", "A:b"), QA], "all")
    assert "role tool has no place" in bad.problem
    assert not bad.tokens
    assert good.tokens == encode(tokenizer, QA, "all")[0]


NO_SYSTEM = (
    "{% if messages[0].role == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}"
    "{% for m in messages %}<{{ m.role }}>{{ m.content }}{% endfor %}{% if add_generation_prompt %}<assistant>{% endif %}"
)


def test_a_refused_system_turn_comes_with_its_cure() -> None:
    tokenizer = tokenizer_with(NO_SYSTEM)
    [encoded] = encode_batch(tokenizer, [chat("S:s", "U:a", "A:b")], "all")
    assert "System role not supported" in encoded.problem
    assert "write that text into the first user turn" in encoded.problem
    # Another fault is not blamed on the system's turn.
    tokenizer.chat_template = "{{ raise_exception('never') }}"
    assert encode_batch(tokenizer, [chat("S:s", "U:a", "A:b")], "all")[0].problem == "the template refuses it: never"


@pytest.mark.parametrize("template", ["tulu", "olmo", QWEN_LIKE])
def test_a_turn_may_be_read_and_not_trained(template: str) -> None:
    tokenizer = tokenizer_with(template, "<|im_start|>", "<|im_end|>")
    turns = chat("U:a", "A:bad", "U:c", "A:good")
    plain = encode(tokenizer, turns, "all")
    turns[1]["train"] = False
    tokens, _ = encode(tokenizer, turns, "all")
    # The text is the same: no template sees the key.
    assert tokens == plain[0]
    assert trained_text(tokenizer, turns) in ("good<|endoftext|>", "good<|im_end|>\n")
    turns[3]["train"] = False
    assert not any(encode(tokenizer, turns, "all")[1])
    assert not any(encode(tokenizer, turns, "last")[1])


def test_messages_that_a_template_leaves_out_are_named() -> None:
    tokenizer = tokenizer_with(
        "{% for m in messages if m.role != 'system' %}<{{ m.role }}>{{ m.content }}{% endfor %}"
        "{% if add_generation_prompt %}<assistant>{% endif %}"
    )
    turns = chat("S:a", "U:a", "A:a", "U: ", "A:a")
    # The system's "a" is not there, though other turns say the same.
    [encoded] = encode_batch(tokenizer, [turns], "all")
    assert encoded.left_out == (0,)
    assert encode_prompts(tokenizer, [turns[:2], turns[1:2]])[0].left_out == (0,)
    assert encode_prompts(tokenizer, [turns[:2], turns[1:2]])[1].left_out == ()
    assert encode_batch(tokenizer_with(QWEN_LIKE), [chat("U:a", "A:<think>x</think>b", "U:c", "A:d")], "all")[0].shortened == (1,)


@pytest.mark.parametrize("text", ["héllo ☃ 🎉\n\t x  y", "\x00\x7f\xad\u2028", " <|endoftext|> ", "a" * 5000, ""])
def test_byte_tokenizer_round_trips(text: str, tmp_path: Path) -> None:
    made = make_byte_tokenizer()
    made.save_pretrained(tmp_path)
    for tokenizer in (made, AutoTokenizer.from_pretrained(tmp_path)):
        tokens = tokenizer(text)["input_ids"]
        assert tokenizer.decode(tokens) == text
        if "<|" not in text:
            assert tokens == list(text.encode())


def test_byte_tokenizer_ids() -> None:
    tokenizer = make_byte_tokenizer()
    assert len(tokenizer) == 258
    assert (tokenizer.eos_token_id, tokenizer.bos_token_id, tokenizer.pad_token_id) == (EOS, EOS, 257)
    assert tokenizer.chat_template is None


def test_a_slow_tokenizer_is_refused() -> None:
    class Slow:
        is_fast = False

    with pytest.raises(DataError, match="has no offsets"):
        tokenize(Slow(), ["text"])  # type: ignore[arg-type]
