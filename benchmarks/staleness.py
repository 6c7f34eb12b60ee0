"""What two learners and two vLLM engines learn beside one process: the quickstart's accuracy by staleness and sharding.

    python -m benchmarks.staleness --folder /tmp/staleness              three seeds, 17 runs in turn, more than an hour
    python -m benchmarks.staleness --folder /tmp/staleness --seeds 1    one

All of a seed begin with the same model, the quickstart's after SFT, and train as many steps. `alone` is the synchronous loop of
the quickstart, in one process. Staleness 0, 1 and 4 are trained for every seed in one sharding, 4 also with a learner that is
slowed, because on shared cores engines are the slower side and their tokens hardly age. The other shardings are trained for the
first seed at staleness 1. A run that was stopped goes on, and one that is there is not repeated.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from tulu.files import write_atomic
from tulu.train.manifest import environment

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks" / "results"
STALENESS = (0, 1, 4)
SHARDING = "zero2"
"""The sharding of three seeds."""
OTHERS = ("zero3", "fsdp2")


@dataclass(frozen=True)
class Cell:
    """One run."""

    seed: int
    sharding: str | None = None
    """None for the loop in one process."""
    max_staleness: int = 0
    is_slowed: bool = False
    """Whether the learner takes one sequence at a time, so that the engines are ahead of it as far as they may."""

    @property
    def kind(self) -> str:
        """What it is called in the table, whatever its seed."""
        slowed = ", slowed" if self.is_slowed else ""
        return f"{self.sharding}, staleness {self.max_staleness}{slowed}" if self.sharding else "alone"

    @property
    def name(self) -> str:
        """Its run's name."""
        return f"{self.kind.replace(', staleness ', '-').replace(', ', '-')}-{self.seed}"

    @property
    def arguments(self) -> list[str]:
        """What its command has beside the recipe."""
        if self.sharding is None:
            return []
        fields = {"sharding": self.sharding, "engine": "vllm", "resources.engines": 2, "max_staleness": self.max_staleness}
        fields |= {"micro_batch": 1} if self.is_slowed else {}
        return ["--gpus", "2", *(f"rlvr.{field}={value}" for field, value in fields.items())]


def cells(seeds: Sequence[int]) -> Iterator[Cell]:
    """All runs, the first seed's first."""
    for seed in seeds:
        yield Cell(seed)
        yield from (Cell(seed, SHARDING, staleness) for staleness in STALENESS)
        yield Cell(seed, SHARDING, STALENESS[-1], is_slowed=True)
        yield from (Cell(seed, sharding, 1) for sharding in OTHERS if seed == seeds[0])


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.staleness", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--folder", type=Path, required=True, help="where everything is written")
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--steps", type=int, default=24, help="steps of every run")
    parser.add_argument("--slowed", action="store_true", help="only the runs whose learner is slowed: staleness-slowed.json")
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder of the JSON file")
    options = parser.parse_args(arguments)
    for folder in (options.folder, options.out):
        folder.mkdir(parents=True, exist_ok=True)
    found = []
    file = options.out / ("staleness-slowed.json" if options.slowed else "staleness.json")
    for cell in (cell for cell in cells(options.seeds) if cell.is_slowed or not options.slowed):
        found.append({"kind": cell.kind, "seed": cell.seed, **train(options.folder, cell, options.steps)})
        print(found[-1], flush=True)
        # After every run, so that what is there can be looked at and nothing is lost.
        command = ["staleness.py", "--seeds", *map(str, options.seeds), "--steps", str(options.steps)]
        command += ["--slowed"] if options.slowed else []
        result = {"steps": options.steps, "runs": found, "environment": environment() | {"command": command}}
        write_atomic(file, json.dumps(result, indent=2) + "\n")
    print(table(found))
    return 0


def start(folder: Path, seed: int) -> str:
    """The quickstart's model of a seed after SFT, trained where it is not there yet."""
    content = quickstart()
    recipe = {name: content[name] for name in ("template", "base", "sft")} | {"name": f"start-{seed}", "seed": seed}
    tulu(folder, recipe)
    return str(folder / "runs" / f"start-{seed}" / "sft" / "model")


def train(folder: Path, cell: Cell, steps: int) -> dict[str, Any]:
    """The held-out accuracy after a run, and what its last steps were like."""
    content = quickstart()
    recipe: dict[str, Any] = {"name": cell.name, "seed": cell.seed, "model": start(folder, cell.seed)}
    recipe |= {"template": content["template"], "rlvr": content["rlvr"] | {"steps": steps}, "evaluate": content["evaluate"]}
    tulu(folder, recipe, *cell.arguments)
    run = folder / "runs" / cell.name
    summary = json.loads((run / "summary.json").read_text())
    lines = [json.loads(line) for line in (run / "rlvr" / "metrics.jsonl").read_text().splitlines()]
    accuracy = {stage["stage"]: stage["accuracy"] for stage in summary["stages"]}
    return {
        "before": accuracy.get("start"),
        "accuracy": accuracy["rlvr"],
        "staleness": statistics.mean(line["staleness"] for line in lines),
        "seconds": statistics.median(line["seconds"] for line in lines),
    }


def quickstart() -> dict[str, Any]:
    """The quickstart's recipe as it is written."""
    content: dict[str, Any] = yaml.safe_load((ROOT / "recipes" / "quickstart.yaml").read_text())
    return content


def tulu(folder: Path, recipe: dict[str, Any], *arguments: str) -> None:
    """`tulu run` of a recipe, which does what is not done yet."""
    file = folder / f"{recipe['name']}.yaml"
    file.write_text(yaml.safe_dump(recipe, sort_keys=False))
    command = [sys.executable, "-m", "tulu", "run", str(file), "--runs", str(folder / "runs"), *arguments]
    subprocess.run(command, check=True, env={**os.environ, "PYTHONPATH": str(ROOT)})


def table(found: Sequence[dict[str, Any]]) -> str:
    """In percent the accuracies of each kind's seeds, and their mean."""
    lines = ["| learners and engines | accuracy by seed | mean | mean staleness |", "|---|---|---|---|"]
    for kind in dict.fromkeys(run["kind"] for run in found):
        runs = [run for run in found if run["kind"] == kind]
        values = [100 * run["accuracy"] for run in runs]
        each = ", ".join(f"{value:.1f}" for value in values)
        stale = statistics.mean(run["staleness"] for run in runs)
        lines.append(f"| {kind} | {each} | {statistics.mean(values):.1f} | {stale:.2f} |")
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
