"""What a GPU does with this project: whether it is right there (--check), and how fast (--speed), in under 8 minutes.

    python -m benchmarks.gpu                        both, on the first GPU; a table, and results/gpu.json
    python -m benchmarks.gpu --check                exactness, NCCL, precisions, resuming
    python -m benchmarks.gpu --speed --only 7B      cases whose name holds a text; may be given again
    python -m benchmarks.gpu --tiny                 every line of it on a CPU, with tiny models, in under a minute

It needs no network, no data and no weights. Where the package is not installed, a copy of the tree on PYTHONPATH is enough;
benchmarks/README.md lists what else a bare machine needs. A case for which the time does not suffice is skipped, one that
fails is a row with its error; the exit code is 1 if one failed, and 2 where there is no GPU. What is counted as MFU:
benchmarks/gpu_shapes.py.
"""

import argparse
import json
import os
import sys
import tempfile
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

    from benchmarks.gpu_cases import Case, Outcome

BEGAN = time.monotonic()
BUDGET = 440.0
"""Seconds, imports included, after which no case is begun."""
RESULTS = Path(__file__).resolve().parent / "results"
SETTINGS = {
    "HF_HUB_OFFLINE": "1",
    "HF_DATASETS_DISABLE_PROGRESS_BARS": "1",
    "TOKENIZERS_PARALLELISM": "false",
    "TRANSFORMERS_VERBOSITY": "error",
    "TRL_EXPERIMENTAL_SILENCE": "1",
    # The check of resuming asks for sums in a fixed order. On Hopper this is the size that torch takes anyway.
    "CUBLAS_WORKSPACE_CONFIG": ":4096:8",
}
PEERED = 2
"""How many of a shape's cases, from the first on, are also timed with a bare transformers loop."""
PACKAGES = ("liger-kernel", "kernels", "flash-attn", "flash-attn-3")
"""Packages of kernels whose presence changes the speed."""


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--check", action="store_true", help="whether it is right; without --check and --speed both are done")
    parser.add_argument("--speed", action="store_true", help="how fast it is")
    parser.add_argument("--tiny", action="store_true", help="tiny shapes on the CPU")
    parser.add_argument("--only", action="append", metavar="TEXT", help="cases whose name holds this text; may be given again")
    parser.add_argument("--budget", type=float, default=BUDGET, metavar="SECONDS", help=f"default: {BUDGET:.0f}")
    parser.add_argument("--out", type=Path, default=RESULTS, metavar="FOLDER", help="where gpu.json goes; default: results/")
    options = parser.parse_args(arguments)
    for name, value in SETTINGS.items():
        os.environ.setdefault(name, value)
    if options.tiny:
        # The project takes a GPU where it sees one.
        os.environ["CUDA_VISIBLE_DEVICES"] = ""
    import torch

    if not (options.tiny or torch.cuda.is_available()):
        print("there is no CUDA device here; --tiny runs every line with tiny models on the CPU", file=sys.stderr)
        return 2
    device = torch.device("cpu") if options.tiny else torch.device("cuda", 0)
    both = options.check == options.speed
    with tempfile.TemporaryDirectory(prefix="tulu-gpu-") as scratch:
        cases: list[Case] = []
        if options.check or both:
            cases += check_cases(device, options.tiny)
        if options.speed or both:
            cases += speed_cases(device, options.tiny, Path(scratch))
        wanted = [text.lower() for text in options.only or [""]]
        cases = [case for case in cases if any(text in case.name.lower() for text in wanted)]
        if not cases:
            parser.error(f"no case's name holds {' or '.join(map(repr, options.only))}")
        outcomes = run(cases, options.budget, options.out, device)
    return 1 if any(outcome.status == "failed" for outcome in outcomes) else 0


def check_cases(device: "torch.device", tiny: bool) -> "list[Case]":
    """What must hold. `tiny` makes the models smaller, and checks the same."""
    from functools import partial

    from benchmarks import gpu_check, gpu_ranks
    from benchmarks.gpu_cases import Case

    size = gpu_check.TINY if tiny else {}
    exact = [
        Case(f"exact: {name}", 5, partial(gpu_check.exactness, family, {**fields, **size}, device))
        for name, (family, fields) in gpu_check.ARCHITECTURES.items()
    ]
    return [
        *exact,
        Case("bf16 trains as float32", 8, partial(gpu_check.precisions, device, 40)),
        Case("a resumed run has the same bits", 8, partial(gpu_check.resume, device)),
        Case("collectives, the world forced to two", 8, partial(gpu_ranks.collectives, device)),
        Case("FSDP2 with one rank", 8, partial(gpu_ranks.sharded, device)),
    ]


def speed_cases(device: "torch.device", tiny: bool, scratch: Path) -> "list[Case]":
    """What is timed: the head alone, then of each shape our stages, and beside SFT what it is compared with."""
    from functools import partial

    from benchmarks import gpu_head, gpu_peers, gpu_speed
    from benchmarks.gpu_cases import Case
    from benchmarks.gpu_shapes import SHAPES
    from benchmarks.gpu_shapes import TINY as TINY_SHAPES

    shapes = TINY_SHAPES if tiny else SHAPES
    timed = [gpu_speed.cases_of(shape, tiny) for shape in shapes]
    cases = []
    # The most telling case of every shape comes before the second of any, so that a budget that runs out costs the least.
    for place, speeds in enumerate(zip(*timed, strict=True)):
        for speed in speeds:
            seconds = 1 if tiny else 10 if speed.shape.takes_steps else 15
            cases.append(Case(speed.name, seconds, partial(gpu_speed.measure, speed, device, scratch)))
            if place < PEERED:
                cases.append(Case(f"transformers: {speed.name}", seconds, partial(gpu_peers.plain, speed, device)))
            if place == 1 and speed.shape is shapes[0]:
                cases.append(Case(f"TRL: {speed.name}", 2 * seconds, partial(gpu_peers.trl, speed, device, scratch)))
    heads = [
        Case(f"head: {name}", 3, partial(gpu_head.measure, side, shapes[0], device)) for name, side in gpu_head.SIDES.items()
    ]
    return cases + heads


def run(cases: "Sequence[Case]", budget: float, out: Path, device: "torch.device") -> "list[Outcome]":
    """Try every case; the table grows as they end, and the JSON is written after each, so that nothing is lost."""
    from benchmarks.gpu_cases import Outcome, try_all
    from tulu.files import write_atomic

    out.mkdir(parents=True, exist_ok=True)
    facts = {"date": datetime.now(UTC).isoformat(timespec="seconds"), **machine(device)}
    print(", ".join(f"{name} {value}" for name, value in facts.items() if isinstance(value, str)), flush=True)
    done: list[Outcome] = []

    def told(outcome: Outcome) -> None:
        done.append(outcome)
        print(line(outcome), flush=True)
        result = {**facts, "seconds": round(time.monotonic() - BEGAN, 1), "cases": [each.as_json() for each in done]}
        write_atomic(out / "gpu.json", json.dumps(result, indent=2) + "\n")

    outcomes = try_all(cases, BEGAN + budget, told)
    if device.type == "cpu":
        print("tiny models on a CPU: what is compared here is not speed")
    counts = {status: sum(each.status == status for each in outcomes) for status in ("ok", "failed", "skipped")}
    print(", ".join(f"{count} {status}" for status, count in counts.items()) + f"; {out / 'gpu.json'}")
    for text in beside(outcomes):
        print(text)
    return outcomes


def machine(device: "torch.device") -> dict[str, Any]:
    """The card and what it is driven by."""
    from importlib.util import find_spec

    import torch

    from tulu.model.cards import peak_of
    from tulu.train.manifest import environment

    card = torch.cuda.get_device_name(device) if device.type == "cuda" else "CPU"
    most = peak_of(device)
    return {
        "card": card,
        "torch": torch.__version__,
        "peak_flops": most,
        "kernels": {name: find_spec(name.replace("-", "_")) is not None for name in PACKAGES},
        "environment": environment(),
    }


def line(outcome: "Outcome") -> str:
    """A row of the table."""
    figures = outcome.figures
    if "tokens_per_second" in figures:
        mfu = "     –" if figures["mfu_percent"] is None else f"{figures['mfu_percent']:5.1f}%"
        memory = "    –" if figures["peak_gib"] is None else f"{figures['peak_gib']:5.1f}"
        settings = figures["settings"]
        how = "" if settings["optimizer"] else "  forward and backward alone"
        how += "  gradient checkpointing" if settings["gradient_checkpointing"] else ""
        said = f"{figures['tokens_per_second']:9,} tok/s  MFU {mfu}  {memory} GiB{how}"
    else:
        said = outcome.note or ", ".join(f"{name} {short(value)}" for name, value in figures.items())
    return f"{outcome.status:7s} {outcome.name:58s} {said}"


def short(value: Any) -> str:
    """A figure in a few characters."""
    if isinstance(value, dict):
        return "(" + ", ".join(f"{name} {short(each)}" for name, each in value.items()) + ")"
    return f"{value:.2g}" if isinstance(value, float) else str(value)


def beside(outcomes: "Sequence[Outcome]") -> list[str]:
    """How many times faster each stage is than what was timed on the same rows."""
    speeds = {each.name: each.figures["tokens_per_second"] for each in outcomes if "tokens_per_second" in each.figures}
    texts = []
    for name, speed in speeds.items():
        peer, colon, ours = name.partition(": ")
        if colon and ours in speeds:
            texts.append(f"{ours}: {speeds[ours] / speed:.2f} times {peer}")
    return texts


if __name__ == "__main__":
    sys.exit(main())
