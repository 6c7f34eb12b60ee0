"""Where a model stops: the tokens that end an answer, in every engine and in the folder that is saved."""

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from transformers import GenerationConfig, PreTrainedModel

from tulu.data.chat import Encoded, encode_batch
from tulu.types import Message

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

log = logging.getLogger("tulu")

Ids = int | Sequence[int] | None
"""Token ids as tokenizers and configurations hold them."""


def as_list(ids: Ids) -> list[int]:
    """The ids as a list."""
    return [] if ids is None else [ids] if isinstance(ids, int) else list(ids)


def turn_end_tokens(tokenizer: "PreTrainedTokenizerBase") -> tuple[int, ...]:
    """The tokens that training puts behind an assistant's answer, as the chat template writes it; none without a template.

    A base model may be trained on turns that end in <|im_end|>, while its end-of-text token is another: it would never stop.
    Some templates end a past turn with another token than the last one, and a model that learnt both may write either. Such a
    token is left out where a turn also holds it in its middle, as <|end|> stands between thoughts and answer in gpt-oss.
    """
    if not tokenizer.chat_template:
        return ()
    asked: Message = {"role": "user", "content": "?"}
    answered: Message = {"role": "assistant", "content": "Yes"}
    thought: Any = {**answered, "thinking": "Well", "reasoning_content": "Well"}
    chats: list[list[Message]] = [[asked, answered], [asked, answered, asked, answered], [asked, thought]]
    single, several, thoughtful = encode_batch(tokenizer, chats, "all")
    atoms = {*tokenizer.added_tokens_decoder, *tokenizer.all_special_ids}
    last = [end for turn in _turns(single) for end in _end_of(tokenizer, turn, atoms)]
    past = [end for turn in _turns(several)[:-1] for end in _end_of(tokenizer, turn, atoms)]
    middle = [token for turn in _turns(thoughtful) for token in turn[:-1]]
    return tuple(dict.fromkeys([*last, *(token for token in past if token not in middle)]))


def _turns(encoded: Encoded) -> list[list[int]]:
    """The tokens of the assistant's turns that are trained; ranges that touch are parts of one turn."""
    turns: list[list[int]] = []
    before = -1
    for start, end in encoded.spans:
        if start != before:
            turns.append([])
        turns[-1] += encoded.tokens[start:end]
        before = end
    return turns


def _end_of(tokenizer: "PreTrainedTokenizerBase", turn: Sequence[int], atoms: set[int]) -> list[int]:
    """The first special token of a turn behind its last text, which ends the answer; none where there is no such token."""
    end: list[int] = []
    for token in reversed(turn):
        if token in atoms:
            end = [token]
        elif str(tokenizer.decode([token])).strip():
            break
    return end


def stop_token_ids(
    tokenizer: "PreTrainedTokenizerBase", generation: GenerationConfig, turn_ends: Sequence[int] = ()
) -> list[int]:
    """The tokens that end an answer, ascending.

    They are the end tokens of the tokenizer and of the model's generation settings, those that training puts behind a turn of
    the tokenizer's chat template, and `turn_ends`, those of another template that the caller prompts with.
    """
    ends = {*as_list(tokenizer.eos_token_id), *as_list(generation.eos_token_id), *turn_end_tokens(tokenizer), *turn_ends}
    return sorted(ends)


def save_generation_config(model: PreTrainedModel, tokenizer: "PreTrainedTokenizerBase", folder: Path) -> None:
    """Write generation_config.json with the tokens that end a turn among its end tokens; nothing where a model writes no text.

    transformers refuses to save settings that contradict each other, such as a temperature without sampling, which published
    models have (Llama-2). They were loaded, so they are kept as they are.
    """
    if not model.can_generate():
        return
    settings = GenerationConfig.from_dict(model.generation_config.to_dict())
    known = as_list(settings.eos_token_id)
    if learnt := [token for token in turn_end_tokens(tokenizer) if token not in known]:
        settings.eos_token_id = [*known, *learnt]
    folder.mkdir(parents=True, exist_ok=True)
    settings.to_json_file(folder / "generation_config.json", use_diff=True, keys_to_pop=["compile_config"])
