"""What both sides train: a tokenizer made from the rows, a tiny random OLMo-2, and rows of GSM8K and HH-RLHF on disk.

Lengths are those of the real rows: nothing is padded, cut or repeated here. Rows longer than MAX_LENGTH are left out.
"""

import gzip
import json
import os
import random
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedTokenizerBase, PreTrainedTokenizerFast

from tulu.data.chat import apply_template, encode_batch, encode_prompt
from tulu.data.messages import read_transcript
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
    problems = read_rows(shared / GSM8K)
    pairs = [to_pair(row) for row in read_rows(shared / HH)]
    texts = [text for row in problems[:2000] for text in row.values()]
    tokenizer = train_tokenizer([*texts, *(text_of(pair["chosen"]) for pair in pairs)])
    answered = problems[: counts.get("sft", 0)]
    fitting = (pair for pair in pairs if fits(tokenizer, pair))
    files: dict[str, Iterable[Row]] = {
        "sft": ({"prompt": turn("user", row["question"]), "completion": turn("assistant", row["answer"])} for row in answered),
        "pairs": islice(fitting, max(counts.get("dpo", 0), counts.get("rm", 0))),
        "rollouts": rollouts(tokenizer, problems, counts.get("grpo", 0)),
    }
    for name, rows in files.items():
        material.file(name).write_text("".join(json.dumps(row) + "\n" for row in rows))
    save_random_model(material.model, tokenizer, {**shape, "max_position_embeddings": 2 * MAX_LENGTH})
    RewardModel.load(material.model, new_head=0).save(material.reward)
    return material


def save_random_model(folder: Path, tokenizer: PreTrainedTokenizerBase, shape: Mapping[str, int]) -> None:
    """Write an OLMo-2 of random weights, and its tokenizer."""
    torch.manual_seed(0)
    special = {name: getattr(tokenizer, name) for name in ("bos_token_id", "eos_token_id", "pad_token_id")}
    config = AutoConfig.for_model("olmo2", vocab_size=len(tokenizer), **special, **shape)
    AutoModelForCausalLM.from_config(config, dtype=torch.float32).save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def read_rows(file: Path) -> list[dict[str, Any]]:
    with gzip.open(file, "rt") as lines:
        return [json.loads(line) for line in lines]


def turn(role: str, text: str) -> list[Message]:
    return [{"role": role, "content": text.strip()}]


def text_of(messages: Sequence[Message]) -> str:
    return "\n".join(message["content"] for message in messages)


def to_pair(row: Row) -> Pair:
    """An HH-RLHF row, two transcripts that differ in the last turn, as prompt, chosen and rejected messages."""
    chosen, rejected = (read_transcript(row[name]) for name in ("chosen", "rejected"))
    return {"prompt": chosen[:-1], "chosen": chosen[-1:], "rejected": rejected[-1:]}


def fits(tokenizer: PreTrainedTokenizerFast, pair: Pair) -> bool:
    """Whether a pair can be trained: two different answers that are not empty, neither longer than MAX_LENGTH."""
    answers = [text_of(pair[side]) for side in ("chosen", "rejected")]
    sides = [[*pair["prompt"], *pair[side]] for side in ("chosen", "rejected")]
    lengths = [len(encoded.tokens) for encoded in encode_batch(tokenizer, sides, "last")]
    return all(answers) and answers[0] != answers[1] and max(lengths) <= MAX_LENGTH


def rollouts(tokenizer: PreTrainedTokenizerFast, problems: Sequence[Row], count: int) -> Iterator[Row]:
    """Groups as an engine hands them over: token ids of a problem, of SAMPLES answers, and what each answer is worth.

    The answers are those of GSM8K to other problems, so that their lengths are ragged as real ones are.
    """
    draw = random.Random(0)
    for row in problems[:count]:
        prompt = encode_prompt(tokenizer, turn("user", row["question"]))
        answers = [row["answer"], *(other["answer"] for other in draw.sample(problems, SAMPLES - 1))]
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
