"""Log-probs of whole completions under the starting weights, computed once and cached by weights and tokens.

A new mix, order or batch size keeps its hits: the key of a completion is a hash of its tokens and mask, and the folder of
the cache is named after a hash of the weights and the precision.
"""

import logging
from collections.abc import Sequence
from pathlib import Path

import numpy
import pyarrow
import pyarrow.compute
import pyarrow.parquet
import torch
import xxhash

from tulu.config.schema import TrainStage
from tulu.model.batch import Batch, sum_by_owner
from tulu.model.parallel import Parallel
from tulu.model.policy import Policy
from tulu.progress import Progress
from tulu.train.fit import pack_whole
from tulu.types import Completion, Group

log = logging.getLogger("tulu")

CHUNK = 512
"""Groups between two writes of the cache, which is what a Ctrl-C can lose."""
_COLUMNS = pyarrow.schema({"key": pyarrow.string(), "logp": pyarrow.float64()})


class ReferenceLogps(Sequence[Sequence[float]]):
    """The summed log-prob of every completion of every group, four bytes each."""

    def __init__(self, logps: numpy.ndarray, starts: numpy.ndarray) -> None:
        """`logps` holds all completions, group after group; `starts` the place of each group's first, and one past the last."""
        self._logps = logps
        self._starts = starts

    def __len__(self) -> int:
        return len(self._starts) - 1

    def __getitem__(self, group: int) -> list[float]:  # type: ignore[override]  # a slice of groups is never asked for
        """One number per completion of a group."""
        values: list[float] = self._logps[self._starts[group] : self._starts[group + 1]].tolist()
        return values


def reference_logps(
    groups: Sequence[Group], policy: Policy, stage: TrainStage, parallel: Parallel, folder: Path
) -> ReferenceLogps:
    """Each completion's summed log-prob under the policy's present weights; `folder` caches those of these weights."""
    starts = numpy.cumsum([0, *(len(group.completions) for group in groups)])
    keys = pyarrow.array([completion_key(group, completion) for group in groups for completion in group.completions], "string")
    cache = read_cache(folder)
    places = pyarrow.compute.index_in(keys, value_set=cache["key"])
    # What the cache does not hold is NaN until it is computed.
    logps = cache["logp"].take(places).to_numpy().astype(numpy.float32)
    unknown = numpy.flatnonzero(numpy.isnan(logps))
    missing = numpy.unique(numpy.searchsorted(starts, unknown, side="right") - 1).tolist()
    if missing:
        log.info("reference log-probs: %d of %d rows to compute", len(missing), len(groups))
    training = policy.module.training
    policy.module.eval()
    with Progress("reference", len(missing), 0, parallel.is_main) as progress:
        for first in range(0, len(missing), CHUNK):
            chunk = missing[first : first + CHUNK]
            computed = _compute([groups[group] for group in chunk], policy, stage, parallel)
            for group, values in zip(chunk, computed, strict=True):
                logps[starts[group] : starts[group + 1]] = values
            if parallel.is_main:
                write_part(folder, _by_key(keys, starts, chunk, computed))
            progress.update(first + len(chunk), {})
    policy.module.train(training)
    return ReferenceLogps(logps, starts)


def _by_key(keys: pyarrow.Array, starts: numpy.ndarray, chunk: list[int], computed: list[list[float]]) -> dict[str, float]:
    """The computed log-probs of a chunk of groups by the keys of their completions."""
    return {
        keys[starts[group] + place].as_py(): value
        for group, values in zip(chunk, computed, strict=True)
        for place, value in enumerate(values)
    }


@torch.no_grad()
def _compute(groups: list[Group], policy: Policy, stage: TrainStage, parallel: Parallel) -> list[list[float]]:
    """The summed log-prob of every completion of every group; the processes share the work."""
    places = parallel.share(list(range(len(groups))))
    batches = pack_whole([groups[place] for place in places], stage)
    spare = pack_whole(groups[:1], stage)[0]
    computed: dict[tuple[int, int], float] = {}
    for index in range(parallel.largest(len(batches))):
        has_row = index < len(batches)
        sums_C = _sequence_logps(policy, batches[index] if has_row else spare)
        if has_row:
            for (group, completion), value in zip(batches[index].index_C, sums_C.tolist(), strict=True):
                computed[places[group], completion] = value
    everywhere = {key: value for part in parallel.exchange(computed) for key, value in part.items()}
    return [[everywhere[place, c] for c in range(len(group.completions))] for place, group in enumerate(groups)]


def _sequence_logps(policy: Policy, batch: Batch) -> torch.Tensor:
    batch = batch.to(policy.device)
    return sum_by_owner(policy.logps(batch), batch.owner_N, batch.n_completions)


def completion_key(group: Group, completion: Completion) -> str:
    """Hash of a completion's tokens and mask after its prompt."""
    digest = xxhash.xxh3_128()
    digest.update(numpy.asarray(group.prompt, dtype=numpy.int64).tobytes() + b"|")
    digest.update(numpy.asarray(completion.tokens, dtype=numpy.int64).tobytes())
    digest.update(numpy.asarray(completion.trained, dtype=bool).tobytes())
    return digest.hexdigest()


def read_cache(folder: Path) -> pyarrow.Table:
    """All parts of a cache as one table of key and logp; a part that cannot be read is named and computed again."""
    parts = [_COLUMNS.empty_table()]
    for file in sorted(folder.glob("part-*.parquet")):
        try:
            parts.append(pyarrow.parquet.read_table(file, schema=_COLUMNS))
        except (OSError, pyarrow.ArrowInvalid) as error:
            log.warning("%s is damaged and is computed again (%s)", file, error)
            file.unlink()
    return pyarrow.concat_tables(parts).combine_chunks()


def write_part(folder: Path, logps: dict[str, float]) -> None:
    """Write one more part of the cache, named by its content, beside its place and renamed."""
    folder.mkdir(parents=True, exist_ok=True)
    name = f"part-{xxhash.xxh3_64_hexdigest(' '.join(sorted(logps)).encode())}.parquet"
    partial = folder / f".partial-{name}"
    pyarrow.parquet.write_table(pyarrow.table({"key": list(logps), "logp": list(logps.values())}, schema=_COLUMNS), partial)
    partial.rename(folder / name)
