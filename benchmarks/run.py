"""Each training stage beside TRL's trainer of it: same model, rows, batch, threads and optimizer, turn by turn.

    make bench                                   every stage, with OMP_NUM_THREADS=1
    python -m benchmarks.run dpo --turns 9       one stage, more turns

What is compared, how tokens are counted and what TRL is given: benchmarks/README.md.
"""

import argparse
import importlib
import json
import os
import statistics
import sys
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from benchmarks.material import MAX_LENGTH, SAMPLES, SHAPE, VOCABULARY, Material, make, shared_folder
from benchmarks.pace import Ready, Task, Turn, Worker
from tulu.errors import DataError, TuluError
from tulu.files import write_atomic
from tulu.train.manifest import environment

RESULTS = Path(__file__).resolve().parent / "results"
QUIET = {
    "HF_HUB_OFFLINE": "1",
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    "HF_DATASETS_DISABLE_PROGRESS_BARS": "1",
    "PYTHONWARNINGS": "ignore",
    "TOKENIZERS_PARALLELISM": "false",
    "TQDM_DISABLE": "1",
    "TRANSFORMERS_VERBOSITY": "error",
    "TRL_EXPERIMENTAL_SILENCE": "1",
}


@dataclass(frozen=True)
class Plan:
    """One stage's comparison: ours first, then TRL's default, then TRL as fast as settings make it here."""

    batch: int
    """Sequences (SFT), pairs (DPO, RM) or prompts of SAMPLES completions (GRPO) of an optimizer step."""
    steps: int
    """Optimizer steps of a turn."""
    tuned: dict[str, Any]
    """TRL's fastest settings on this material, where they are not its default; benchmarks/README.md says what was tried."""


PLANS = {
    "sft": Plan(16, 2, {"micro_batch": 1}),
    "dpo": Plan(8, 1, {"micro_batch": 1}),
    "rm": Plan(8, 1, {"micro_batch": 1}),
    "grpo": Plan(4, 1, {}),
}
MICRO_BATCH = 8
"""TRL's default, and ours."""
ROW_TOKENS = 8192
"""The recipes' default."""
TOLERANCE = 1e-4
"""Largest difference between the losses of two sides in the first step: they train the same tokens from the same weights."""


@dataclass
class Side:
    """What one side reported, turn by turn."""

    task: Task
    ready: Ready
    turns: list[Turn]

    def training_mib(self) -> float:
        """Memory that training took beyond what was there before the first step."""
        return self.turns[-1].peak_mib - self.ready.rss_mib


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.run", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("stages", nargs="*", metavar="STAGE", help=f"{', '.join(PLANS)}; default: all")
    parser.add_argument("--turns", type=int, default=5, help="turns of every side, after one to warm up")
    parser.add_argument("--batch", type=int, help="sequences, pairs or prompts of a step; default: each stage's own")
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder of the JSON files")
    options = parser.parse_args(arguments)
    unknown = sorted(set(options.stages) - set(PLANS))
    if unknown or options.turns < 1:
        parser.error(f"no such stage: {', '.join(unknown)}" if unknown else "--turns must be at least 1")
    os.environ |= QUIET
    try:
        shared = shared_folder()
    except DataError as error:
        print(f"skipped: {error}", file=sys.stderr)
        return 0
    plans = {stage: replace(PLANS[stage], batch=options.batch or PLANS[stage].batch) for stage in options.stages or PLANS}
    try:
        run(plans, shared, options.turns, options.out)
    except TuluError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


def run(plans: dict[str, Plan], shared: Path, turns: int, out: Path, shape: dict[str, int] = SHAPE) -> None:
    """Compare every stage of `plans` and write one JSON file each."""
    out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as scratch:
        # A step more than is run, so that nobody comes to the end of the rows and loads ahead of it.
        counts = {stage: (turns + 2) * plan.steps * plan.batch for stage, plan in plans.items()}
        material = make(Path(scratch), shared, counts, shape)
        for stage, plan in plans.items():
            result = {
                **compare(stage, plan, material, turns),
                "shape": {**shape, "vocab_size": VOCABULARY},
                "environment": environment(),
            }
            write_atomic(out / f"{stage}.json", json.dumps(result, indent=2) + "\n")
            report(result)


def tasks(stage: str, plan: Plan, material: Material) -> list[Task]:
    """Our side, TRL's default and, where they differ, TRL's fastest settings."""
    ours = Task(stage, "tulu", material.folder, material.folder / stage / "tulu", plan.batch, MICRO_BATCH, ROW_TOKENS)
    trl = replace(ours, side="trl", scratch=material.folder / stage / "trl")
    tuned = replace(trl, side="trl_tuned", scratch=material.folder / stage / "trl_tuned", **plan.tuned)
    return [ours, trl, tuned] if plan.tuned else [ours, trl]


def compare(stage: str, plan: Plan, material: Material, turns: int) -> dict[str, Any]:
    """One stage: all sides set up, a turn each to warm up, then `turns` turns each, in turn."""
    with ExitStack() as stack:
        planned = tasks(stage, plan, material)
        trainers = [side_of(task).STAGES[stage] for task in planned]
        pairs = zip(trainers, planned, strict=True)
        workers = [stack.enter_context(Worker(trainer, task, plan.steps)) for trainer, task in pairs]
        sides = [Side(task, worker.ready(), []) for task, worker in zip(planned, workers, strict=True)]
        for _ in range(turns + 1):
            for side, worker in zip(sides, workers, strict=True):
                side.turns.append(worker.turn())
    check_same_work(sides, (turns + 1) * plan.steps)
    tokens = [sum(sides[0].ready.tokens[turn * plan.steps : (turn + 1) * plan.steps]) for turn in range(1, turns + 1)]
    return {
        "stage": stage,
        "unit": "useful tokens per second: tokens of all sequences, each with its prompt, without padding",
        "batch": plan.batch * (SAMPLES if stage == "grpo" else 1),
        "steps_per_turn": plan.steps,
        "turns": turns,
        "max_length": MAX_LENGTH,
        "useful_tokens": tokens,
        "sides": {side.task.side: figures(side, tokens) for side in sides},
        "ratio": {f"tulu/{other.task.side}": ratios(sides[0], other) for other in sides[1:]},
        "first_losses": {side.task.side: side.turns[0].losses[0] for side in sides},
    }


def side_of(task: Task) -> Any:
    """The module that trains a task; TRL takes seconds to import."""
    return importlib.import_module("benchmarks.tulu_side" if task.side == "tulu" else "benchmarks.trl_side")


def check_same_work(sides: Sequence[Side], steps: int) -> None:
    """All sides trained as many tokens in every step and began with the same loss. Raises TuluError."""
    first = sides[0]
    for side in sides[1:]:
        names = f"{first.task.side} and {side.task.side}"
        if list(side.ready.tokens[:steps]) != list(first.ready.tokens[:steps]):
            raise TuluError(f"{names} trained rows of different lengths")
        losses = first.turns[0].losses[0], side.turns[0].losses[0]
        if abs(losses[0] - losses[1]) > TOLERANCE:
            raise TuluError(f"{names} computed different losses from the same weights and rows: {losses}")


def figures(side: Side, tokens: Sequence[int]) -> dict[str, Any]:
    """Speed and memory of one side, the first turn left out."""
    timed = side.turns[1:]
    return {
        "tokens_per_second": spread([count / turn.seconds for count, turn in zip(tokens, timed, strict=True)]),
        "tokens_per_cpu_second": spread([count / turn.cpu_seconds for count, turn in zip(tokens, timed, strict=True)]),
        "peak_mib": round(side.turns[-1].peak_mib, 1),
        "training_mib": round(side.training_mib(), 1),
        "settings": {name: getattr(side.task, name) for name in ("micro_batch", "row_tokens", "padding_free")},
    }


def ratios(first: Side, second: Side) -> dict[str, Any]:
    """How many times faster the first side was, turn by turn on the same rows; how much of the second's memory it took."""
    turns = list(zip(first.turns[1:], second.turns[1:], strict=True))
    return {
        "speed": spread([other.seconds / turn.seconds for turn, other in turns]),
        "cpu_speed": spread([other.cpu_seconds / turn.cpu_seconds for turn, other in turns]),
        "training_memory": round(first.training_mib() / second.training_mib(), 2),
    }


def spread(values: Sequence[float]) -> dict[str, Any]:
    """Median, extremes and every value, in the order of turns."""
    rounded = [float(f"{value:.4g}") for value in values]
    return {"median": float(f"{statistics.median(values):.4g}"), "low": min(rounded), "high": max(rounded), "turns": rounded}


def report(result: dict[str, Any]) -> None:
    """One line a side."""
    for name, side in result["sides"].items():
        speed = side["tokens_per_second"]
        line = f"{result['stage']:5s} {name:10s} {speed['median']:7.0f} tok/s ({speed['low']:.0f} … {speed['high']:.0f})"
        line += f"  {side['training_mib']:6.0f} MiB"
        if f"tulu/{name}" in result["ratio"]:
            ratio = result["ratio"][f"tulu/{name}"]["speed"]
            line += f"   tulu is {ratio['median']:.2f} times as fast ({ratio['low']:.2f} … {ratio['high']:.2f})"
        print(line, flush=True)


if __name__ == "__main__":
    sys.exit(main())
