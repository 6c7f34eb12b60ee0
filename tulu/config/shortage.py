"""Running out of memory as one message: what is held, and which field of the recipe lowers it by how much.

torch is not imported here, so that whoever runs a stage may stand this around it.
"""

import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from tulu.config.job import Job
from tulu.config.plan import memory
from tulu.config.processes import world_size
from tulu.config.schema import TrainStage
from tulu.config.sizes import Size, model_size
from tulu.errors import MemoryShortage, TuluError

GIB = 2**30
_UNITS = {"bytes": 1, "B": 1, "KiB": 2**10, "MiB": 2**20, "GiB": 2**30, "TiB": 2**40}
_ASKED = re.compile(r"[Tt]ried to allocate (?P<number>[\d.]+) ?(?P<unit>bytes|[KMGT]iB|B)")
_SIGNS = (
    *("out of memory", "can't allocate memory", "not enough memory", "ALLOC_FAILED", "Cannot allocate memory", "bad_alloc"),
    *("could not create a memory object", "could not create a primitive", "could not execute a primitive"),
    "failed to map segment from shared object",
)
"""Parts of the messages of torch's allocators, of CUDA, cuBLAS and oneDNN, of the operating system and of its linker."""
_OTHERWISE = ("could not create a primitive descriptor", "Operation not permitted")
"""What stands in messages that have one of these parts too and are of something else: an operation that oneDNN lacks, and a
library on a disk from which nothing may be run."""
_NO_PROCESS = ("can't start new thread", "Resource temporarily unavailable")
"""Parts of the messages of a thread or a process that could not be started."""
LOWERED = ("--batch", "--n", "--best-of", "--max-tokens", "--judge-tokens", "--row-tokens", "--max-length", "--workers")
"""Options of commands that train nothing which take less memory when they are smaller."""
MANY = 8
"""GPUs of one machine, for which sharding is estimated."""


@contextmanager
def telling_shortage(job: Job) -> Iterator[None]:
    """While the context lasts, running out of memory in this stage is a MemoryShortage that says what to lower."""
    try:
        yield
    except Exception as error:
        cause = shortage_behind(error)
        if cause is None:
            raise
        raise MemoryShortage(describe(job, cause)) from error


def is_shortage(error: BaseException) -> bool:
    """Whether there was no memory left, be it of a GPU or of the machine, or no room for another thread or process."""
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return True
    told = str(error)
    return any(sign in told for sign in (*_SIGNS, *_NO_PROCESS)) and not any(sign in told for sign in _OTHERWISE)


def shortage_behind(error: BaseException) -> BaseException | None:
    """The shortage that an error is, or that it was raised from: whoever reads a file takes any failure for a fault of the file.

    A message for a person that speaks of memory already stays as it is, with the cure that it has.
    """
    if isinstance(error, TuluError):
        told = "out of memory" in str(error)
        return None if told or error.__cause__ is None else shortage_behind(error.__cause__)
    return error if is_shortage(error) else None if error.__cause__ is None else shortage_behind(error.__cause__)


def describe(job: Job, error: BaseException) -> str:
    """The message for a stage that ran out of memory."""
    section = job.section if job.row.trains else None
    lines = [f"{job.stage}: {_shortage(error)}"]
    if job.row.merges:
        return "\n".join([*lines, "A merge holds one weight of each model at a time; stop what else uses the memory."])
    if not isinstance(section, TrainStage):
        cure = f"Lower {job.stage}.batch or {job.stage}.max_tokens, or stop what else uses the device."
        return "\n".join([*lines, cure])
    base = job.recipe.base
    size = model_size(job.start, base.config if job.start is None and base is not None else None)
    processes = world_size()
    if size is not None and size.layers:
        amounts = memory(section, size, processes)
        parts = ", ".join(f"{part} {amount / GIB:.2f}" for part, amount in amounts.items())
        lines.append(f"Training needs about {sum(amounts.values()) / GIB:.2f} GiB a process, estimated: {parts}.")
    lines.append("Give the same command one of these, which save about so many GiB, or stop what else uses the device:")
    lines += [f"  {job.stage}.{option:<28} {saved}" for option, saved in cures(section, size, processes)]
    return "\n".join(lines)


def say_shortage(error: BaseException, options: Collection[str] = ()) -> str:
    """The message for a command that trains nothing, and has these options."""
    lower = [option for option in LOWERED if option in options]
    *most, last = lower or [""]
    first = f"Lower {', '.join(most)}{' or ' if most else ''}{last}, or stop" if lower else "Stop"
    return f"{_shortage(error)}\n{first} what else uses the memory, or take a machine that has more."


def say_engine_shortage(error: BaseException) -> str:
    """The same in one line for an engine that samples."""
    cure = "lower its samples, max_prompt or max_tokens, or spread each engine over more GPUs (resources.tensor_parallel)"
    return f"{_shortage(error)}; {cure}"


def _shortage(error: BaseException) -> str:
    if any(sign in str(error) for sign in _NO_PROCESS):
        return "out of memory, or of processes that one user may have (ulimit -u): no other thread could be started"
    found = _ASKED.search(str(error))
    if found is None:
        return "out of memory"
    return f"out of memory: {float(found['number']) * _UNITS[found['unit']] / GIB:,.2f} GiB more could not be had"


def cures(stage: TrainStage, size: Size | None, processes: int) -> Sequence[tuple[str, str]]:
    """(an override of the recipe, GiB that it saves in words) of everything that lowers memory; the most first."""
    offered: dict[str, tuple[Mapping[str, Any], int]] = {}
    tokens = stage.row_limit
    shorter = max(tokens // 2, 1)
    if tokens > stage.max_length:
        offered[f"row_tokens={shorter}"] = {"row_tokens": shorter}, processes
        # So few documents cannot fill more than half a row, which also holds for a model whose rows are padded.
        fewer = max(1, shorter // stage.max_length)
        if fewer < stage.micro_batch:
            offered[f"micro_batch={fewer}"] = {"row_tokens": min(tokens, fewer * stage.max_length)}, processes
    else:
        offered[f"max_length={stage.max_length // 2}"] = {"row_tokens": max(1, stage.max_length // 2)}, processes
    if stage.gradient_checkpointing is False:
        offered["gradient_checkpointing=true"] = {"gradient_checkpointing": True}, processes
    if stage.precision == "fp32":
        offered["precision=bf16"] = {"precision": "bf16"}, processes
    if not stage.offload_optimizer:
        offered["offload_optimizer=true"] = {"offload_optimizer": True}, processes
    if stage.sharding not in ("zero3", "fsdp2") or processes == 1:
        many = max(processes, MANY) if processes == 1 else processes
        where = f" --gpus {many}" if processes == 1 else ""
        offered[f"sharding=fsdp2{where}"] = {"sharding": "fsdp2"}, many
    if size is None or not size.layers:
        return [(option, "") for option in offered]
    now = sum(memory(stage, size, processes).values())
    saved = {
        option: now - sum(memory(stage.model_copy(update=dict(changed)), size, count).values())
        for option, (changed, count) in offered.items()
    }
    ordered = sorted(saved, key=lambda option: saved[option], reverse=True)
    return [(option, f"{saved[option] / GIB:.2f}") for option in ordered if saved[option] > 0]
