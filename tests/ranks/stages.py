"""Every kind of training as a small recipe, the inputs that it reads, and the process that runs it as one rank of several."""

import json
import os
import signal
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.forked import leave_imports_alone

# Adam's epsilon is larger than most gradients, so that updates are proportional to them: the weights then compare gradients,
# and the order of summation, which differs between processes, moves a weight by the learning rate times the rounding error.
# With an epsilon of 1e-8 the first step would be the sign of the gradient, which is noise where the gradient is 0.
TRAIN: dict[str, Any] = {
    "max_length": 256,
    "batch": 8,
    "micro_batch": 2,
    "steps": 3,
    "save_every": 1,
    "learning_rate": 2e-3,
    "schedule": "constant",
    "adam_epsilon": 1e-3,
    "clip_norm": 1.0,
}
ROLLOUTS = {"max_prompt": 64, "max_tokens": 6, "max_length": 72, "engine": "transformers", "minibatches": 1, "beta": 0.1}
LOOKS: dict[str, Any] = {"eval_every": 2, "eval_rows": 5}
"""What is looked at on the way, in processes that do not have equally many of the rows."""
ASKED = {**LOOKS, "eval_task": "asked.jsonl"}
KINDS: dict[str, dict[str, Any]] = {
    "sft": {"data": "chats.jsonl", "loss": "micro_mean", "loss_micro_batch": 2, "held_out": 0.25, "eval_tokens": 6, **ASKED},
    "dpo": {"data": "pairs.jsonl", "loss": "dpo_norm", "beta": 2.0, "row_tokens": 100, "held_out": 0.25, **LOOKS},
    "rm": {"data": "pairs.jsonl", "held_out": 0.25, **LOOKS},
    "grpo": {
        "data": "problems.jsonl",
        "prompts": 4,
        "samples": 4,
        "batch": 16,
        "updates": 2,
        "refill": False,
        **ROLLOUTS,
        # Which prompts an update trains must not depend on the number of processes.
        "minibatches": 2,
        **ASKED,
    },
    "ppo": {"data": "problems.jsonl", "prompts": 8, "samples": 1, "advantage": "gae", "value": {}, "refill": False, **ROLLOUTS},
}
"""What is trained, in order: each starts from what the one before left, except that all after DPO start from its model."""


@dataclass(frozen=True)
class Cell:
    """One way to train all of it."""

    sharding: str
    world: int
    precision: str = "fp32"
    lora: bool = False
    offload: bool = False

    @property
    def name(self) -> str:
        return f"{self.sharding}-{self.world}-{self.precision}{'-lora' if self.lora else ''}{'-offload' if self.offload else ''}"


@dataclass(frozen=True)
class Death:
    """A rank that kills itself in the middle of a step."""

    kind: str
    rank: int

    @property
    def update(self) -> int:
        """The optimizer step, counted from 1, that it never ends: in the last of three steps, of four updates each in GRPO."""
        return 12 if self.kind == "grpo" else 3


def write_inputs(folder: Path) -> None:
    """Rows of uneven lengths, and a verifier that a random model can please more or less."""

    def say(role: str, content: str) -> dict[str, str]:
        return {"role": role, "content": content}

    chats = [
        {"messages": [say("user", f"q{i} " * (i % 5 + 1)), say("assistant", f"answer {i * i} " * (i % 4 + 1))]} for i in range(12)
    ]
    pairs = [
        {"prompt": f"q{i} " * (i % 3 + 1), "chosen": f"yes {i} " * (i % 4 + 1), "rejected": f"no {i * i} " * (i % 3 + 1)}
        for i in range(12)
    ]
    problems = [{"messages": [say("user", f"p{i}")], "ground_truth": str(i), "dataset": "x"} for i in range(8)]
    asked = [{"messages": [say("user", f"a{i}")], "ground_truth": str(i), "dataset": "gsm8k"} for i in range(7)]
    for name, rows in (("chats", chats), ("pairs", pairs), ("problems", problems), ("asked", asked)):
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / "letters.py").write_text("def score(completion, ground_truth):\n    return sum(map(ord, completion)) % 7 / 6\n")


def recipe_of(cell: Cell, kind: str, folder: Path) -> Any:
    """The recipe of one kind of training; PPO's rlvr section has a recipe, and so a folder, of its own."""
    from tulu.config.schema import Recipe

    name = f"{cell.name}-ppo" if kind == "ppo" else cell.name
    section = {**TRAIN, **KINDS[kind], "sharding": cell.sharding, "precision": cell.precision}
    # A row's id holds its file as it is written here, and seeds what is sampled. A draw that is nearly a tie may fall to either
    # side in several processes, so the draws must not depend on where the folder happens to lie.
    section["data"] = os.path.relpath(folder / section["data"])
    if "eval_task" in section:
        section["eval_task"] = os.path.relpath(folder / section["eval_task"])
    if cell.precision != "fp32":
        # One row at a time gives the same products in one process and in several, so that rounding to 16 bits is the same.
        section["micro_batch"] = 1
    if cell.offload:
        section["offload_optimizer"] = True
    if cell.lora:
        section["lora"] = {"rank": 4, "alpha": 8}
    if kind in ("grpo", "ppo"):
        section["verifier"] = f"{folder}/letters.py:score"
        section["start"] = str(folder / "runs" / cell.name / "dpo" / "model")
    if kind == "ppo":
        section["value"] = {"path": str(folder / "runs" / cell.name / "rm" / "model")}
    model = str(folder / "model")
    return Recipe.model_validate({"name": name, "template": "tulu", "model": model, "seed": 3, stage_of(kind): section})


def stage_of(kind: str) -> str:
    return "rlvr" if kind in ("grpo", "ppo") else kind


def folder_of(cell: Cell, kind: str, folder: Path) -> Path:
    """Where a kind of training leaves its run."""
    return folder / "runs" / (f"{cell.name}-ppo" if kind == "ppo" else cell.name) / stage_of(kind)


def train(cell: Cell, folder: Path, kinds: tuple[str, ...], death: Death | None = None, rank: int = 0) -> None:
    """Train every kind in this process, which may die in one of them."""
    from tulu.config.job import make_job
    from tulu.config.stages import STAGES, resolve
    from tulu.model.gathering import forget_sharding

    for kind in kinds:
        recipe, stage = recipe_of(cell, kind, folder), stage_of(kind)
        if death is not None and (death.kind, death.rank) == (kind, rank):
            die_in(death.update)
        forget_sharding()
        resolve(STAGES[stage].runner)(make_job(recipe, stage, folder / "runs"))


def die_in(update: int) -> None:
    """Let this process kill itself in the backward pass of an optimizer step, counted from 1."""
    from tulu.model.parallel import Parallel

    backward, finish, finished = Parallel.backward, Parallel.finish_step, [0]

    def backward_or_die(self: Any, *args: Any, **kwargs: Any) -> Any:
        if finished[0] == update - 1:
            os.kill(os.getpid(), signal.SIGKILL)
        return backward(self, *args, **kwargs)

    def count(self: Any, *args: Any, **kwargs: Any) -> Any:
        finished[0] += 1
        return finish(self, *args, **kwargs)

    Parallel.backward, Parallel.finish_step = backward_or_die, count  # type: ignore[method-assign]


def rank_main(rank: int, port: int, cell: Cell, folder: Path, kinds: tuple[str, ...], death: Death | None) -> None:
    """What a process of several does: what torchrun would tell it is told here."""
    leave_imports_alone()
    os.chdir(folder)
    log = open(folder / f"{cell.name}-{rank}.log", "a")  # noqa: SIM115
    os.dup2(log.fileno(), 1)
    os.dup2(log.fileno(), 2)
    os.environ.update(
        RANK=str(rank),
        LOCAL_RANK=str(rank),
        WORLD_SIZE=str(cell.world),
        LOCAL_WORLD_SIZE=str(cell.world),
        MASTER_ADDR="127.0.0.1",
        MASTER_PORT=str(port),
    )
    import logging

    logging.basicConfig(level=logging.INFO, stream=sys.stderr)
    train(cell, folder, kinds, death, rank)
