"""What vLLM died of is found where its errors only point to each other, and travels from process to process."""

import pickle
from pathlib import Path

import pytest

from tulu.rollout import vllm_causes
from tulu.rollout.fleet_calls import EngineBroken
from tulu.rollout.vllm_causes import broken, cause_of, last_error

DEAD = "EngineCore encountered an issue. See stack trace (above) for the root cause."
CORE = """\
(MainProcess pid=7) WARNING 11-27 06:12:19 [cpu.py:224] Triton is not installed. TypeError: is not one here
(EngineCore pid=9) ERROR 11-27 06:12:20 [core.py:1512] EngineCore encountered a fatal error.
(EngineCore pid=9) ERROR 11-27 06:12:20 [core.py:1512] Traceback (most recent call last):
(EngineCore pid=9) ERROR 11-27 06:12:20 [core.py:1512]   File "cpu_attn.py", line 1, in forward
(EngineCore pid=9) ERROR 11-27 06:12:20 [core.py:1512]     raise RuntimeError("a: b")
(EngineCore pid=9) ERROR 11-27 06:12:20 [core.py:1512] RuntimeError: Unsupported CPU attention configuration: head_dim=16
(MainProcess pid=7) ERROR 11-27 06:12:20 [async_llm.py:906] AsyncLLM output_handler failed.
(MainProcess pid=7) ERROR 11-27 06:12:20 [async_llm.py:906] vllm.v1.engine.exceptions.EngineDeadError: """


def test_the_last_error_of_a_log_that_does_not_point_elsewhere() -> None:
    assert last_error(CORE + DEAD) == "RuntimeError: Unsupported CPU attention configuration: head_dim=16"
    assert last_error("Traceback (most recent call last):\ntorch.cuda.OutOfMemoryError: no room\n") == "OutOfMemoryError: no room"
    assert last_error("x\n  ValueError: told by a subprocess, further in\n") == "ValueError: told by a subprocess, further in"
    assert last_error(f"all is well\nEngineDeadError: {DEAD}\nTypeErrors: 3") == ""


def test_an_error_that_says_what_is_wrong_is_taken_at_its_word(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vllm_causes, "own_words", lambda: CORE)
    assert cause_of(ValueError("no such\nshape")) == "ValueError: no such shape"
    dead = RuntimeError(DEAD)
    assert cause_of(dead) == "RuntimeError: Unsupported CPU attention configuration: head_dim=16"
    dead.__cause__ = OSError("the disk is full")
    assert cause_of(dead) == "OSError: the disk is full"


def test_of_a_core_that_was_killed_no_cause_is_made_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vllm_causes, "own_words", lambda: f"EngineDeadError: {DEAD}")
    error = broken(RuntimeError(DEAD))
    assert error.cause == ""
    assert "ended without a word" in str(error)


def test_cause_and_place_travel_and_the_same_cause_is_known_again(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    log = tmp_path / "worker-1.out"
    log.write_text("x" * vllm_causes.TAIL_BYTES + "\n" + CORE + DEAD)
    monkeypatch.setattr(vllm_causes, "_log_of", lambda descriptor: log if descriptor == 1 else Path("pipe:[7]"))
    error = pickle.loads(pickle.dumps(broken(RuntimeError(DEAD))))
    assert isinstance(error, EngineBroken)
    assert error.cause == "vLLM failed (RuntimeError: Unsupported CPU attention configuration: head_dim=16)"
    assert str(error).startswith(error.cause)
    assert str(error).endswith(f":{log}")
