"""What bf16 training and float32 training differ by on the quickstart's task: every stage's accuracy, a few seeds of each.

    python -m benchmarks.precision --folder /tmp/precision              three seeds of both, six runs one after the other
    python -m benchmarks.precision --folder /tmp/precision --seeds 1    one

It is the quickstart recipe without its reward model, which no other stage uses. A run that was stopped goes on, and one that is
there is not repeated.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parents[1]
TRAINED = ("base", "sft", "dpo", "rlvr")
PRECISIONS = ("fp32", "bf16")

Accuracies = dict[str, float]
"""The accuracy on the held-out problems after each stage."""


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.precision", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--folder", type=Path, required=True, help="where everything is written")
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--set", nargs="*", default=[], help="fields of the recipe, such as sft.steps=100")
    options = parser.parse_args(arguments)
    options.folder.mkdir(parents=True, exist_ok=True)
    found: dict[str, list[Accuracies]] = {precision: [] for precision in PRECISIONS}
    for seed in options.seeds:
        for precision in PRECISIONS:
            found[precision].append(train(options.folder, precision, seed, options.set))
    print(table(found))
    (options.folder / "precision.json").write_text(json.dumps(found, indent=2) + "\n")
    return 0


def recipe(folder: Path) -> Path:
    """The quickstart's recipe without its reward model."""
    content: dict[str, Any] = yaml.safe_load((ROOT / "recipes" / "quickstart.yaml").read_text())
    content.pop("rm")
    file = folder / "quickstart.yaml"
    file.write_text(yaml.safe_dump(content, sort_keys=False))
    return file


def train(folder: Path, precision: str, seed: int, fields: Sequence[str]) -> Accuracies:
    """Run every stage in one precision from one seed."""
    name = f"{precision}-{seed}"
    settings = [f"name={name}", f"seed={seed}", *(f"{stage}.precision={precision}" for stage in TRAINED), *fields]
    command = [sys.executable, "-m", "tulu", "run", str(recipe(folder)), "--runs", str(folder / "runs"), *settings]
    subprocess.run(command, check=True, env={**os.environ, "PYTHONPATH": str(ROOT)})
    summary = json.loads((folder / "runs" / name / "summary.json").read_text())
    return {stage["stage"]: stage["accuracy"] for stage in summary["stages"]}


def table(found: dict[str, list[Accuracies]]) -> str:
    """In percent the accuracies of each seed, and their mean, by stage and precision."""
    lines = ["| after | precision | seeds | mean |", "|---|---|---|---|"]
    for stage in found[PRECISIONS[0]][0]:
        for precision, runs in found.items():
            values = [100 * run[stage] for run in runs]
            each = ", ".join(f"{value:.1f}" for value in values)
            lines.append(f"| {stage} | `{precision}` | {each} | {statistics.mean(values):.1f} |")
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
