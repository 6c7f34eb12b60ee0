"""Looks while a stage trains: held-out loss against the oracle, no trace in the weights, resumed runs, sample answers."""

import json
import logging
import math
import re
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from tests.model.test_devices import NoFloat64
from tests.samples import make_group, make_stage, plain_logps
from tulu import losses
from tulu.config.job import Job
from tulu.config.schema import Recipe, Rm, Sft
from tulu.errors import DataError
from tulu.reward_models import training as rm
from tulu.stages import dpo, sft
from tulu.train import looks
from tulu.train.held_out import content_of, copies_in, split, subset
from tulu.train.looks import SampleAnswer, told
from tulu.types import Group

STAGES = {"sft": sft.run, "dpo": dpo.run, "rm": rm.run}
COMMON = {"max_length": 128, "batch": 4, "micro_batch": 2, "steps": 4, "learning_rate": 3e-3, "precision": "fp32"}


def job(stage: str, folder: Path, model: Path, name: str = "t", **fields: Any) -> Job:
    section = {**COMMON, "schedule": "constant", **fields}
    recipe = Recipe.model_validate({"name": name, "model": str(model), "template": "tulu", stage: section})
    return Job(recipe, stage, folder / "runs" / name / stage, str(model))


def write(file: Path, rows: Sequence[dict[str, Any]]) -> str:
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(file)


def chats(first: int, last: int) -> list[dict[str, Any]]:
    return [{"prompt": f"q{at}", "completion": "yes " * (1 + at % 3) + str(at)} for at in range(first, last)]


def pairs(first: int, last: int) -> list[dict[str, Any]]:
    return [{"prompt": f"q{at}", "chosen": f"yes {at}", "rejected": f"no no {at}"} for at in range(first, last)]


def metrics_of(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def samples_of(folder: Path, step: int) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "samples" / f"step-{step:06d}.jsonl").read_text().splitlines()]


def same_weights(one: Path, other: Path) -> bool:
    first, second = (load_file(folder / "model.safetensors") for folder in (one, other))
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


# -- which rows -------------------------------------------------------------------------------------------------


def test_held_out_rows_are_a_seeded_share() -> None:
    held_out, training = split(50, make_stage(Sft, held_out=0.2))
    assert len(held_out) == 10
    assert sorted([*held_out, *training]) == list(range(50))
    assert split(50, make_stage(Rm, held_out=0.2))[0] == held_out
    assert split(50, make_stage(Sft, held_out=0.2, seed=9))[0] != held_out


def test_copies_are_found_by_their_tokens_whatever_they_are_called() -> None:
    groups = [make_group(seed, 3, [4 + seed % 2]) for seed in range(6)]
    copy = Group(groups[2].prompt, groups[2].completions, "other.jsonl:9")
    # The same tokens in all, but the prompt ends elsewhere.
    moved = Group([*groups[3].prompt, groups[3].completions[0].tokens[0]], groups[3].completions[:1], "m")
    assert copies_in([*groups, copy], [groups[2]]) == [2, 6]
    assert copies_in([copy, moved], groups) == [0]
    assert content_of(copy) == content_of(groups[2]) != content_of(moved)


def test_no_row_that_is_held_out_is_trained_under_another_name(tiny_model: Callable[..., Path], tmp_path: Path) -> None:
    """fraction 2 copies every row; a copy of a held-out row is left out of training too."""
    data = [{"name": write(tmp_path / "rows.jsonl", chats(0, 20)), "fraction": 2.0}]
    folder = sft.run(
        job("sft", tmp_path, tiny_model(), data=data, held_out=0.25, steps=None, epochs=1, batch=8, micro_batch=8)
    ).parent
    trained = {
        row.partition("#")[0] for line in (folder / "journal").read_text().splitlines() for row in json.loads(line)["rows"]
    }
    assert json.loads((folder / "manifest.json").read_text())["rows"] == 2 * len(trained)
    held_out = split(40, make_stage(Sft, held_out=0.25))[0]
    kept = {f"{tmp_path}/rows.jsonl:{place % 20 + 1}" for place in held_out}
    assert trained.isdisjoint(kept)
    assert trained | kept == {f"{tmp_path}/rows.jsonl:{line}" for line in range(1, 21)}
    assert not any(name.startswith("eval/") for line in metrics_of(folder) for name in line), "nothing was to be looked at"


def test_rows_of_eval_data_that_are_trained_on_are_left_out(
    tiny_model: Callable[..., Path], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    data = write(tmp_path / "rows.jsonl", chats(0, 8))
    own = write(tmp_path / "own.jsonl", chats(6, 12))
    run = job("sft", tmp_path, tiny_model(), data=data, eval_data=own, eval_every=4)
    sft.run(run)
    assert "eval_data: 2 of 6 rows are trained on too" in caplog.text
    with pytest.raises(DataError, match="all of its rows are trained on"):
        sft.run(job("sft", tmp_path, tiny_model(), "u", data=data, eval_data=[{"name": data, "count": 3}], eval_every=4))


# -- what is measured -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("loss", ["token", "micro_mean"])
def test_the_loss_of_the_last_look_is_that_of_transformers_on_the_saved_model(
    loss: str, tiny_model: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(looks, "CHUNK", 4)
    data, own = write(tmp_path / "rows.jsonl", chats(0, 12)), write(tmp_path / "own.jsonl", chats(20, 30))
    seen: list[Sequence[Group]] = []
    plain = looks.spread

    def spread(rows: Sequence[Group], most: int) -> list[Group]:
        seen.append(plain(rows, most))
        return list(seen[-1])

    monkeypatch.setattr("tulu.train.fit.spread", spread)
    fields: dict[str, Any] = {"data": data, "eval_data": own, "eval_every": 3, "loss": loss, "loss_micro_batch": 2}
    folder = sft.run(job("sft", tmp_path, tiny_model(), **fields)).parent
    lines = metrics_of(folder)
    assert [line["step"] for line in lines if "eval/nll" in line] == [3, 4], "every third, and the last"
    [groups] = seen
    assert len(groups) == 10
    model = AutoModelForCausalLM.from_pretrained(folder / "model")
    with torch.no_grad():
        oracle = -plain_logps(model, groups)
        by_row = [float(-plain_logps(model, [group]).sum()) for group in groups]
    assert lines[-1]["eval/nll"] == pytest.approx(float(oracle.mean()), rel=1e-4)
    trained = [group.completions[0].n_trained for group in groups]
    micro = [sum(by_row[at : at + 2]) / sum(trained[at : at + 2]) for at in range(0, 10, 2)]
    expected = float(oracle.mean()) if loss == "token" else sum(micro) / len(micro)
    assert lines[-1]["eval/loss"] == pytest.approx(expected, rel=1e-4)


def test_a_look_at_no_more_rows_than_asked_takes_them_from_everywhere() -> None:
    groups = [make_group(seed, 2, [2]) for seed in range(10)]
    assert [group.id for group in looks.spread(groups, 4)] == ["row:0", "row:2", "row:5", "row:7"]
    assert looks.spread(groups, 99) == groups
    assert looks.spread(looks.spread(groups, 4), 4) == looks.spread(groups, 4)
    assert subset(groups, torch.tensor([3, 1]).numpy())[1].id == "row:1"


def test_a_look_needs_no_float64_where_the_device_has_none(
    tiny_model: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(losses, "WITHOUT_FLOAT64", ("mps", "cpu"))
    data = write(tmp_path / "rows.jsonl", chats(0, 20))
    with NoFloat64():
        folder = sft.run(job("sft", tmp_path, tiny_model(), data=data, held_out=0.2, eval_every=4, eval_tokens=2)).parent
    assert math.isfinite(metrics_of(folder)[-1]["eval/loss"])


@pytest.mark.parametrize(
    ("stage", "fields"),
    [
        ("sft", {"lora": {"rank": 4, "alpha": 8, "dropout": 0.3}, "loss": "sum"}),
        ("dpo", {"gradient_checkpointing": True}),
        ("rm", {}),
    ],
)
def test_a_run_with_looks_ends_with_the_weights_of_one_without(
    stage: str, fields: dict[str, Any], tiny_model: Callable[..., Path], tmp_path: Path
) -> None:
    """Dropout draws from random states that a look must leave as they were, and a look must leave the model training."""
    data = write(tmp_path / "rows.jsonl", chats(0, 20) if stage == "sft" else pairs(0, 20))
    looked: dict[str, Any] = {"eval_every": 1, "eval_rows": 5}
    if stage != "rm":
        looked |= {"eval_task": "sums", "eval_tokens": 4}
    found = [
        STAGES[stage](job(stage, tmp_path, tiny_model(), name, data=data, held_out=0.2, **fields, **more))
        for name, more in (("with", looked), ("without", {}))
    ]
    assert same_weights(*found)
    first, second = (metrics_of(folder.parent) for folder in found)
    assert [line["loss"] for line in first] == [line["loss"] for line in second]
    assert all("eval/loss" in line for line in first)
    assert not any(name.startswith("eval/") for line in second for name in line)
    if stage != "sft":
        assert {"eval/accuracy", "eval/margin"} <= first[-1].keys()
    if stage != "rm":
        assert first[-1]["eval/sums/accuracy"] == 0.0, "a random model"
        assert first[-1]["eval/sums/ungraded"] == 0.0


def test_the_accuracy_of_the_last_look_is_the_one_that_the_reward_model_reports(
    tiny_model: Callable[..., Path], tmp_path: Path
) -> None:
    data = write(tmp_path / "rows.jsonl", pairs(0, 40))
    folder = rm.run(job("rm", tmp_path, tiny_model(), data=data, held_out=0.25, eval_every=2)).parent
    facts, last = json.loads((folder / "manifest.json").read_text()), metrics_of(folder)[-1]
    assert facts["held_out_pairs"] == 10
    assert last["eval/accuracy"] == pytest.approx(facts["held_out_accuracy"])
    rows = samples_of(folder, 4)
    assert [row["task"] for row in rows] == ["better", "worse"] * 3
    assert all(
        "yes" in better["answer"] and "no" in worse["answer"] for better, worse in zip(rows[0::2], rows[1::2], strict=True)
    )
    margins = [better["score"] - worse["score"] for better, worse in zip(rows[0::2], rows[1::2], strict=True)]
    assert all(math.isfinite(margin) for margin in margins)


# -- answers ----------------------------------------------------------------------------------------------------


def test_answers_to_a_file_of_problems_are_scored_shown_and_kept(
    tiny_model: Callable[..., Path], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "tulu")
    data = write(tmp_path / "rows.jsonl", [{"prompt": "say", "completion": "7"}] * 4)
    user = [{"role": "user", "content": "say"}]
    asked = [{"messages": user, "ground_truth": truth, "dataset": "gsm8k"} for truth in ("7", "8")]
    fields: dict[str, Any] = {
        "data": data,
        "eval_task": write(tmp_path / "mine.jsonl", asked),
        "eval_every": 10,
        "eval_tokens": 8,
    }
    folder = sft.run(job("sft", tmp_path, tiny_model(), steps=20, learning_rate=1e-2, **fields)).parent
    [last] = [line for line in metrics_of(folder) if line["step"] == 20]
    rows = samples_of(folder, 20)
    assert [(row["prompt"], row["answer"], row["score"]) for row in rows] == [("say", "7", 1.0), ("say", "7", 0.0)]
    assert last["eval/mine/accuracy"] == 0.5
    assert f"mine, {tmp_path}/mine.jsonl:1 (score 1, expected 7)\n  prompt | say\n  answer | 7" in caplog.text
    assert sorted(file.name for file in (folder / "samples").iterdir()) == ["step-000010.jsonl", "step-000020.jsonl"]


def test_without_a_task_the_model_answers_prompts_that_are_held_out(tiny_model: Callable[..., Path], tmp_path: Path) -> None:
    data = write(tmp_path / "rows.jsonl", chats(0, 40))
    folder = sft.run(job("sft", tmp_path, tiny_model(), data=data, held_out=0.25, eval_every=4, eval_tokens=5)).parent
    rows = samples_of(folder, 4)
    assert [row["task"] for row in rows] == ["held-out"] * 3
    assert all(row["score"] is None and row["prompt"].startswith("<|user|>\nq") for row in rows)


def test_a_look_that_takes_long_is_told_with_its_begin(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    caplog.set_level(logging.INFO, "tulu")
    with looks.told_if_long("a short one"):
        pass
    monkeypatch.setattr(looks, "SAY_AFTER", 0.05)
    with looks.told_if_long("a long one"):
        deadline = time.monotonic() + 20
        while not caplog.records and time.monotonic() < deadline:
            time.sleep(0.01)
    [line] = [record.getMessage() for record in caplog.records]
    assert re.fullmatch(r"waiting for a long one since \d\d:\d\d:\d\d", line)


def test_a_terminal_is_shown_no_control_letters_and_not_all_of_a_long_text() -> None:
    text = told(SampleAnswer("sums", "s:1", "a\x1b[2Jb\nc", "x" * 1000, 0.5, "", "length", "7"))
    assert "\x1b" not in text
    assert text.startswith("sums, s:1 (score 0.5, expected 7, did not stop)\n  prompt | a [2Jb\n         | c\n  answer | xxx")
    assert "x … x" in text
    assert len(text) < 520
    assert "no score: it failed" in told(SampleAnswer("sums", "s:1", "", "", None, "it failed"))


# -- a run that resumes -----------------------------------------------------------------------------------------


def test_a_resumed_run_looks_again_at_what_it_does_again(
    tiny_model: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = write(tmp_path / "rows.jsonl", chats(0, 20))
    fields: dict[str, Any] = {"data": data, "held_out": 0.2, "eval_every": 1, "eval_rows": 3, "eval_tokens": 3, "save_every": 2}
    whole = sft.run(job("sft", tmp_path, tiny_model(), "whole", **fields)).parent
    plain = looks.Looks.after

    def die(self: looks.Looks, step: int, last: bool) -> dict[str, float]:
        found = plain(self, step, last)
        if step == 3:
            raise OSError("killed")
        return found

    monkeypatch.setattr(looks.Looks, "after", die)
    broken = job("sft", tmp_path, tiny_model(), "broken", **fields)
    with pytest.raises(OSError, match="killed"):
        sft.run(broken)
    assert (broken.folder / "samples" / "step-000003.jsonl").is_file()
    monkeypatch.setattr(looks.Looks, "after", plain)
    folder = sft.run(broken).parent
    assert same_weights(whole / "model", folder / "model")
    both = [[(line["step"], line["eval/nll"]) for line in metrics_of(one)] for one in (whole, folder)]
    assert both[0] == both[1]
    assert samples_of(whole, 3) == samples_of(folder, 3)
