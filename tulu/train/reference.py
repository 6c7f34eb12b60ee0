"""Sequence log-probs under the starting weights, computed once and cached by weights and tokens, row by row.

A new mix, order or batch size keeps its hits: the key of a row is a hash of its tokens and mask, the file is named
after a hash of the weights and the precision.
"""

import logging
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy
import pyarrow
import pyarrow.parquet
import torch
import xxhash

from tulu.config.schema import TrainStage
from tulu.model.batch import Batch, sum_by_owner
from tulu.model.parallel import Parallel
from tulu.model.policy import Policy
from tulu.progress import Progress
from tulu.train.step import rows_of
from tulu.types import Completion, Group

log = logging.getLogger("tulu")

CHUNK = 512
"""Groups between two writes of the cache: what a Ctrl-C can lose."""


def with_reference(groups: Sequence[Group], policy: Policy, stage: TrainStage, parallel: Parallel, folder: Path) -> list[Group]:
    """The groups with each completion's summed log-prob under the policy's present weights as value `reference`.

    `folder` holds the cache of these weights in this precision.
    """
    known = read_cache(folder)
    keys = [[completion_key(group, completion) for completion in group.completions] for group in groups]
    missing = [group for group, row in zip(groups, keys, strict=True) if any(key not in known for key in row)]
    if missing:
        log.info("reference log-probs: %d of %d rows to compute", len(missing), len(groups))
    training = policy.module.training
    policy.module.eval()
    with Progress("reference", len(missing), 0, parallel.is_main) as progress:
        for first in range(0, len(missing), CHUNK):
            chunk = missing[first : first + CHUNK]
            computed = _compute(chunk, policy, stage, parallel)
            known |= computed
            if parallel.is_main:
                write_part(folder, computed)
            progress.update(first + len(chunk), {})
    policy.module.train(training)
    return [
        replace(
            group,
            completions=tuple(
                replace(completion, values={**completion.values, "reference": known[key]})
                for completion, key in zip(group.completions, row, strict=True)
            ),
        )
        for group, row in zip(groups, keys, strict=True)
    ]


@torch.no_grad()
def _compute(groups: list[Group], policy: Policy, stage: TrainStage, parallel: Parallel) -> dict[str, float]:
    """Key -> summed log-prob of every completion, the work shared between the processes."""
    indexed = [
        replace(
            group,
            completions=tuple(replace(c, values={"at": float(at)}) for at, c in enumerate(group.completions, start=offset)),
        )
        for group, offset in zip(groups, _offsets(groups), strict=True)
    ]
    keys = [completion_key(group, completion) for group in groups for completion in group.completions]
    batches = rows_of(parallel.share(indexed), stage)
    spare = rows_of(indexed[:1], stage)[0]
    found: dict[str, float] = {}
    for index in range(parallel.largest(len(batches))):
        own = index < len(batches)
        sums_C = _sequence_logps(policy, batches[index] if own else spare)
        if own:
            for at, value in zip(batches[index].values["at"].tolist(), sums_C.tolist(), strict=True):
                found[keys[int(at)]] = value
    return {key: value for part in parallel.exchange(found) for key, value in part.items()}


def _sequence_logps(policy: Policy, batch: Batch) -> torch.Tensor:
    batch = batch.to(policy.device)
    return sum_by_owner(policy.logps(batch), batch.owner_N, batch.n_completions)


def _offsets(groups: Sequence[Group]) -> list[int]:
    """Where each group's completions begin in the flat order of all."""
    return numpy.cumsum([0, *(len(group.completions) for group in groups[:-1])]).tolist()


def completion_key(group: Group, completion: Completion) -> str:
    """Hash of a completion's tokens and mask after its prompt."""
    digest = xxhash.xxh3_128()
    digest.update(numpy.asarray(group.prompt, dtype=numpy.int64).tobytes() + b"|")
    digest.update(numpy.asarray(completion.tokens, dtype=numpy.int64).tobytes())
    digest.update(numpy.asarray(completion.trained, dtype=bool).tobytes())
    return digest.hexdigest()


def read_cache(folder: Path) -> dict[str, float]:
    """Everything the parts of a cache know; a part that cannot be read is said and computed again."""
    known: dict[str, float] = {}
    for file in sorted(folder.glob("part-*.parquet")):
        try:
            columns = pyarrow.parquet.read_table(file).to_pydict()
        except (OSError, pyarrow.ArrowInvalid) as error:
            log.warning("%s is damaged and is computed again (%s)", file, error)
            file.unlink()
            continue
        known |= dict(zip(columns["key"], columns["logp"], strict=True))
    return known


def write_part(folder: Path, values: dict[str, float]) -> None:
    """One more part of the cache, named by its content, beside and renamed."""
    folder.mkdir(parents=True, exist_ok=True)
    name = f"part-{xxhash.xxh3_64_hexdigest(' '.join(sorted(values)).encode())}.parquet"
    partial = folder / f".partial-{name}"
    pyarrow.parquet.write_table(pyarrow.table({"key": list(values), "logp": list(values.values())}), partial)
    partial.rename(folder / name)
