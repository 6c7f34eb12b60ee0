"""What is told of an engine that failed or was killed: one line, with what to lower where memory ran out."""

import pytest
import torch

from tulu.rollout.fleet_calls import death, failure


@pytest.mark.parametrize(
    ("told", "expected"),
    [
        (failure(RuntimeError("one\n  two")), "it failed (RuntimeError: one two)"),
        (
            failure(torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.50 GiB.\nGPU 0")),
            "out of memory: 2.50 GiB more could not be had; lower its samples, max_prompt or max_tokens",
        ),
        (
            death(RuntimeError("The actor died unexpectedly before finishing this task.\n\tclass_name: VllmWorker\n\tpid: 7")),
            "its process died (The actor died unexpectedly before finishing this task), as one does that is killed",
        ),
        (death(RuntimeError("Task was killed due to the node running low on memory.\nMemory on the node")), "its process died"),
        (death(type("OutOfMemoryError", (Exception,), {})("")), "the machine ran out of memory (OutOfMemoryError)"),
    ],
)
def test_one_line(told: str, expected: str) -> None:
    assert expected in told
    assert "\n" not in told
