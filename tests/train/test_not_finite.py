"""Numbers that are not finite: the step is not taken, its rows are named, and neither a checkpoint nor a model holds them."""

import math
import re
from collections.abc import Callable, Sequence
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.samples import make_group, make_stage
from tests.train.test_step import Toy, toy, toy_rows
from tulu.config.schema import Sft
from tulu.errors import TrainingError
from tulu.losses import Loss, sft_loss
from tulu.model.batch import Batch, pack_row
from tulu.model.parallel import Parallel
from tulu.model.policy import Policy
from tulu.stages.sft import WeightedGroup, pack_weighted
from tulu.train.optimizer import Learner
from tulu.train.step import count_completions, count_tokens, step
from tulu.types import Completion


def weighted_rows(weights: dict[str, float], together: bool = True) -> tuple[list[Any], Callable[[Any], Loss], Toy]:
    """Rows of one token each, whose losses are weighted by what the row says: a row that says NaN has a loss of NaN."""
    model = toy()
    groups = [WeightedGroup([0], (Completion([1], [True]),), row, weight=weight) for row, weight in weights.items()]
    stage = make_stage(Sft, micro_batch=8 if together else 1)
    return (
        pack_weighted(groups, stage),
        lambda batch: sft_loss(model.logps(batch), batch.weight_C[batch.owner_N]),
        model,
    )


def refused(batches: Sequence[Any], objective: Callable[[Any], Loss], model: Toy) -> str:
    """The message of a step that must not be taken; weights and optimizer stay as they were after one that was."""
    learner = Learner(model, make_stage(), Parallel(make_stage()))
    step(learner, [pack_row(toy_rows())], lambda batch: sft_loss(model.logps(batch)), count_tokens)
    before = [deepcopy(model.module.state_dict()), deepcopy(learner.optimizer.state_dict())]
    with pytest.raises(TrainingError) as raised:
        step(learner, batches, objective, count_completions)
    assert [model.module.state_dict(), learner.optimizer.state_dict()] == before
    assert model.module.scale.grad is None, "nothing of it is left for the step after"
    assert raised.value.exit_code == 1
    return str(raised.value)


@pytest.mark.parametrize("together", [True, False])
@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_a_loss_that_is_not_finite_stops_before_the_step_and_names_the_row(bad: float, together: bool) -> None:
    batches, objective, model = weighted_rows({"a:1": 1.0, "a:2": bad, "a:3": 2.0, "b:7": 1.0}, together)
    assert len(batches) == (1 if together else 4)
    message = refused(batches, objective, model)
    assert re.fullmatch(r"the next step is not taken, its loss is -?(nan|inf): row a:2", message), message


def test_two_infinities_that_cancel_are_seen() -> None:
    message = refused(*weighted_rows({"a:1": math.inf, "a:2": 1.0, "a:3": -math.inf}))
    assert message.endswith("its loss is nan: rows a:1, a:3")


def test_many_rows_are_counted() -> None:
    message = refused(*weighted_rows({f"a:{n}": math.nan for n in range(1, 31)}))
    assert message.endswith("all its rows: a:1, a:2, a:3, a:4, a:5, a:6, a:7, a:8 and 22 more")


def test_rows_that_are_bad_only_together_are_all_named() -> None:
    batches, _, model = weighted_rows({"a:1": 1.0, "a:2": 1.0})

    def objective(batch: Batch) -> Loss:
        loss, metrics = sft_loss(model.logps(batch))
        return loss * (math.nan if batch.n_completions == 2 else 1.0), metrics

    assert refused(batches, objective, model).endswith("nan: all its rows: a:1, a:2")


def test_a_finite_loss_whose_gradient_is_not_stops_too() -> None:
    batches, _, model = weighted_rows({"a:1": 1.0, "a:2": 1.0})

    def objective(batch: Batch) -> Loss:
        # The slope of a root at 0 is infinite, times 0 not a number.
        return (0.0 * model.module.scale).sqrt() + model.module.scale, {}

    message = refused(batches, objective, model)
    assert message == "the next step is not taken, its loss is finite, the norm of its gradients nan: all its rows: a:1, a:2"


def test_a_spare_row_at_weight_nothing_cannot_hide_a_gradient(monkeypatch: pytest.MonkeyPatch) -> None:
    """0 × NaN is NaN: a process that only repeats a bad row must not step with it."""
    (batch,), objective, model = weighted_rows({"a:1": math.nan})
    learner = Learner(model, make_stage(), Parallel(make_stage()))
    monkeypatch.setattr(learner.parallel, "largest", lambda number: 1)
    monkeypatch.setattr(learner.parallel, "total", lambda number: 1.0)
    with pytest.raises(TrainingError, match="the norm of its gradients nan"):
        step(learner, [], objective, count_completions, spare=batch)
    assert model.module.scale.item() == 1.0


def test_a_step_waits_for_the_device_equally_often_whatever_the_micro_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    reads: list[str] = []
    for name in ("item", "tolist", "__float__", "__bool__", "cpu", "numpy"):
        plain = getattr(Tensor, name)

        def counted(tensor: Tensor, *args: Any, plain: Any = plain, name: str = name) -> Any:
            reads.append(name)
            return plain(tensor, *args)

        monkeypatch.setattr(Tensor, name, counted)
    model = toy()
    learner = Learner(model, make_stage(), Parallel(make_stage()))
    counts = []
    for many in (1, 8):
        batches = [pack_row([row]) for row in toy_rows() * many]
        reads.clear()
        step(learner, batches, lambda batch: sft_loss(model.logps(batch)), count_tokens)
        counts.append(len(reads))
    assert counts[0] == counts[1] > 0


def test_a_group_alone_is_computed_as_it_was_among_others(tiny_model: Callable[..., Path]) -> None:
    policy = Policy.load(tiny_model("qwen3"))
    groups = [make_group(seed, [5, 0, 3][seed % 3], [4 + seed, 7, 2]) for seed in range(5)]
    batch = pack_row(groups)
    logps_N = policy.logps(batch).detach()
    for place, group in enumerate(groups):
        alone = batch.alone(place)
        expected = pack_row([group])
        for name in ("tokens_T", "positions_T", "read_N", "target_N", "owner_N", "place_N"):
            assert torch.equal(getattr(alone, name), getattr(expected, name)), name
        assert alone.completions == expected.completions
        assert alone.id_C == expected.id_C == (f"row:{place}",) * 3
        owners = [number for number, (member, _) in enumerate(batch.index_C) if member == place]
        mine = torch.isin(batch.owner_N, torch.tensor(owners))
        assert torch.allclose(policy.logps(alone), logps_N[mine], atol=1e-5)
