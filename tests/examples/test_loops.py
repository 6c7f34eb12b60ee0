"""The loops of examples/: each fits on a screen, runs from the command line as its docstring says, and trains."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from transformers import AutoModelForCausalLM

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
LONGEST = 80
"""Lines of an example."""


@pytest.mark.parametrize("name", [path.name for path in sorted(EXAMPLES.glob("*.py"))])
def test_an_example_fits_on_a_screen(name: str) -> None:
    assert len((EXAMPLES / name).read_text().splitlines()) <= LONGEST


def run(name: str, *arguments: str) -> list[dict[str, float]]:
    """The figures that an example printed, step by step."""
    command = [sys.executable, str(EXAMPLES / name), *arguments]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    lines = [line.split("  ")[1:] for line in result.stdout.splitlines() if line.startswith("step ")]
    return [{part.rpartition(" ")[0]: float(part.rpartition(" ")[2]) for part in line} for line in lines]


def test_the_sft_loop_lowers_the_loss(tiny_model: Callable[..., Path], tmp_path: Path) -> None:
    rows = [{"messages": [{"role": "user", "content": f"q{n}"}, {"role": "assistant", "content": "yes"}]} for n in range(16)]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    out = tmp_path / "trained"
    steps = run("sft_loop.py", str(tiny_model()), str(tmp_path / "rows.jsonl"), "--out", str(out), "--epochs=6", "--rate=3e-3")
    assert len(steps) == 12
    assert steps[-1]["loss"] < 0.5 * steps[0]["loss"]
    AutoModelForCausalLM.from_pretrained(out)


def test_the_grpo_loop_raises_what_the_verifier_pays_for(tiny_model: Callable[..., Path], tmp_path: Path) -> None:
    """The verifier pays for small letters; the policy finds out within a few steps."""
    verifier = tmp_path / "letters.py"
    verifier.write_text(
        "def score(completion, ground_truth):\n    return sum(c.islower() for c in completion) / max(1, len(completion))\n"
    )
    rows = [{"messages": [{"role": "user", "content": f"{n}?"}], "ground_truth": "x"} for n in range(8)]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    out, options = tmp_path / "trained", ("--steps=15", "--learning-rate=1e-2", f"--verifier={verifier}:score")
    steps = run("grpo_loop.py", str(tiny_model()), str(tmp_path / "rows.jsonl"), "--out", str(out), *options)
    assert len(steps) == 15
    first, last = (sum(line["score"] for line in part) / 3 for part in (steps[:3], steps[-3:]))
    assert last > first + 0.2
    AutoModelForCausalLM.from_pretrained(out)
