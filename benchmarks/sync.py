"""Measures how long new weights take from a learner to a vLLM engine on this machine, part by part, beside a bare copy of them.

Run it as `python -m benchmarks.sync`.

The model has the shape of Llama 3.2 1B with a small vocabulary, random weights in bf16: 1.04B parameters, 2.1 GB. `copy` is one
warm copy of all of them within a process, measured right before and right after every sync, and `clone`, measured behind it, is
one into new memory, as `clone()` of each tensor makes it. Parts overlap, so their sum may exceed the whole. `load` is vLLM's own
loading; `packing_seconds` is what vLLM's packing of the same matrices for oneDNN takes by itself, with every core as in the
engine. Writes benchmarks/results/sync.json.
"""

import argparse
import json
import os
import platform
import statistics
import subprocess
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
    "max_position_embeddings": 512,
}


STANDBY_SECONDS = 20.0


def make(folder: Path) -> dict[str, torch.Tensor]:
    """Write the model to a folder, and return its weights by name."""
    tokenizer = make_tokenizer(["0"], "{{ messages[0]['content'] }}")
    special: Any = {name: getattr(tokenizer, name) for name in ("bos_token_id", "eos_token_id", "pad_token_id")}
    torch.set_default_dtype(torch.bfloat16)
    try:
        model = AutoModelForCausalLM.from_config(AutoConfig.for_model("llama", tie_word_embeddings=True, **SHAPE, **special))
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


def clone_seconds(weights: dict[str, torch.Tensor]) -> float:
    """Seconds of one copy of all weights into memory that is new, which the system has to clear first."""
    began = time.monotonic()
    kept = [tensor.clone() for tensor in weights.values()]
    seconds = time.monotonic() - began
    del kept
    return seconds


def packing_seconds() -> float:
    """Seconds in which vLLM packs the matrices of all layers, in a process of its own, into memory that was used before."""
    command = [sys.executable, "-m", "benchmarks.sync", "--packing"]
    kept = {"MALLOC_MMAP_MAX_": "0", "MALLOC_TRIM_THRESHOLD_": str(1 << 40), "THP_MEM_ALLOC_ENABLE": "1"}
    done = subprocess.run(command, env={**os.environ, **kept}, capture_output=True, text=True, check=True)
    return float(done.stdout.split()[-1])


def pack() -> float:
    """The same, in that process; vLLM replaces parts of the process that imports it."""
    from vllm import _custom_ops as ops

    hidden, inner, heads = SHAPE["hidden_size"], SHAPE["intermediate_size"], SHAPE["num_attention_heads"]
    keys = hidden // heads * SHAPE["num_key_value_heads"]
    rows = [(hidden + 2 * keys, hidden), (hidden, hidden), (2 * inner, hidden), (hidden, inner)]
    matrices = [torch.randn(shape, dtype=torch.bfloat16) for shape in rows]
    seconds = []
    for _ in range(4):
        began = time.monotonic()
        # They are dropped when all are there, as an engine drops those of the weights before.
        kept = [ops.create_onednn_mm(matrix.t(), 32) for _ in range(SHAPE["num_hidden_layers"]) for matrix in matrices]
        seconds.append(time.monotonic() - began)
        del kept
    return min(seconds[1:])


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
        copies, clones, reports = [], [], []
        try:
            # A process that stands by imports vLLM in the first seconds of a fleet, and a run has many more.
            time.sleep(STANDBY_SECONDS)
            for version in range(rounds + 2):
                before = copy_seconds(weights, place)
                report = fleet.sync(weights.items(), version)
                copies.append((before + copy_seconds(weights, place)) / 2)
                clones.append(clone_seconds(weights))
                reports.append(report)
                print(f"{report.seconds:.2f} s, {report.seconds / copies[-1]:.1f} copies: {dict(report.parts)}", flush=True)
        finally:
            fleet.close()
    # The first two bring memory into being that the later ones use again.
    copies, clones, reports = copies[2:], clones[2:], reports[2:]
    pairs = list(zip(reports, copies, strict=True))
    return {
        "tensors": reports[0].tensors,
        "bytes": reports[0].bytes,
        "rounds": rounds,
        "copy_seconds": middle(copies),
        "clone_seconds": middle(clones),
        "sync_seconds": middle([report.seconds for report in reports]),
        "sync_over_copy": middle([report.seconds / copy for report, copy in pairs]),
        "sync_over_clone": middle([report.seconds / clone for report, clone in zip(reports, clones, strict=True)]),
        "without_load_over_copy": middle([(report.seconds - report.parts["load"]) / copy for report, copy in pairs]),
        "packing_seconds": round(packing_seconds(), 3),
        "parts": {part: middle([report.parts[part] for report in reports]) for part in reports[0].parts},
        "cores": os.cpu_count(),
        "load_average": round(os.getloadavg()[0], 1),
        "machine": platform.machine(),
        "torch": torch.__version__,
        "command": f"python -m benchmarks.sync --rounds {rounds}",
    }


def main() -> None:
    """Measure and write the result."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "sync.json")
    parser.add_argument("--packing", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args(sys.argv[1:])
    if options.packing:
        print(pack())
        return
    result = measure(options.rounds)
    write_atomic(options.out, json.dumps(result, indent=2) + "\n")
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
