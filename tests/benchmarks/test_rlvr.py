"""What the comparison of whole RLVR loops makes of the seconds of its steps."""

import json
from argparse import Namespace
from pathlib import Path

from benchmarks.rlvr import RESULTS, WARM_UP, command_of, ratios, summary


def test_steps_that_warm_up_are_left_out() -> None:
    """Two steps of 4 s and of 6 s of 3 · 5 completions: 30 completions in 10 s."""
    seconds, rewards, lengths = [100.0] * WARM_UP + [4.0, 6.0], [9.0] * WARM_UP + [0.25, 0.75], [9.0] * WARM_UP + [10.0, 30.0]
    found = summary(seconds, rewards, lengths, {"prompts": 3, "samples": 5})
    assert found == {"rate": 3.0, "step_seconds": 5.0, "mean_tokens": 20.0, "reward": 0.5}


def test_rounds_are_compared_with_their_own_neighbours() -> None:
    ours, theirs = [{"rate": 6.0}, {"rate": 4.0}, {"rate": 9.0}], [{"rate": 3.0}, {"rate": 4.0}, {"rate": 3.0}]
    assert ratios(ours, theirs) == {"median": 2.0, "rounds": [2.0, 1.0, 3.0]}


def test_results_name_no_folder_of_the_machine() -> None:
    options = Namespace(
        task="gsm8k", engine="asleep", rounds=1, steps=12, sides=["sync", "trl"], folder=Path("/a"), out=Path("/b")
    )
    words = "rlvr.py --task gsm8k --engine asleep --rounds 1 --steps 12 --sides sync trl"
    assert command_of(options) == words.split()
    for file in RESULTS.glob("*.json"):
        command = json.loads(file.read_text()).get("environment", {}).get("command", [])
        assert not [word for word in command if word.startswith("/")], file.name
