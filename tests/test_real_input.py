"""Every stage on real public rows through the command line, with tiny models; and the released recipe, run for real."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, AutoTokenizer
from typer.testing import CliRunner

from tulu.cli import app

RECIPE = "recipes/olmo2-instruct.yaml"
TRAIN = {
    "max_length": 512,
    "batch": 8,
    "micro_batch": 4,
    "row_tokens": 1024,
    "steps": 2,
    "learning_rate": 1e-3,
    "precision": "fp32",
}
RLVR = {"batch": 8, "prompts": 2, "samples": 4, "max_prompt": 700, "max_tokens": 12, "max_length": 712, "engine": "transformers"}
GSM8K = "gsm8k/train.jsonl.gz"
TREES = "sft_oasst_trees/en_100_tree.jsonl"
HH = "hh_rlhf/harmless-base/test.jsonl.gz"
LLMBAR = {
    "llmbar-natural": 100,
    "llmbar-adver-neighbor": 134,
    "llmbar-adver-GPTInst": 92,
    "llmbar-adver-GPTOut": 47,
    "llmbar-adver-manual": 46,
}


@pytest.fixture
def model(tiny_model: Callable[..., Path]) -> Path:
    return tiny_model("olmo2", num_hidden_layers=1, max_position_embeddings=8192)


@pytest.fixture
def trained(tmp_path: Path, model: Path) -> Callable[..., Path]:
    """Run a stage on a file through the command line; returns its folder."""

    def train(stage: str, data: Path, *arguments: str, count: int | None = None, **fields: Any) -> Path:
        amount = {"count": count} if count else {"fraction": 1.0}
        section = {**TRAIN, "data": {"name": str(data), **amount}, **fields}
        recipe = tmp_path / "tiny.yaml"
        recipe.write_text(yaml.safe_dump({"name": "tiny", "model": str(model), "template": "tulu", stage: section}))
        call(stage, str(recipe), "--runs", str(tmp_path / "runs"), *arguments)
        return tmp_path / "runs" / "tiny" / stage

    return train


def call(*arguments: str) -> str:
    result = CliRunner().invoke(app, list(arguments), catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.stdout


def steps(folder: Path) -> list[dict[str, Any]]:
    found = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in found] == list(range(1, len(found) + 1))
    assert all(torch.tensor([line["loss"], line["gradient_norm"]]).isfinite().all() for line in found)
    return found


def moved(folder: Path, start: Path) -> None:
    """The model folder loads in transformers, template included, and is not the one it began as."""
    model, before = (AutoModelForCausalLM.from_pretrained(path).state_dict() for path in (folder / "model", start))
    assert model.keys() == before.keys()
    assert any(not torch.equal(model[name], before[name]) for name in model)
    assert AutoTokenizer.from_pretrained(folder / "model").chat_template


def journal(folder: Path) -> list[str]:
    lines = [json.loads(line) for line in (folder / "journal").read_text().splitlines()]
    return [row for line in lines if line["event"] == "trained" for row in line["rows"]]


def test_sft_on_gsm8k(shared_data: Path, model: Path, trained: Callable[..., Path]) -> None:
    folder = trained("sft", shared_data / GSM8K, max_length=2048, row_tokens=4096)
    assert json.loads((folder / "manifest.json").read_text())["rows"] == 7473
    assert [line["sequences"] for line in steps(folder)] == [8, 8]
    rows = journal(folder)
    assert len(set(rows)) == 16
    assert all(row.startswith(f"{shared_data / GSM8K}:") for row in rows)
    moved(folder, model)


def test_sft_on_oasst_trees(shared_data: Path, model: Path, trained: Callable[..., Path]) -> None:
    folder = trained("sft", shared_data / TREES, max_length=2048, row_tokens=4096)
    assert json.loads((folder / "manifest.json").read_text())["rows"] == 626, "every thread of the trees, multi-turn"
    steps(folder)
    moved(folder, model)


def test_dpo_on_hh_rlhf(shared_data: Path, model: Path, trained: Callable[..., Path]) -> None:
    # 200 of them: the reference's log-probs are computed for every row of the mix.
    folder = trained("dpo", shared_data / HH, count=200, beta=5.0, max_length=1024)
    assert json.loads((folder / "manifest.json").read_text())["rows"] > 100
    # A policy that is still its own reference prefers nothing: the loss of the first step is ln 2.
    assert steps(folder)[0]["loss"] == pytest.approx(0.693147, abs=1e-5)
    moved(folder, model)


def test_rm_on_hh_rlhf_then_rewardbench_on_llmbar(shared_data: Path, tmp_path: Path, trained: Callable[..., Path]) -> None:
    folder = trained("rm", shared_data / HH, held_out=0.02, max_length=4096, row_tokens=8192)
    facts = json.loads((folder / "manifest.json").read_text())
    assert 0.0 <= facts["held_out_accuracy"] <= 1.0
    assert facts["rows"] + facts["held_out_pairs"] > 2200, "of 2,312, less pairs whose sides are the same"
    assert facts["held_out_pairs"] == round(0.02 * (facts["rows"] + facts["held_out_pairs"]))
    steps(folder)
    AutoModelForSequenceClassification.from_pretrained(folder / "model")
    out = tmp_path / "bench"
    arguments = ("rewardbench", str(folder / "model"), "--data", str(shared_data / "llmbar"), "--out", str(out), "--json")
    report = json.loads(call(*arguments))
    assert sum(each["count"] for each in report["subsets"].values()) == 419
    assert {name: each["count"] for name, each in report["subsets"].items()} == LLMBAR


def test_rlvr_on_gsm8k(shared_data: Path, model: Path, tmp_path: Path, trained: Callable[..., Path]) -> None:
    """A random model solves nothing, so that a score that varies stands in the verifier's place."""
    (tmp_path / "even.py").write_text("def score(completion, ground_truth):\n    return float(len(completion) % 2 == 0)\n")
    verifier = f"{tmp_path}/even.py:score"
    folder = trained("rlvr", shared_data / GSM8K, "--verifier", verifier, refill=False, bad_golds="skip", **RLVR)
    assert len(steps(folder)) == 2
    assert sorted(file.name for file in (folder / "rollouts").glob("step-*")) == ["step-000001.parquet", "step-000002.parquet"]
    graded = [json.loads(line) for line in (folder / "journal").read_text().splitlines()]
    assert sum(len(line["rows"]) for line in graded if line["event"] == "graded") == 4
    assert AutoTokenizer.from_pretrained(folder / "model").chat_template


def test_evaluate_on_gsm8k(shared_data: Path, tmp_path: Path, model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    data = str(shared_data / "gsm8k" / "test.jsonl")
    output = call("evaluate", str(model), "--task", "gsm8k", "--data", data, "--limit", "8", "--max-tokens", "8")
    assert "gsm8k: " in output
    assert "of 8 graded" in output
    results = next((tmp_path / "runs" / "evaluate").rglob("results.json"))
    answers = [json.loads(line) for line in results.with_name("answers.jsonl").read_text().splitlines()]
    assert [answer["id"] for answer in answers] == [f"{data}:{line}" for line in range(1, 9)]
    assert answers[0]["ground_truth"] == "18"


def test_released_recipe_dry_run() -> None:
    output = call("sft", RECIPE, "--dry-run")
    assert "global batch 128 = 1 process × micro-batch 8 × accumulation 16" in output
    for line in ("learning_rate: 1.0e-05", "loss: sum", "max_length: 4096", "allenai/tulu-3-sft-olmo-2-mixture"):
        assert line in output


def messages(*turns: str) -> list[dict[str, str]]:
    return [{"role": ("user", "assistant")[place % 2], "content": turn} for place, turn in enumerate(turns)]


@pytest.fixture
def rows(tmp_path: Path) -> dict[str, Path]:
    """A few rows of one's own for every stage of the released recipe."""
    words = ["one", "two", "three", "four", "five", "six"]
    content: dict[str, list[dict[str, Any]]] = {
        "sft": [{"messages": messages(f"After {word}?", "I count on.", "And then?", "It goes on.")} for word in words],
        "dpo": [{"chosen": messages(word, word * 2), "rejected": messages(word, "no")} for word in words],
        "rlvr": [{"messages": messages(f"{n} + 1 ="), "ground_truth": str(n + 1), "dataset": "gsm8k"} for n in range(40)],
    }
    content["rm"] = content["dpo"]
    for stage, lines in content.items():
        (tmp_path / f"{stage}.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return {stage: tmp_path / f"{stage}.jsonl" for stage in content}


# What is changed besides model and rows is what a CPU would take minutes for: lengths of samples, and their number.
@pytest.mark.parametrize(
    ("stage", "changes", "batch"),
    [
        ("sft", [], 128),
        ("dpo", [], 128),
        ("rm", ["rm.template=tulu_bos"], 256),
        (
            "rlvr",
            ["rlvr.template=tulu_bos", "rlvr.beta=0.1", "rlvr.steps=1", "rlvr.max_tokens=8", "rlvr.engine=transformers"],
            248,
        ),
    ],
)
def test_released_recipe_on_a_local_model_and_rows(
    stage: str, changes: list[str], batch: int, tmp_path: Path, model: Path, rows: dict[str, Path]
) -> None:
    runs = tmp_path / "runs"
    call(stage, RECIPE, f"model={model}", f"{stage}.data={rows[stage]}", *changes, "--runs", str(runs))
    folder = runs / "olmo2-instruct" / stage
    resolved = yaml.safe_load((folder / "recipe.yaml").read_text())
    assert (resolved[stage]["batch"], resolved[stage]["precision"], resolved["template"]) == (batch, "bf16", "tulu_bos")
    steps(folder)
    auto = AutoModelForSequenceClassification if stage == "rm" else AutoModelForCausalLM
    loaded = auto.from_pretrained(folder / "model")
    assert loaded.dtype == torch.float32, "as the model it began with is stored"
    assert AutoTokenizer.from_pretrained(folder / "model").chat_template.startswith("{{ bos_token }}")


def test_a_model_folder_goes_on_in_trl(tmp_path: Path, model: Path, rows: dict[str, Path]) -> None:
    from datasets import Dataset
    from trl import SFTConfig, SFTTrainer

    call("sft", RECIPE, f"model={model}", f"sft.data={rows['sft']}", "--runs", str(tmp_path / "runs"))
    folder = tmp_path / "runs" / "olmo2-instruct" / "sft" / "model"
    settings = SFTConfig(
        output_dir=str(tmp_path / "trl"), max_steps=1, per_device_train_batch_size=2, report_to=[], use_cpu=True, bf16=False
    )
    lines = [json.loads(line) for line in rows["sft"].read_text().splitlines()]
    trainer = SFTTrainer(model=str(folder), args=settings, train_dataset=Dataset.from_list(lines))
    assert torch.tensor(trainer.train().training_loss).isfinite()
