"""The whole RLVR loop beside TRL's GRPOTrainer with vLLM: sampling, grading, training and sync, on two CPU cores.

    python -m benchmarks.rlvr --folder /tmp/rlvr                   three rounds of all sides, about half an hour
    python -m benchmarks.rlvr --folder /tmp/rlvr --task sums       short prompts and answers in place of GSM8K's
    python -m benchmarks.rlvr --folder /tmp/rlvr --engine asleep   an engine that sleeps as long as a GPU would take

Every side trains the same tiny Qwen3 (vLLM breaks transformers' OLMo 2 where both share a process, as TRL has them), 64
completions a step, with as many threads, and runs alone; the sides take turns. `sync` waits for its rollouts, `ahead` has an
engine of its own that samples one step ahead. Steps in which vLLM still warms up are left out. On `gsm8k` (from the
folder TULU_SHARED) the model is random, and answers are as long as they may be; on `sums` it is the quickstart's after SFT.
An engine that is asleep takes nothing from the learner's cores, as one on a GPU of its own would.
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

from benchmarks import material
from benchmarks.material import shared_folder
from tulu.errors import DataError
from tulu.files import write_atomic
from tulu.train.manifest import environment

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks" / "results"
CONFIG = {
    "model_type": "qwen3",
    "vocab_size": 258,
    "hidden_size": 256,
    "intermediate_size": 768,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 4,
    "head_dim": 64,
    "max_position_embeddings": 1024,
}
"""A model that vLLM and transformers can share a process with."""
SECTION: dict[str, Any] = {
    "data": {"name": "sums:train", "count": 5000},
    "prompts": 8,
    "samples": 8,
    "batch": 64,
    "micro_batch": 64,
    "row_tokens": 4096,
    "max_prompt": 128,
    "max_tokens": 48,
    "max_length": 256,
    "temperature": 1.0,
    "learning_rate": 1e-5,
    "schedule": "constant",
    "clip_norm": 1.0,
    "advantage": "standard",
    "reward_scale": 1.0,
    "precision": "fp32",
    "engine": "vllm",
    "refill": False,
    "drop_equal": False,
}
GSM8K: dict[str, Any] = {"verifier": "gsm8k", "max_prompt": 768, "max_tokens": 128, "max_length": 896, "bad_golds": "skip"}
"""What a section has else where the problems are GSM8K's; a token is a byte."""
SIDES: dict[str, dict[str, Any]] = {
    "sync": {},
    "ahead": {"max_staleness": 1, "resources": {"engines": 1}},
    "trl": {},
}
WARM_UP = 4
"""Steps of a run that are not counted."""


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.rlvr", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--folder", type=Path, required=True, help="where models and runs are written")
    parser.add_argument("--task", choices=("gsm8k", "sums"), default="gsm8k")
    parser.add_argument("--engine", choices=("vllm", "asleep"), default="vllm")
    parser.add_argument("--rounds", type=int, default=3, help="runs of every side")
    parser.add_argument("--steps", type=int, default=24, help=f"steps of a run, of which {WARM_UP} warm up")
    parser.add_argument("--sides", nargs="+", choices=SIDES, default=list(SIDES))
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder of the JSON file")
    options = parser.parse_args(arguments)
    options.folder.mkdir(parents=True, exist_ok=True)
    try:
        data = {"data": str(shared_folder() / material.GSM8K)} if options.task == "gsm8k" else {}
    except DataError as error:
        print(f"skipped: {error}", file=sys.stderr)
        return 0
    common = SECTION | (GSM8K | data if data else {}) | {"steps": options.steps}
    if options.engine == "asleep":
        common["verifier"] = f"{Path(__file__).with_name('longer.py')}:score"
    model = start_model(options.folder / options.task, trained=options.task == "sums")
    runs: dict[str, list[dict[str, Any]]] = {side: [] for side in options.sides}
    for number in range(options.rounds):
        for side in options.sides:
            runs[side].append(run(side, number, common, model, options.folder / options.task, options.engine))
            print(f"{side:6} {runs[side][-1]}", flush=True)
    result = {
        "unit": "completions trained per second, from sampling to sync",
        "task": options.task,
        "engine": options.engine,
        "section": {name: value for name, value in common.items() if name not in ("data", "verifier")},
        "model": CONFIG,
        "sides": {side: {"rates": [one["rate"] for one in found], "runs": found} for side, found in runs.items()},
        # Without the folders, which are of the machine alone.
        "environment": environment() | {"command": command_of(options)},
    }
    if "trl" in runs:
        result["ratio"] = {side: ratios(runs[side], runs["trl"]) for side in runs if side != "trl"}
        print(json.dumps(result["ratio"], indent=2))
    asleep = "-asleep" if options.engine == "asleep" else ""
    write_atomic(options.out / f"rlvr-{options.task}{asleep}.json", json.dumps(result, indent=2) + "\n")
    return 0


def command_of(options: argparse.Namespace) -> list[str]:
    """The call that gives these results, wherever it writes."""
    shape = {name: str(getattr(options, name)) for name in ("task", "engine", "rounds", "steps")}
    return ["rlvr.py", *(word for name, value in shape.items() for word in (f"--{name}", value)), "--sides", *options.sides]


def start_model(folder: Path, trained: bool) -> Path:
    """The quickstart's model as a Qwen3, after SFT or as good as random; made once."""
    folder.mkdir(exist_ok=True)
    content: dict[str, Any] = yaml.safe_load((ROOT / "recipes" / "quickstart.yaml").read_text())
    content["name"] = "start"
    content["base"] |= {"config": CONFIG, "steps": 200 if trained else 1, "learning_rate": 2e-3 if trained else 1e-6}
    content["sft"]["data"]["count"] = 3200
    kept = ("name", "template", "base", *(["sft"] if trained else []))
    file = folder / "start.yaml"
    file.write_text(yaml.safe_dump({name: content[name] for name in kept}, sort_keys=False))
    call("tulu", "run", str(file), "--runs", str(folder / "runs"))
    return folder / "runs" / "start" / kept[-1] / "model"


def run(side: str, number: int, common: dict[str, Any], model: Path, folder: Path, engine: str) -> dict[str, Any]:
    """Train one side from the start, and say what became of the steps after the first ones."""
    section = common | SIDES[side]
    name = f"{side}-{number}"
    if side == "trl":
        settings, out = folder / f"{name}.json", folder / f"{name}.out.json"
        # With 8 and 16 sequences in a forward pass TRL took 9.5 s a step of GSM8K, with 64 it took 14.2.
        settings.write_text(json.dumps({"model": str(model), "micro_batch": 16, "engine": engine, "rlvr": section}))
        call("benchmarks.rlvr_trl", str(settings), str(out))
        found = json.loads(out.read_text())
        return summary(found["seconds"], found["rewards"], found["lengths"], section)
    file = folder / f"{name}.yaml"
    file.write_text(yaml.safe_dump({"name": name, "model": str(model), "template": "tulu", "rlvr": section}, sort_keys=False))
    call("tulu" if engine == "vllm" else "benchmarks.asleep", "rlvr", str(file), "--runs", str(folder / "runs"), "--fresh")
    lines = [json.loads(line) for line in (folder / "runs" / name / "rlvr" / "metrics.jsonl").read_text().splitlines()]
    kept = lines[WARM_UP:]
    found = summary(
        [line["seconds"] for line in lines],
        [line["reward"] for line in lines],
        [line["completion_tokens"] for line in lines],
        section,
    )
    waited = sum(line.get("sampling_seconds") or 0.0 for line in kept) / sum(line["seconds"] for line in kept)
    return found | {"share_of_time_the_learner_waits": round(waited, 3)}


def summary(seconds: list[float], rewards: list[float], lengths: list[float], section: dict[str, Any]) -> dict[str, Any]:
    """Completions a second and what was trained, without the steps that warm up."""
    sequences = section["prompts"] * section["samples"]
    kept = seconds[WARM_UP:]
    return {
        "rate": round(sequences * len(kept) / sum(kept), 2),
        "step_seconds": round(statistics.median(kept), 3),
        "mean_tokens": round(statistics.mean(lengths[WARM_UP:]), 1),
        "reward": round(statistics.mean(rewards[WARM_UP:]), 3),
    }


def ratios(ours: Sequence[dict[str, Any]], theirs: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """How many times as many completions a second ours trains, round by round."""
    found = [round(one["rate"] / other["rate"], 2) for one, other in zip(ours, theirs, strict=True)]
    return {"median": statistics.median(found), "rounds": found}


def call(module: str, *arguments: str) -> None:
    """Run a module in a process of its own; what it says stands on stderr."""
    quiet = {"HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false", "PYTHONPATH": str(ROOT)}
    subprocess.run([sys.executable, "-m", module, *arguments], env={**os.environ, **quiet}, check=True)


if __name__ == "__main__":
    sys.exit(main())
