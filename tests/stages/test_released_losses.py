"""SFT under each normaliser and DPO with labels on every assistant turn: three steps as an independent implementation does."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import AutoModelForCausalLM

from tests.samples import make_stage, stay_in_float64
from tests.stages.released_losses import IGNORED, Pair, Row, adamw_step, dpo_norm_loss, sft_loss
from tulu import losses
from tulu.config.schema import Dpo, Sft
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


def pair_of(generator: torch.Generator, place: int) -> tuple[Group, Pair]:
    """Two conversations whose first three turns are shared, with every assistant turn trained on both sides."""
    opening = numbers(generator, 2)
    shared, shared_flags = turns(generator, (0, 2 + place % 3, 3))
    sides = []
    for length in (2 + place, 7 - place):
        answer = numbers(generator, length)
        sides.append(([*shared, *answer], [*shared_flags, *[True] * length]))
    group = Group(opening, tuple(Completion(tokens, flags) for tokens, flags in sides), f"row:{place}")
    chosen, rejected = (labelled([*opening, *tokens], [False, False, *flags]) for tokens, flags in sides)
    return group, (chosen, rejected)


def test_dpo_with_labels_on_every_assistant_turn(
    tiny_model: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stay_in_float64(monkeypatch)
    stage = make_stage(Dpo, **SHARED, loss="dpo_norm", beta=5.0)
    policy = Policy.load(tiny_model("llama"))
    policy.module.double()
    learner = Learner(policy, stage, parallel := Parallel(stage))
    model, optimizer = plain(tiny_model("llama"))
    frozen, _ = plain(tiny_model("llama"))
    generator = torch.Generator().manual_seed(1)
    drawn = [[pair_of(generator, place) for place in range(6)] for _ in RATES]
    groups = [group for pairs in drawn for group, _ in pairs]
    reference = reference_logps(groups, policy, stage, parallel, tmp_path / "cache")
    pairs = dpo.referenced_pairs(groups, reference)

    def objective(batch: Any) -> tuple[Tensor, Any]:
        return dpo.dpo(policy, batch, stage)

    for number, rate in enumerate(RATES):
        learner.set_learning_rate(rate)
        batches = dpo.pack_pairs([pairs[place] for place in range(6 * number, 6 * number + 6)], stage)
        assert len(batches) > 1
        metrics = step(learner, batches, objective, dpo.count_pairs)
        expected = dpo_norm_loss(model, frozen, [pair for _, pair in drawn[number]], beta=5.0)
        assert metrics["loss"] == pytest.approx(expected.item(), rel=1e-6)
        norm = adamw_step(model, optimizer, expected, rate, max_norm=1.0)
        assert metrics["gradient_norm"] == pytest.approx(norm, rel=1e-5)
        assert furthest(policy, model) < 1e-6
