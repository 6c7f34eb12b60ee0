"""One optimizer step for every stage: losses are sums, and the one division by a global count happens here."""

import math
from collections.abc import Callable, Sequence
from typing import TypeVar

import torch
from torch import Tensor

from tulu.errors import TrainingError
from tulu.losses import Loss, Metrics, exact_dtype
from tulu.model.batch import Batch
from tulu.model.parallel import Parallel
from tulu.model.sending import send
from tulu.train.optimizer import Learner

B = TypeVar("B", bound=Batch)

Objective = Callable[[B], Loss]
"""The loss of a batch, as a sum."""
Normaliser = Callable[[B], float | Tensor]
"""The share of a batch in the number that a step's loss is divided by."""

NAMED = 8
"""Rows that a message names; of more it says how many there are."""


def count_tokens(batch: Batch) -> float:
    """Normalise by trained tokens."""
    return float(batch.n_trained)


def count_completions(batch: Batch) -> float:
    """Normalise by completions."""
    return float(batch.n_completions)


def step(
    learner: Learner,
    batches: Sequence[B],
    objective: Objective[B],
    normaliser: Normaliser[B],
    spare: B | None = None,
    shares: Sequence[float] | None = None,
) -> dict[str, float]:
    """One optimizer step over batches of any number and size; returns exact means over all of them and all processes.

    The sum of the objective is divided once, by the normaliser's total over all batches and processes, so neither
    packing nor micro-batches nor ranks change the gradient. Processes must run equally many forward passes when
    weights are sharded: one that has fewer rows repeats `spare` at weight 0. `shares` are what the normaliser says of the
    batches, where it was asked before.

    Raises TrainingError, in every process alike, where the loss or the norm of the gradients is not finite. The step is not
    taken then, and the message names the rows.
    """
    parallel = learner.parallel
    total = parallel.total(_add_up([normaliser(batch) for batch in batches] if shares is None else shares))
    losses, sums = _gradients(parallel, list(parallel.level(batches, spare)), objective, total)
    # Everything stays on the device until the step is about to be taken, so that no micro-batch waits for the one before, and is
    # read then together with the norm of the gradients, so that nothing waits for the step itself. Some rows have numbers that
    # others lack, so that a process may not know of all.
    names = parallel.names_of_all(sums)
    work = send(torch.tensor(learner.meter.work.on(batches), dtype=exact_dtype(parallel.device)), parallel.device)
    nothing = torch.zeros((), device=parallel.device), torch.zeros((), device=parallel.device)
    loss = torch.stack(losses).to(exact_dtype(parallel.device)).sum() if losses else torch.zeros_like(work)
    parts = [number.to(parallel.device, exact_dtype(parallel.device)) for name in names for number in sums.get(name, nothing)]
    (loss_total, done, *numbers), norm = parallel.finish_step(torch.stack([loss, work, *parts]), total)
    learner.meter.add(done)
    trained = [row for batch in batches for row in batch.id_C]
    if not math.isfinite(loss_total):
        bad = _culprits(parallel, batches, losses, objective, spare)
        named = _name_rows(parallel, bad, trained)
        raise TrainingError(f"the next step is not taken, its loss is {loss_total}: {named}")
    if not math.isfinite(norm) and parallel.skipped is None:
        named = _name_rows(parallel, trained, trained)
        raise TrainingError(f"the next step is not taken, its loss is finite, the norm of its gradients {norm}: {named}")
    skipped = {} if parallel.skipped is None else {"skipped_steps": float(parallel.skipped)}
    if parallel.outliers is not None:
        skipped["passed_over"] = float(parallel.outliers.passed_over)
    pairs = zip(names, numbers[0::2], numbers[1::2], strict=True)
    means = {name: value / count if count else math.nan for name, value, count in pairs}
    return {"loss": loss_total / total, "gradient_norm": norm, **skipped, **means}


def _gradients(
    parallel: Parallel, rows: Sequence[tuple[B, bool]], objective: Objective[B], total: float
) -> tuple[list[Tensor], Metrics]:
    """Accumulate the gradients of rows, some of which count for nothing; the losses of the others and sums of their metrics."""
    sums: Metrics = {}
    losses: list[Tensor] = []
    for index, (batch, is_own) in enumerate(rows, 1):
        with parallel.clock.part("forward"):
            loss, metrics = objective(batch.to(parallel.device))
        with parallel.clock.part("backward"):
            parallel.backward(loss * ((1.0 if is_own else 0.0) / total), last=index == len(rows))
        if is_own:
            losses.append(loss.detach())
        for name, (value, count) in metrics.items():
            # A process without rows of its own knows by a spare one which numbers the others add up.
            value, count = (value, count) if is_own else (torch.zeros_like(value), torch.zeros_like(count))
            before = sums.get(name, (0.0, 0.0))
            sums[name] = (before[0] + value, before[1] + count)
    return losses, sums


def _add_up(shares: Sequence[float | Tensor]) -> float:
    """The sum of numbers, some of which a device may have, which is asked once."""
    tensors = [share for share in shares if isinstance(share, Tensor)]
    held = torch.stack(tensors).tolist() if tensors else []
    return float(sum([share for share in shares if not isinstance(share, Tensor)]) + sum(held))


def _culprits(
    parallel: Parallel, batches: Sequence[B], losses: Sequence[Tensor], objective: Objective[B], spare: B | None
) -> list[str]:
    """This process's rows whose loss is not finite, found by each group's loss alone; all of a batch where none is so alone."""
    own = [(batch, loss) for batch, loss in zip(batches, losses, strict=True) if not math.isfinite(float(loss))]
    alone = [(place, batch.alone(group)) for place, (batch, _) in enumerate(own) for group in sorted(dict(batch.index_C))]
    found: dict[int, list[str]] = {}
    places = iter([place for place, _ in alone])
    with torch.no_grad():
        # Every process runs equally many forward passes here too, because sharded weights need it.
        for batch, is_own in parallel.level([batch for _, batch in alone], spare if spare is not None else _first(batches)):
            loss = float(objective(batch.to(parallel.device))[0])
            if is_own:
                place = next(places)
                if not math.isfinite(loss):
                    found.setdefault(place, []).extend(batch.id_C)
    return [row for place, (batch, _) in enumerate(own) for row in found.get(place, batch.id_C)]


def _first(batches: Sequence[B]) -> B | None:
    return batches[0] if batches else None


def _name_rows(parallel: Parallel, own: Sequence[str], trained: Sequence[str]) -> str:
    """Of the rows that all processes trained on, those of all processes in words; every process must call this."""
    parts = parallel.exchange((list(own), list(trained)))
    rows = list(dict.fromkeys(row for part, _ in parts for row in part))
    listed = ", ".join(rows[:NAMED]) + (f" and {len(rows) - NAMED} more" if len(rows) > NAMED else "")
    every = len(rows) > 1 and len(rows) == len({row for _, part in parts for row in part})
    return f"{'all its rows:' if every else 'row' if len(rows) == 1 else 'rows'} {listed}"
