"""Pairs per second of `tulu rewardbench` beside transformers on padded batches: same model, same HH-RLHF pairs, same threads.

    python -m benchmarks.rewardbench --pairs ../shared/data/hh_rlhf/harmless-base/test.jsonl.gz

The sides alternate within one run. `padded` is what allenai/reward-bench does: templated texts, batches in the order of the
data, padded to the longest; `sorted` orders them by length first.
"""

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from benchmarks.material import save_random_model
from tulu.data.chat import apply_template, make_byte_tokenizer
from tulu.files import write_atomic
from tulu.reward_models.benchmarks import load
from tulu.reward_models.encoding import Limits
from tulu.reward_models.items import Item
from tulu.reward_models.model import RewardModel
from tulu.reward_models.scorers import ClassifierScorer
from tulu.train.manifest import environment

SHAPE = {"hidden_size": 256, "intermediate_size": 768, "num_hidden_layers": 4, "num_attention_heads": 8, "num_key_value_heads": 8}
TURNS = 3
"""Least turns of a prompt: multi-turn conversations only."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", required=True, help="HH-RLHF file, or any file of pairs")
    parser.add_argument("--count", type=int, default=128, help="pairs to score")
    parser.add_argument("--batch", type=int, default=16, help="texts of a padded batch")
    parser.add_argument("--row-tokens", type=int, default=8192, help="tokens of a packed row")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/rewardbench.json"))
    options = parser.parse_args()
    items = [item for item in load(options.pairs).items if len(item.prompt) >= TURNS][: options.count]
    with tempfile.TemporaryDirectory() as folder:
        make_model(Path(folder))
        result = compare(Path(folder), items, options)
    options.out.parent.mkdir(parents=True, exist_ok=True)
    write_atomic(options.out, json.dumps({**result, "environment": environment()}, indent=2))
    for name, figures in result["pairs_per_second"].items():
        print(f"{name:14s} {figures['median']:8.1f} pairs/s  ({figures['low']:.1f} … {figures['high']:.1f})")
    for name, ratio in result["ratio"].items():
        print(f"packed / {name:7s} {ratio['median']:.2f}  ({ratio['low']:.2f} … {ratio['high']:.2f})")
    print(f"largest difference of scores {result['largest_difference']:.1e}")


def make_model(folder: Path) -> None:
    """A random OLMo-2 classifier with a byte tokenizer."""
    tokenizer = make_byte_tokenizer()
    apply_template(tokenizer, "tulu")
    save_random_model(folder, tokenizer, {**SHAPE, "max_position_embeddings": 16384})
    RewardModel.load(folder, new_head=0).save(folder)


def compare(folder: Path, items: Sequence[Item], options: argparse.Namespace) -> dict[str, Any]:
    """Both sides in turn, `repeats` times, after one round to warm up."""
    scorer = ClassifierScorer(RewardModel.load(folder), Limits(None, row_tokens=options.row_tokens), None)
    model = AutoModelForSequenceClassification.from_pretrained(folder).eval()
    tokenizer = AutoTokenizer.from_pretrained(folder, padding_side="left")
    sides: dict[str, Callable[[], list[float]]] = {
        "packed": lambda: [score for verdict in scorer.score(items) for score in verdict.scores],
        "padded": lambda: padded(model, tokenizer, items, options.batch, by_length=False),
        "sorted": lambda: padded(model, tokenizer, items, options.batch, by_length=True),
    }
    scores = {name: side() for name, side in sides.items()}
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    for _ in range(options.repeats):
        for name, side in sides.items():
            started = time.perf_counter()
            side()
            seconds[name].append(time.perf_counter() - started)
    rates = {name: [len(items) / taken for taken in rows] for name, rows in seconds.items()}
    ratios = {
        name: [packed / other for packed, other in zip(rates["packed"], rates[name], strict=True)]
        for name in ("padded", "sorted")
    }
    return {
        "pairs": len(items),
        "pairs_per_second": {name: spread(values) for name, values in rates.items()},
        "ratio": {name: spread(values) for name, values in ratios.items()},
        "largest_difference": max(abs(one - other) for one, other in zip(scores["packed"], scores["padded"], strict=True)),
        "shape": SHAPE,
        "batch": options.batch,
        "row_tokens": options.row_tokens,
    }


@torch.no_grad()
def padded(model: Any, tokenizer: Any, items: Sequence[Item], batch: int, by_length: bool) -> list[float]:
    """Scores by AutoModelForSequenceClassification, every text on its own."""
    texts = [tokenizer.apply_chat_template([*item.prompt, *answer], tokenize=False) for item in items for answer in item.answers]
    order = sorted(range(len(texts)), key=lambda index: len(texts[index])) if by_length else list(range(len(texts)))
    scores = [0.0] * len(texts)
    for start in range(0, len(order), batch):
        chosen = order[start : start + batch]
        inputs = tokenizer([texts[index] for index in chosen], add_special_tokens=False, padding=True, return_tensors="pt")
        logits_B1 = model(input_ids=inputs["input_ids"], attention_mask=inputs["attention_mask"]).logits
        for index, score in zip(chosen, logits_B1[:, 0].tolist(), strict=True):
            scores[index] = score
    return scores


def spread(values: Sequence[float]) -> dict[str, float]:
    return {"median": statistics.median(values), "low": min(values), "high": max(values)}


if __name__ == "__main__":
    main()
