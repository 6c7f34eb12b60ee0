"""Whether a stage fits a GPU, how long its packed rows can be, and what to set where it does not fit."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from tulu.config.cards import Card
from tulu.config.decoding import ENGINE_SHARE, engine_of
from tulu.config.facts import Facts
from tulu.config.plan import GIB, USABLE, longest_row, memory
from tulu.config.schema import Rlvr, TrainStage

MOST_PROCESSES = 4096
"""Most processes that are offered where a stage does not fit."""


@dataclass(frozen=True)
class Rows:
    """How long packed rows are, and the memory of training on them."""

    tokens: int
    amounts: Mapping[str, float]
    """Bytes on one process, by what they hold."""
    room: float | None
    """Bytes that a GPU has for them; None where no GPU was named."""

    @property
    def fits(self) -> bool:
        return self.room is None or sum(self.amounts.values()) <= self.room


def rows_of(facts: Facts, section: TrainStage | None = None, processes: int | None = None) -> Rows:
    """The packed rows of a stage, which hold its longest sequence at least; with other settings or processes if given.

    `row_tokens: auto` is the longest row that fits, where a GPU was named and DeepSpeed does not shard (which cannot measure it).
    """
    section, processes = section or facts.section, processes or facts.processes
    assert facts.size is not None
    room = None if facts.card is None else room_of(section, facts.card)
    tokens = section.row_limit
    if section.row_tokens == "auto" and room is not None and not section.sharding.startswith("zero"):
        tokens = longest_row(section, facts.size, processes, room, facts.value, facts.teacher) or tokens
    tokens = max(tokens, section.max_length)
    as_long = section.model_copy(update={"row_tokens": tokens})
    return Rows(tokens, memory(as_long, facts.size, processes, facts.value, facts.teacher), room)


def room_of(section: TrainStage, card: Card) -> float:
    """Bytes of a GPU for training: what the allocator can use, less what vLLM has where it has no GPUs of its own."""
    return (USABLE - (ENGINE_SHARE if samples_beside(section) else 0.0)) * card.gib * GIB


def samples_beside(section: TrainStage) -> bool:
    """Whether vLLM samples on the GPUs that learn."""
    return isinstance(section, Rlvr) and engine_of(section) == "vllm" and not section.resources.engines


def cure(facts: Facts) -> str:
    """What makes a stage fit that does not, as it is written on the command line; empty where nothing of this does."""
    for changed, processes in _offers(facts):
        if rows_of(facts, facts.section.model_copy(update=dict(changed)), processes).fits:
            written = [f"{key}={str(value).lower()}" for key, value in changed.items()]
            return " ".join([*written, *([f"--gpus {processes}"] if processes != facts.processes else [])])
    return ""


def _offers(facts: Facts) -> Iterator[tuple[Mapping[str, Any], int]]:
    """Settings and numbers of processes, the least change first."""
    section, processes = facts.section, facts.processes
    shorter: Mapping[str, Any] = {"row_tokens": section.max_length} if rows_of(facts).tokens > section.max_length else {}
    checkpointing: Mapping[str, Any] = {} if section.gradient_checkpointing is True else {"gradient_checkpointing": True}
    spread: Mapping[str, Any] = {} if section.sharding in ("zero3", "fsdp2") else {"sharding": "fsdp2"}
    settings = [{}, shorter, checkpointing, {**shorter, **checkpointing}]
    yield from ((changed, processes) for changed in settings if changed)
    while processes <= MOST_PROCESSES:
        if processes > 1:
            yield from (({**spread, **changed}, processes) for changed in settings)
        processes *= 2
