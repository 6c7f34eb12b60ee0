"""A run on disk as the stages leave it, without training anything: every figure is known."""

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import yaml

from tulu.data.chat import make_byte_tokenizer

EVIL = "</script><script>window.attacked=1</script><img src=x onerror=window.attacked=1>\u2028&lt;b&gt;' onmouseover=\"x"
"""A completion that would run where it is not escaped."""
ACCURACY = {"sft": 0.3, "dpo": 0.35, "rlvr": 0.9}
VERIFIERS = ("gsm8k", "ifeval")


def make_run(folder: Path, steps: int = 12, groups: int = 4, samples: int = 4, text: str = EVIL) -> Path:
    """A finished run of four stages: SFT, DPO, RM and RLVR, with `groups` groups of rollouts a step."""
    for name in ("sft", "dpo", "rm", "rlvr"):
        make_stage(folder / name, name, steps, text)
    write_looks(folder / "sft", text)
    for name, accuracy in ACCURACY.items():
        write_evaluation(folder / "evaluate" / name, accuracy, text)
    write_rollouts(folder / "rlvr", range(1, steps + 1), groups, samples, text)
    write_rewardbench(folder / "rm" / "rewardbench" / "v2")
    return folder


def make_stage(folder: Path, name: str, steps: int, text: str) -> None:
    """A stage's own files."""
    folder.mkdir(parents=True)
    recipe = {"name": "demo", "start": f"runs/demo/{name}/before", name: {"batch": 8, "note": text}}
    (folder / "recipe.yaml").write_text(yaml.safe_dump(recipe, allow_unicode=True))
    energy = {"kwh": 0.5, "cpu_kwh": 0.1, "gpu_kwh": 0.4, "ram_kwh": 0.0, "estimated": ["CPU(Cpu Load)"]}
    held_out = {"held_out_accuracy": 0.95, "held_out_pairs": 400} if name == "rm" else {}
    facts = {"finished": True, "steps": steps, "seconds": 60.0, "energy": energy, "command": ["tulu", "run", text], **held_out}
    (folder / "manifest.json").write_text(json.dumps(facts))
    lines = [metrics_of(step) for step in range(1, steps + 1)]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    sample = {"id": f"mix.jsonl:{text}", "prompt": [["<|user|>\nhi ", False]], "tokens": 9, "trained": 4, "cut": 0}
    completions = [[[text, True], [" read", False]]] * (1 if name in ("sft", "rlvr") else 2)
    if name != "rlvr":
        (folder / "rows.jsonl").write_text(json.dumps({**sample, "completions": completions}) + "\n")


def write_looks(folder: Path, text: str) -> None:
    """Sample answers of two looks."""
    (folder / "samples").mkdir()
    for step in (7, 12):
        row = {"prompt": f"look {step} {text}", "answer": text, "score": None, "expected": text}
        (folder / "samples" / f"step-{step:06d}.jsonl").write_text(json.dumps(row) + "\n")


def metrics_of(step: int) -> dict[str, Any]:
    """One line of metrics: the loss falls as 1/step."""
    shares = {"share_forward": 0.25, "share_backward": 0.5}
    return {"step": step, "loss": 1 / step, "learning_rate": 1e-3, "mfu": None, "tokens": 100, "seconds": 0.5, **shares}


def write_evaluation(folder: Path, accuracy: float, text: str) -> None:
    """The results of an evaluation of ten answers."""
    folder.mkdir(parents=True)
    results = {"accuracy": accuracy, "ci95": [accuracy - 0.05, accuracy + 0.05], "statuses": {"ok": 9, "timeout": 1}}
    (folder / "results.json").write_text(json.dumps(results))
    rows = [
        {
            "id": str(place),
            "prompt": f"{place}? {text}",
            "completion": text,
            "ground_truth": "7",
            "score": float(accuracy * 10 > place),
        }
        for place in range(10)
    ]
    (folder / "answers.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


def rollout_row(step: int, group: int, member: int, text: str = "") -> dict[str, Any]:
    """One completion: every second is right, the last of a group is truncated, and every fifth group has one that is masked."""
    right, masked = member % 2 == 0, group % 5 == 4 and member == 0
    completion = f"{text}{step}.{group}.{member} so #### {group}"
    ids = list(completion.encode())
    return {
        "group": group,
        "id": f"row:{group}",
        "verifier": VERIFIERS[group % 2],
        "prompt": f"<|user|>\nWhat is {group}?\n<|assistant|>\n",
        "completion": completion,
        "score": None if masked else float(right),
        "status": "timeout" if masked else "ok",
        "detail": "took 5 s" if masked else "",
        "reward": math.nan if masked else float(right),
        "advantage": math.nan if masked else (1.0 if right else -1.0),
        "finish": "length" if member == 3 else "stop",
        "tokens": len(ids),
        "versions": [[0, step - 1], [4, step]] if member == 1 else [[0, step - 1]],
        "trained": not masked,
        "token_ids": ids,
        "token_mismatch": None if masked else [((place % 7) - 3) / 100 for place in range(len(ids))],
    }


def write_rollouts(stage: Path, steps: Sequence[int], groups: int, samples: int, text: str = "", part: int = 512) -> None:
    """The Parquet files of these steps, and the tokenizer beside them."""
    folder = stage / "rollouts"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "tokenizer.json").write_text(make_byte_tokenizer().backend_tokenizer.to_str())
    for step in steps:
        rows = [rollout_row(step, group, member, text) for group in range(groups) for member in range(samples)]
        write_rows(folder / f"step-{step:06d}.parquet", rows, part)


def write_rows(file: Path, rows: Sequence[Mapping[str, Any]], part: int = 512) -> None:
    """Rows as a file of rollouts."""
    pq.write_table(pa.Table.from_pylist([dict(row) for row in rows]), file, row_group_size=part)


def write_rewardbench(folder: Path) -> None:
    """Results on two subsets of RewardBench 2."""
    folder.mkdir(parents=True)
    subsets = {"Math": {"accuracy": 0.75, "count": 183}, "Focus": {"accuracy": None, "count": 0}}
    intervals = {"subsets": {"Math": [0.68, 0.81]}, "sections": {}, "score": [0.7, 0.8]}
    results = {
        "data": "v2",
        "subsets": subsets,
        "sections": {"Math": 0.75},
        "score": 0.75,
        "intervals": intervals,
        "notes": [EVIL],
    }
    (folder / "results.json").write_text(json.dumps({**results, "settings": {"model": "runs/demo/rm/model"}}))
