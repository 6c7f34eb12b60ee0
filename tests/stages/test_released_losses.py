"""SFT under each normaliser, and DPO with labels on every assistant turn or the last, as an independent implementation does."""

import json
import random
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import AutoModelForCausalLM

from tests.samples import make_stage, stay_in_float64
from tests.stages.released_losses import IGNORED, Row, adamw_step, dpo_norm_loss, sft_loss
from tulu import losses
from tulu.config.load import load_recipe
from tulu.config.schema import Dpo, Sft, labels_of
from tulu.data.chat import apply_template, make_byte_tokenizer
from tulu.data.datasets import load_groups
from tulu.model.parallel import Parallel
from tulu.model.policy import Policy
from tulu.stages import dpo, sft
from tulu.train.fit import pack_whole
from tulu.train.optimizer import Learner
from tulu.train.reference import reference_logps
from tulu.train.step import count_tokens, step
from tulu.types import Completion, Group

STEPS = 3
RATES = [1e-3, 2e-3 / 3, 1e-3 / 3]
SHARED = {"batch": 6, "micro_batch": 2, "row_tokens": 40, "steps": STEPS, "learning_rate": 1e-3, "clip_norm": 1.0}


def numbers(generator: torch.Generator, n: int) -> list[int]:
    drawn: list[int] = torch.randint(3, 250, (n,), generator=generator).tolist()
    return drawn


def turns(generator: torch.Generator, lengths: Sequence[int]) -> tuple[list[int], list[bool]]:
    """Tokens of a conversation, the user's turns and the assistant's by turns, and whether each is the assistant's."""
    tokens: list[int] = []
    trained: list[bool] = []
    for place, length in enumerate(lengths):
        tokens += numbers(generator, length)
        trained += [place % 2 == 1] * length
    return tokens, trained


def labelled(tokens: Sequence[int], trained: Sequence[bool]) -> Row:
    return tokens, [token if label else IGNORED for token, label in zip(tokens, trained, strict=True)]


def furthest(policy: Policy, model: torch.nn.Module) -> float:
    found, expected = dict(policy.model.named_parameters()), dict(model.named_parameters())
    assert found.keys() == expected.keys()
    return max(float((found[name] - expected[name]).detach().abs().max()) for name in expected)


def plain(folder: Path) -> tuple[Any, torch.optim.Optimizer]:
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float64, attn_implementation="eager")
    return model, torch.optim.AdamW(model.parameters(), lr=RATES[0], weight_decay=0.0)


@pytest.mark.parametrize("size", [1, 2])
@pytest.mark.parametrize(("loss", "reduce_loss"), [("sum", "sum"), ("micro_mean", "mean"), ("token", "token")])
def test_sft(loss: str, reduce_loss: str, size: int, tiny_model: Callable[..., Path], monkeypatch: pytest.MonkeyPatch) -> None:
    stay_in_float64(monkeypatch)
    stage = make_stage(Sft, **SHARED, loss=loss, loss_micro_batch=size)
    policy = Policy.load(tiny_model("llama"))
    policy.module.double()
    learner = Learner(policy, stage, Parallel(stage))
    model, optimizer = plain(tiny_model("llama"))
    generator = torch.Generator().manual_seed(1)

    def objective(batch: Any) -> losses.Loss:
        return losses.sft_loss(policy.logps(batch), None if loss == "token" else batch.weight_C[batch.owner_N])

    for rate in RATES:
        drawn = [turns(generator, (2, 3 + 3 * place, 2, 1)) for place in range(6)]
        groups = [Group([], (Completion(tokens, trained),), "row:1") for tokens, trained in drawn]
        if loss == "token":
            batches: Any = pack_whole(groups, stage)
        else:
            batches = sft.pack_weighted(sft.weight_groups(groups, stage), stage)
        assert len(batches) > 1
        learner.set_learning_rate(rate)
        metrics = step(learner, batches, objective, count_tokens if loss == "token" else sft.count_micro_batches)
        rows = [labelled(*one) for one in drawn]
        micro_batches = [rows[first : first + size] for first in range(0, 6, size)]
        expected = sft_loss(model, micro_batches, reduce_loss)
        assert metrics["loss"] == pytest.approx(expected.item(), rel=1e-6)
        norm = adamw_step(model, optimizer, expected, rate, max_norm=1.0)
        assert metrics["gradient_norm"] == pytest.approx(norm, rel=1e-6)
        assert furthest(policy, model) < 1e-6


EOS = 256
"""The end of a turn; every other token is a byte of the text."""


def conversation(turns: Sequence[str]) -> list[dict[str, str]]:
    return [{"role": ("user", "assistant")[place % 2], "content": turn} for place, turn in enumerate(turns)]


def spelled(turns: Sequence[str], labels: str) -> Row:
    """A conversation in the `tulu` template, written out here, with labels on every assistant turn or on the last one."""
    tokens: list[int] = []
    trained: list[bool] = []

    def put(piece: Sequence[int], label: bool = False) -> None:
        tokens.extend(piece)
        trained.extend([label] * len(piece))

    for place, turn in enumerate(turns):
        last = place == len(turns) - 1
        if place % 2 == 0:
            put(f"<|user|>\n{turn}\n".encode())
        else:
            put(b"<|assistant|>\n")
            put([*turn.encode(), EOS], labels == "all" or last)
            put(b"" if last else b"\n")
    return labelled(tokens, trained)


def drawn_pairs(count: int) -> list[tuple[list[str], list[str]]]:
    """Conversations of two answers, of which pairs share the first; they are of different lengths."""
    letters = random.Random(1)

    def words(length: int) -> str:
        return "".join(letters.choices("abcdefghij", k=length))

    pairs = []
    for place in range(count):
        opening = [words(3), words(2 + place % 5), words(2)]
        pairs.append(([*opening, words(1 + place % 4)], [*opening, words(6 - place % 3)]))
    return pairs


@pytest.mark.parametrize(("recipe", "labels"), [("tulu3-8b", "all"), ("olmo3-7b-instruct", "last")])
def test_dpo_of_a_recipe_labels_the_turns_that_its_release_labelled(
    recipe: str, labels: str, tiny_model: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From the recipe's section and rows of messages: masks, reference, losses, clipping and AdamW, three steps."""
    stay_in_float64(monkeypatch)
    conversations = drawn_pairs(6 * STEPS)
    rows = tmp_path / "rows.jsonl"
    made = [{"chosen": conversation(chosen), "rejected": conversation(rejected)} for chosen, rejected in conversations]
    rows.write_text("".join(json.dumps(row) + "\n" for row in made))
    section = load_recipe(recipe, processes=1).dpo
    assert section is not None
    small = {**SHARED, "row_tokens": 400, "data": str(rows), "max_length": 512, "epochs": None, "precision": "fp32"}
    small |= {"gradient_checkpointing": False, "sharding": "none", "template": None, "template_hash": None}
    stage = make_stage(Dpo, **{**section.model_dump(), **small})
    tokenizer = make_byte_tokenizer()
    apply_template(tokenizer, "tulu")
    groups = load_groups("pairs", stage.data, tokenizer, stage.max_length, labels=labels_of(stage))
    policy = Policy.load(tiny_model("llama"))
    policy.module.double()
    learner = Learner(policy, stage, parallel := Parallel(stage))
    model, optimizer = plain(tiny_model("llama"))
    frozen, _ = plain(tiny_model("llama"))
    pairs = dpo.referenced_pairs(groups, reference_logps(groups, policy, stage, parallel, tmp_path / "cache"))

    def objective(batch: Any) -> tuple[Tensor, Any]:
        return dpo.dpo(policy, batch, stage)

    def by_the_original(number: int, which: str) -> Tensor:
        each = conversations[6 * number : 6 * number + 6]
        sides = [(spelled(chosen, which), spelled(rejected, which)) for chosen, rejected in each]
        return dpo_norm_loss(model, frozen, sides, beta=5.0)

    start = {name: tensor.detach().clone() for name, tensor in model.named_parameters()}
    # The reference is kept in float32, and AdamW makes of its rounding 5e-3 of a learning rate where the gradient is nearly 0.
    for number, rate in enumerate(rate / 10 for rate in RATES):
        learner.set_learning_rate(rate)
        batches = dpo.pack_pairs([pairs[place] for place in range(6 * number, 6 * number + 6)], stage)
        assert len(batches) > 1
        metrics = step(learner, batches, objective, dpo.count_pairs)
        if number:
            other = by_the_original(number, "last" if labels == "all" else "all")
            assert metrics["loss"] != pytest.approx(other.item(), rel=1e-4), "the turns that are labelled do not matter"
        expected = by_the_original(number, labels)
        assert metrics["loss"] == pytest.approx(expected.item(), rel=1e-6)
        norm = adamw_step(model, optimizer, expected, rate, max_norm=1.0)
        assert metrics["gradient_norm"] == pytest.approx(norm, rel=1e-5)
        assert furthest(policy, model) < 1e-6
    moved = max(float((tensor - start[name]).detach().abs().max()) for name, tensor in model.named_parameters())
    assert moved > 1e-4, "so little moves that nothing is compared"
