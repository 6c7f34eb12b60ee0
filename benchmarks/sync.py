"""Measures how long new weights take from a learner to a vLLM engine on this machine, part by part, beside a bare copy of them.

Run it as `python -m benchmarks.sync`.

The model has the shape of Llama 3.2 1B with a small vocabulary, random weights in bf16: 1.04B parameters, 2.1 GB. `copy` is one
warm copy of all of them within a process, measured right before and right after every sync. Parts overlap, so their sum may
exceed the whole. Writes benchmarks/results/sync.json.
"""

import argparse
import json
import os
import platform
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM

from tulu.files import write_atomic
from tulu.model.made_up import make_tokenizer
from tulu.rollout.engine import EngineSpec
from tulu.rollout.ray_fleet import RayFleet

SHAPE = {
    "hidden_size": 2048,
    "intermediate_size": 8192,
    "num_hidden_layers": 16,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "vocab_size": 32768,
    "tie_word_embeddings": True,
    "max_position_embeddings": 512,
}


def make(folder: Path) -> dict[str, torch.Tensor]:
    """Write the model to a folder, and return its weights by name."""
    tokenizer = make_tokenizer(["0"], "{{ messages[0]['content'] }}")
    special = {name: getattr(tokenizer, name) for name in ("bos_token_id", "eos_token_id", "pad_token_id")}
    torch.set_default_dtype(torch.bfloat16)
    try:
        model = AutoModelForCausalLM.from_config(AutoConfig.for_model("llama", **SHAPE, **special))
    finally:
        torch.set_default_dtype(torch.float32)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return {name: parameter.data for name, parameter in model.named_parameters()}


def copy_seconds(weights: dict[str, torch.Tensor], place: dict[str, torch.Tensor]) -> float:
    """Seconds of one copy of all weights into memory that was used before."""
    began = time.monotonic()
    for name, tensor in weights.items():
        place[name].copy_(tensor)
    return time.monotonic() - began


def middle(values: Sequence[float]) -> dict[str, float]:
    """Median and range."""
    return {"median": round(statistics.median(values), 3), "low": round(min(values), 3), "high": round(max(values), 3)}


def measure(rounds: int) -> dict[str, Any]:
    """Sync so often, and say how long each part took."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        weights = make(folder)
        place = {key: torch.empty_like(tensor) for key, tensor in weights.items()}
        for _ in range(2):
            copy_seconds(weights, place)
        fleet = RayFleet(EngineSpec(name, 256, "bf16", cache_bytes=128 << 20), engines=1)
        copies, reports = [], []
        try:
            for version in range(rounds + 2):
                before = copy_seconds(weights, place)
                report = fleet.sync(weights.items(), version)
                copies.append((before + copy_seconds(weights, place)) / 2)
                reports.append(report)
                print(f"{report.seconds:.2f} s, {report.seconds / copies[-1]:.1f} copies: {dict(report.parts)}", flush=True)
        finally:
            fleet.close()
    # The first two bring memory into being that the later ones use again.
    copies, reports = copies[2:], reports[2:]
    ratios = [report.seconds / copy for report, copy in zip(reports, copies, strict=True)]
    return {
        "tensors": reports[0].tensors,
        "bytes": reports[0].bytes,
        "rounds": rounds,
        "copy_seconds": middle(copies),
        "sync_seconds": middle([report.seconds for report in reports]),
        "sync_over_copy": middle(ratios),
        "parts": {part: middle([report.parts[part] for report in reports]) for part in reports[0].parts},
        "cores": os.cpu_count(),
        "machine": platform.machine(),
        "torch": torch.__version__,
        "command": f"python -m benchmarks.sync --rounds {rounds}",
    }


def main() -> None:
    """Measure and write the result."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "sync.json")
    options = parser.parse_args(sys.argv[1:])
    result = measure(options.rounds)
    write_atomic(options.out, json.dumps(result, indent=2) + "\n")
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
