"""What both sides train: a tokenizer made from the rows, a tiny random OLMo-2, and rows of GSM8K and HH-RLHF on disk.

Lengths are those of the real rows: nothing is padded, cut or repeated here. Rows longer than MAX_LENGTH are left out.
"""

import gzip
import json
import os
import random
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedTokenizerFast

from tulu.data.chat import apply_template, encode_batch, encode_prompt
from tulu.errors import DataError
from tulu.reward_models.model import RewardModel
from tulu.types import Message

MAX_LENGTH = 1024
VOCABULARY = 1024
SAMPLES = 8
"""Completions of a GRPO group."""
SHAPE = {
    "hidden_size": 256,
    "intermediate_size": 1024,
    "num_hidden_layers": 4,
    "num_attention_heads": 8,
    "num_key_value_heads": 8,
}
GSM8K = Path("gsm8k/train.jsonl.gz")
HH = Path("hh_rlhf/harmless-base/test.jsonl.gz")

Row = Mapping[str, Any]
Pair = dict[str, list[Message]]


@dataclass(frozen=True)
class Material:
    """A folder that holds model/, reward/, sft.jsonl, pairs.jsonl and rollouts.jsonl."""

    folder: Path

    @property
    def model(self) -> Path:
        return self.folder / "model"

    @property
    def reward(self) -> Path:
        """The same trunk with a scalar head."""
        return self.folder / "reward"

    def file(self, name: str) -> Path:
        return self.folder / f"{name}.jsonl"

    def rows(self, name: str) -> list[Any]:
        return [json.loads(line) for line in self.file(name).read_text().splitlines()]


def shared_folder() -> Path:
    """Where the real rows lie. Raises DataError if they are absent."""
    folder = Path(os.environ.get("TULU_SHARED", Path(__file__).resolve().parents[2] / "shared")) / "data"
    missing = [str(folder / name) for name in (GSM8K, HH) if not (folder / name).is_file()]
    if missing:
        raise DataError(f"no rows to train on: {', '.join(missing)} missing\nSet TULU_SHARED to the folder that holds data/.")
    return folder


def make(folder: Path, shared: Path, counts: Mapping[str, int], shape: Mapping[str, int] = SHAPE) -> Material:
    """Write so many rows for each stage, the tokenizer made from them and the models."""
    material = Material(folder)
    problems = [json.loads(line) for line in read_lines(shared / GSM8K)]
    pairs = [to_pair(json.loads(line)) for line in read_lines(shared / HH)]
    tokenizer = train_tokenizer(
        [text for row in problems[:2000] for text in row.values()] + [say(pair["chosen"]) for pair in pairs]
    )
    made: dict[str, Sequence[Row]] = {
        "sft": [
            {"prompt": user(row["question"]), "completion": assistant(row["answer"])} for row in problems[: counts.get("sft", 0)]
        ],
        "pairs": list(islice((pair for pair in pairs if fits(tokenizer, pair)), max(counts.get("dpo", 0), counts.get("rm", 0)))),
        "rollouts": list(rollouts(tokenizer, problems, counts.get("grpo", 0))),
    }
    for name, rows in made.items():
        material.file(name).write_text("".join(json.dumps(row) + "\n" for row in rows))
    torch.manual_seed(0)
    config = AutoConfig.for_model(
        "olmo2",
        vocab_size=len(tokenizer),
        max_position_embeddings=2 * MAX_LENGTH,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        **shape,
    )
    AutoModelForCausalLM.from_config(config, dtype=torch.float32).save_pretrained(material.model)
    tokenizer.save_pretrained(material.model)
    RewardModel.load(material.model, new_head=0).save(material.reward)
    return material


def read_lines(file: Path) -> Iterator[str]:
    with gzip.open(file, "rt") as lines:
        yield from lines


def user(text: str) -> list[Message]:
    return [{"role": "user", "content": text.strip()}]


def assistant(text: str) -> list[Message]:
    return [{"role": "assistant", "content": text.strip()}]


def say(messages: Sequence[Message]) -> str:
    return "\n".join(message["content"] for message in messages)


def to_pair(row: Row) -> Pair:
    """An HH-RLHF row, two transcripts that differ in the last turn, as prompt, chosen and rejected messages."""
    sides = [transcript(row[name]) for name in ("chosen", "rejected")]
    return {"prompt": sides[0][:-1], "chosen": sides[0][-1:], "rejected": sides[1][-1:]}


def transcript(text: str) -> list[Message]:
    """Messages of a text whose turns begin with Human: and Assistant:."""
    turns = re.split(r"\n\n(Human|Assistant):", "\n\n" + text.strip())[1:]
    roles = {"Human": "user", "Assistant": "assistant"}
    return [{"role": roles[name], "content": said.strip()} for name, said in zip(turns[::2], turns[1::2], strict=True)]


def fits(tokenizer: PreTrainedTokenizerFast, pair: Pair) -> bool:
    """Whether a pair can be trained: two different answers that are not empty, neither longer than MAX_LENGTH."""
    answers = [say(pair[side]) for side in ("chosen", "rejected")]
    sides = [[*pair["prompt"], *pair[side]] for side in ("chosen", "rejected")]
    lengths = [len(encoded.tokens) for encoded in encode_batch(tokenizer, sides, "last")]
    return all(answers) and answers[0] != answers[1] and max(lengths) <= MAX_LENGTH


def rollouts(tokenizer: PreTrainedTokenizerFast, problems: Sequence[Row], count: int) -> Iterator[Row]:
    """Groups as an engine hands them over: token ids of a problem, of SAMPLES answers, and what each answer is worth.

    The answers are those of GSM8K to other problems, so that their lengths are ragged as real ones are.
    """
    draw = random.Random(0)
    for row in problems[:count]:
        prompt = encode_prompt(tokenizer, user(row["question"]))
        answers = [row["answer"], *(each["answer"] for each in draw.sample(problems, SAMPLES - 1))]
        rewards = [float(draw.random() < 0.5) for _ in answers]
        mean = sum(rewards) / len(rewards)
        yield {
            "prompt": prompt,
            "completions": [[*tokenizer.encode(text, add_special_tokens=False), tokenizer.eos_token_id] for text in answers],
            "advantages": [reward - mean for reward in rewards],
        }


def train_tokenizer(texts: Sequence[str]) -> PreTrainedTokenizerFast:
    """Byte-level BPE of VOCABULARY tokens with the tulu template."""
    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    special = ["<|endoftext|>", "<|pad|>"]
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=VOCABULARY, special_tokens=special, initial_alphabet=alphabet, show_progress=False)
    backend.train_from_iterator(texts, trainer)
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=backend,
        bos_token=special[0],
        eos_token=special[0],
        pad_token=special[1],
        clean_up_tokenization_spaces=False,
    )
    apply_template(tokenizer, "tulu")
    return tokenizer
