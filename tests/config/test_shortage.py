"""Running out of memory is one message that names fields and how much each of them saves."""

import errno
import importlib
import os
import re
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from typer.testing import CliRunner

from tests.samples import make_stage
from tests.train.test_run import opened
from tulu.cli import app
from tulu.config.job import Job
from tulu.config.plan import memory
from tulu.config.schema import Evaluate, Recipe, Sft
from tulu.config.shortage import GIB, cures, is_shortage, telling_shortage
from tulu.config.sizes import Size
from tulu.config.stages import STAGES
from tulu.errors import MemoryShortage, RecipeError
from tulu.model.load import from_pretrained

SIZE = Size(7e9, 7e9, layers=32, hidden=4096, kv=4096, feed_forward=11008)


def job_of(section: str = "sft", **fields: Any) -> Job:
    stage: Any = make_stage(Sft, max_length=1024, precision="bf16", **fields)
    return Job(Recipe(name="x", sft=stage, evaluate=Evaluate(task="sums")), section, Path("runs/x/sft"), None)


def real_shortage() -> RuntimeError:
    """What torch says where no machine has so much."""
    with pytest.raises(RuntimeError) as raised:
        torch.empty(1 << 57, dtype=torch.uint8)
    return raised.value


def test_what_is_a_shortage() -> None:
    assert is_shortage(real_shortage())
    assert is_shortage(MemoryError())
    assert is_shortage(torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.50 GiB."))
    assert is_shortage(RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"))
    assert is_shortage(OSError(errno.ENOMEM, os.strerror(errno.ENOMEM)))
    assert not is_shortage(OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)))
    assert not is_shortage(RuntimeError("mat1 and mat2 shapes cannot be multiplied"))
    assert is_shortage(RuntimeError("could not create a primitive"))
    assert not is_shortage(RuntimeError("could not create a primitive descriptor for a matmul primitive"))
    assert is_shortage(ImportError("libtorch_cpu.so: failed to map segment from shared object"))
    assert not is_shortage(ImportError("libx.so: failed to map segment from shared object: Operation not permitted"))


def real_thread_shortage() -> RuntimeError:
    """What Python says where no thread can be started: a stack of that size has no room anywhere."""
    before = threading.stack_size(1 << 46)
    try:
        with pytest.raises(RuntimeError) as raised:
            threading.Thread(target=lambda: None).start()
    finally:
        threading.stack_size(before)
    return raised.value


def test_a_thread_that_cannot_be_started_is_told_as_a_shortage() -> None:
    with (
        pytest.raises(MemoryShortage, match=r"out of memory, or of processes .*no other thread could be started\n"),
        telling_shortage(job_of()),
    ):
        raise real_thread_shortage()


def raise_wrapped() -> None:
    try:
        raise MemoryError
    except MemoryError as error:
        raise RecipeError("model: cannot be loaded (MemoryError). Correct its files.") from error


def test_a_shortage_that_was_taken_for_a_fault_of_a_file_is_told_as_one() -> None:
    with pytest.raises(MemoryShortage, match="sft: out of memory\n"), telling_shortage(job_of()):
        raise_wrapped()
    with pytest.raises(MemoryShortage, match=r"^engine: out of memory; lower its samples$"), telling_shortage(job_of()):
        raise MemoryShortage("engine: out of memory; lower its samples") from MemoryError()
    with pytest.raises(RecipeError, match=r"^a row: out of memory$"), telling_shortage(job_of()):
        raise RecipeError("a row: out of memory")


@pytest.mark.parametrize(
    ("error", "asked"),
    [
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.50 GiB. GPU 0 has a total capacity of 79 GiB"), "2.50"),
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 512.00 MiB."), "0.50"),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 3221225472 bytes."), "3.00"),
    ],
)
def test_the_message_says_how_much_was_asked_for(error: Exception, asked: str) -> None:
    with (
        pytest.raises(MemoryShortage, match=f"sft: out of memory: {asked} GiB more could not be had\n"),
        telling_shortage(job_of()),
    ):
        raise error


def test_other_errors_pass() -> None:
    with pytest.raises(RuntimeError, match="shapes"), telling_shortage(job_of()):
        raise RuntimeError("shapes")


def test_each_cure_saves_what_the_plan_says() -> None:
    """Rows of 8,192 tokens in bf16: by hand, activations are 2 bytes · 8,192 · 32 layers · (8 · 4096 + 2 · 4096 + 4 · 11008)."""
    stage = make_stage(Sft, max_length=1024, precision="bf16", row_tokens=8192)
    saved = {option: float(gib) for option, gib in cures(stage, SIZE, 1)}
    activations = 2 * 8192 * 32 * (8 * 4096 + 2 * 4096 + 4 * 11008) / GIB
    assert saved["row_tokens=4096"] == pytest.approx(activations / 2, abs=0.01)
    assert saved["micro_batch=4"] == saved["row_tokens=4096"], "four documents of 1,024 tokens fill half a row"
    assert saved["offload_optimizer=true"] == pytest.approx(8 * 7e9 / GIB, abs=0.01)
    assert saved["sharding=fsdp2 --gpus 8"] > 70
    assert list(saved.values()) == sorted(saved.values(), reverse=True), "what saves most comes first"
    assert "precision=bf16" not in saved
    assert memory(stage.model_copy(update={"offload_optimizer": True}), SIZE, 1).keys() == {
        *("weights", "masters", "gradients", "activations")
    }


def test_what_is_done_already_is_not_offered() -> None:
    settings: dict[str, Any] = {"gradient_checkpointing": True, "offload_optimizer": True, "sharding": "fsdp2", "micro_batch": 1}
    offered = dict(cures(make_stage(Sft, max_length=8192, precision="bf16", row_tokens=8192, **settings), SIZE, 4))
    assert list(offered) == ["max_length=4096"], "a shorter row would hold a longest document all the same"


def test_an_unknown_model_gets_the_fields_without_numbers() -> None:
    with pytest.raises(MemoryShortage) as raised, telling_shortage(job_of()):
        raise MemoryError
    assert re.search(r"^  sft\.row_tokens=4096 *$", str(raised.value), re.MULTILINE)
    assert raised.value.exit_code == 1


def test_an_evaluation_has_a_batch_to_lower() -> None:
    with pytest.raises(MemoryShortage, match="max_tokens"), telling_shortage(job_of("evaluate")):
        raise MemoryError


def test_the_command_ends_with_the_message(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def run(job: Job) -> None:
        raise real_shortage()

    module = ModuleType("fake")
    module.run = run  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, STAGES["base"].runner.rpartition(".")[0], module)
    done = CliRunner().invoke(app, ["base", "quickstart", "--runs", str(tmp_path)])
    assert done.exit_code == 1
    assert "base: out of memory: 134,217,728.00 GiB more could not be had" in done.output
    assert "base.row_tokens=2048" in done.output
    assert "Traceback" not in done.output


def test_there_may_be_no_memory_to_paint_the_message(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tulu.commands.recipes.show_recipes", raise_wrapped)
    monkeypatch.setitem(sys.modules, "rich.console", None)
    done = CliRunner().invoke(app, ["recipes"])
    assert (done.exit_code, done.stderr.splitlines()[0]) == (1, "out of memory")


@pytest.mark.parametrize(
    ("words", "module", "name", "lower"),
    [
        (
            "evaluate MODEL --task sums",
            "tulu.evaluation.evaluate",
            "evaluate_model",
            "Lower --batch, --best-of or --max-tokens, or stop",
        ),
        ("chat MODEL", "tulu.evaluation.chat", "load_chat", "Lower --max-tokens, or stop"),
        (
            "sample MODEL --data MODEL/rows.jsonl --verifier exact",
            "tulu.evaluation.sample",
            "sample",
            "Lower --batch, --n or --max-tokens, or",
        ),
        ("verify exact --in a --out b", "tulu.commands.verify", "verify_file", "Lower --workers, or stop"),
        ("rewardbench x", "tulu.reward_models.rewardbench", "run", "Lower --judge-tokens, --row-tokens or --max-length, or stop"),
        ("report x --runs .", "tulu.report.runs", "find_run", "Stop what else uses the memory"),
        ("recipes", "tulu.commands.recipes", "show_recipes", "Stop what else uses the memory"),
    ],
)
def test_the_cure_is_made_of_options_that_the_command_has(
    words: str,
    module: str,
    name: str,
    lower: str,
    monkeypatch: pytest.MonkeyPatch,
    tiny_model: Callable[..., Path],
    tmp_path: Path,
) -> None:
    model = tmp_path / "model"
    model.symlink_to(tiny_model("olmo2"))
    rows = tmp_path / "rows.jsonl"
    rows.write_text('{"messages": [{"role": "user", "content": "a"}], "ground_truth": "a"}\n')

    def fail(*_: Any, **__: Any) -> None:
        raise_wrapped()

    monkeypatch.setattr(importlib.import_module(module), name, fail)
    given = words.replace("MODEL/rows.jsonl", str(rows)).replace("MODEL", str(model)).split()
    done = CliRunner().invoke(app, given)
    assert done.exit_code == 1, done.output
    assert f"out of memory\n{lower}" in done.output
    named = re.findall(r"--[a-z-]+", done.output)
    assert all(option in CliRunner().invoke(app, [given[0], "--help"], terminal_width=200).output for option in named)


def test_a_command_that_trains_nothing_ends_with_a_message(monkeypatch: pytest.MonkeyPatch) -> None:
    def run(*_: Any) -> None:
        raise real_shortage()

    module = ModuleType("fake")
    module.run = run  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "tulu.reward_models.rewardbench", module)
    done = CliRunner().invoke(app, ["rewardbench", "some/model"])
    assert done.exit_code == 1
    assert "out of memory: 134,217,728.00 GiB more could not be had" in done.output
    assert "--row-tokens" in done.output
    assert "Traceback" not in done.output


@pytest.mark.parametrize(
    "error", [MemoryError(), RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory")], ids=repr
)
def test_a_model_that_does_not_fit_is_not_told_as_a_damaged_one(error: Exception, tiny_model: Callable[..., Path]) -> None:
    class Loader:
        @staticmethod
        def from_pretrained(*_: Any, **__: Any) -> None:
            raise error

    with pytest.raises(type(error)) as raised:
        from_pretrained(Loader, tiny_model("olmo2"))
    assert raised.value is error


def test_a_checkpoint_for_which_there_is_no_memory_is_not_told_as_a_full_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = opened(tmp_path)

    def fail(folder: Path) -> None:
        raise real_shortage()

    monkeypatch.setattr(run.parallel, "save", fail)
    with pytest.raises(MemoryShortage, match="sft: out of memory"), telling_shortage(run.job):
        run.save(1)
    assert not list(tmp_path.rglob(".partial-*"))


def test_a_process_that_cannot_be_started_for_want_of_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    def run(*_: Any) -> None:
        raise OSError(errno.ENOMEM, os.strerror(errno.ENOMEM))

    module = ModuleType("fake")
    module.run = run  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "tulu.reward_models.rewardbench", module)
    done = CliRunner().invoke(app, ["rewardbench", "some/model"])
    assert done.exit_code == 1
    assert "out of memory" in done.output


def test_a_merge_has_nothing_to_lower() -> None:
    recipe = Recipe.model_validate({"name": "x", "merge": {"models": [{"name": "a"}, {"name": "b"}]}})
    job = Job(recipe, "merge", Path("runs/x/merge"), None)
    with pytest.raises(MemoryShortage, match=r"merge: out of memory\nA merge holds one weight"), telling_shortage(job):
        raise MemoryError
