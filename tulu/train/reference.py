"""Log-probs of whole completions under the starting weights, computed once and cached by weights and tokens.

A new mix, order or batch size keeps its hits: the key of a completion is a hash of its tokens and mask, and the folder of
the cache is named after a hash of the weights and the precision.
"""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy
import pyarrow
import pyarrow.compute
import pyarrow.parquet
import torch
import xxhash
from numpy.typing import NDArray
from torch import Tensor

from tulu.config.schema import TrainStage
from tulu.data.lazy import LazySequence
from tulu.data.token_cache import Groups
from tulu.losses import sum_by_owner
from tulu.model.batch import Batch
from tulu.model.dropout import evaluating
from tulu.model.parallel import Parallel
from tulu.model.policy import Policy
from tulu.progress import Progress
from tulu.train.fit import pack_whole
from tulu.train.prefetch import ahead
from tulu.types import Completion, Group

log = logging.getLogger("tulu")

Logps = NDArray[numpy.float32]
_DIGEST = 16
"""Bytes of a hash."""
CHUNK = 512
"""Groups between two writes of the cache, which is what a Ctrl-C can lose."""
_COLUMNS = pyarrow.schema({"key": pyarrow.string(), "logp": pyarrow.float64()})


def reference_logps(
    groups: Sequence[Group], policy: Policy, stage: TrainStage, parallel: Parallel, folder: Path
) -> Sequence[list[float]]:
    """The summed log-probs of each group's completions under the policy's present weights, in four bytes a completion.

    `folder` caches those of these weights: each by its own key, and those of a mix as a whole by the digest of the mix, so
    that a run that begins again need not look at every row.
    """
    if not isinstance(groups, Groups):
        starts = numpy.cumsum([0, *(len(group.completions) for group in groups)])
        return _by_group(_of_completions(groups, starts, policy, stage, parallel, folder), starts)
    starts = numpy.concatenate([[0], numpy.cumsum(groups.completions)])
    file = folder / f"mix-{groups.digest}"
    logps = read_mix(file, int(starts[-1]))
    # All processes share the work, so all of them do it where one of them lacks its result.
    is_lacking = parallel.largest(int(logps is None))
    if is_lacking or logps is None:
        logps = _of_completions(groups, starts, policy, stage, parallel, folder)
        if parallel.is_main:
            write_mix(file, logps)
    return _by_group(logps, starts)


def _by_group(logps: Logps, starts: NDArray[numpy.int64]) -> Sequence[list[float]]:
    return LazySequence(len(starts) - 1, lambda group: logps[starts[group] : starts[group + 1]].tolist())


def _of_completions(
    groups: Sequence[Group],
    starts: NDArray[numpy.int64],
    policy: Policy,
    stage: TrainStage,
    parallel: Parallel,
    folder: Path,
) -> Logps:
    """The log-prob of every completion, one group after the other; group g has those from starts[g] on."""
    keys = pyarrow.array([completion_key(group, completion) for group in groups for completion in group.completions], "string")
    cache = read_cache(folder)
    places = pyarrow.compute.index_in(keys, value_set=cache["key"])
    # What the cache does not hold is NaN until it is computed.
    logps = cache["logp"].take(places).to_numpy().astype(numpy.float32)
    # A process may have read the cache before another run, or the main process, wrote to it: what one of them lacks all compute.
    lacking = parallel.most(torch.from_numpy(numpy.isnan(logps)).to(torch.uint8).to(parallel.device))
    unknown = numpy.flatnonzero(lacking.cpu().numpy())
    missing = numpy.unique(numpy.searchsorted(starts, unknown, side="right") - 1).tolist()
    if missing:
        log.info("reference log-probs: %d of %d rows to compute", len(missing), len(groups))
    chunks = [missing[first : first + CHUNK] for first in range(0, len(missing), CHUNK)]

    def ready(number: int) -> Ready:
        return _make_ready([groups[group] for group in chunks[number]], stage, parallel)

    with (
        Progress("reference", len(missing), 0, parallel.is_main) as progress,
        evaluating(policy.module),
        ahead(ready, range(len(chunks)), parallel.device) as rows,
    ):
        for number, chunk in enumerate(chunks):
            computed = _compute(next(rows), policy, parallel)
            new = [int(starts[chunk[group]]) + completion for group, completion in computed]
            logps[new] = list(computed.values())
            if parallel.is_main:
                write_part(folder, dict(zip(keys.take(new).to_pylist(), computed.values(), strict=True)))
            progress.update(number * CHUNK + len(chunk), {})
    return logps


@dataclass(frozen=True)
class Ready:
    """A process's share of some groups, packed and on its device."""

    places: Sequence[int]
    """Which of the groups they are."""
    batches: list[Batch]
    spare: Batch
    """A batch for a process that has fewer than the others."""


def _make_ready(groups: list[Group], stage: TrainStage, parallel: Parallel) -> Ready:
    places = parallel.share(range(len(groups)))
    batches = [batch.to(parallel.device) for batch in pack_whole([groups[place] for place in places], stage)]
    return Ready(places, batches, pack_whole(groups[:1], stage)[0].to(parallel.device))


def _compute(rows: Ready, policy: Policy, parallel: Parallel) -> dict[tuple[int, int], float]:
    """The summed log-prob of every (group, completion), in order; the processes share the work."""
    own: list[tuple[int, int]] = []
    sums: list[Tensor] = []
    for batch, is_own in parallel.level(rows.batches, rows.spare):
        sums_C = sum_by_owner(policy.logps(batch), batch.owner_N, batch.n_completions)
        if is_own:
            own += [(rows.places[group], completion) for group, completion in batch.index_C]
            sums.append(sums_C)
    # They are read from the device once, so that no row waits for the one before.
    computed = dict(zip(own, torch.cat(sums).tolist() if sums else [], strict=True))
    return dict(sorted(item for part in parallel.exchange(computed) for item in part.items()))


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


def read_mix(file: Path, count: int) -> Logps | None:
    """The log-probs of a whole mix; None where they were not written, or are damaged."""
    try:
        content = file.read_bytes()
    except FileNotFoundError:
        return None
    digest, numbers = content[:_DIGEST], content[_DIGEST:]
    if len(numbers) != 4 * count or xxhash.xxh3_128_digest(numbers) != digest:
        log.warning("%s is damaged and is put together again", file)
        return None
    return numpy.frombuffer(numbers, numpy.float32)


def write_mix(file: Path, logps: Logps) -> None:
    """Write the log-probs of a whole mix behind a hash of them, beside their place and renamed."""
    numbers = logps.astype(numpy.float32).tobytes()
    file.parent.mkdir(parents=True, exist_ok=True)
    partial = file.with_name(f".partial-{file.name}")
    partial.write_bytes(xxhash.xxh3_128_digest(numbers) + numbers)
    partial.rename(file)


def write_part(folder: Path, logps: dict[str, float]) -> None:
    """Write one more part of the cache, named by its content, beside its place and renamed."""
    folder.mkdir(parents=True, exist_ok=True)
    name = f"part-{xxhash.xxh3_64_hexdigest(' '.join(sorted(logps)).encode())}.parquet"
    partial = folder / f".partial-{name}"
    pyarrow.parquet.write_table(pyarrow.table({"key": list(logps), "logp": list(logps.values())}, schema=_COLUMNS), partial)
    partial.rename(folder / name)
