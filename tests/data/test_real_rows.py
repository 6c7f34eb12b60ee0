"""The formats of real files: counts that their READMEs state, and every row's fate."""

from pathlib import Path
from time import process_time
from typing import Any

import pytest
from transformers import PreTrainedTokenizerFast

from tulu.config.schema import Source
from tulu.data.chat import apply_template, make_byte_tokenizer
from tulu.data.datasets import load_groups
from tulu.data.mixing import sample_rows
from tulu.data.problems import load_problems

LONG = 100_000


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerFast:
    made = make_byte_tokenizer()
    apply_template(made, "tulu")
    return made


def source(folder: Path, name: str) -> list[Source]:
    return [Source(name=str(folder / name), fraction=1.0)]


def reasons(report: Any) -> dict[str, int]:
    return {reason: tally.count for reason, tally in report.dropped.items()}


@pytest.mark.parametrize(
    ("name", "rows", "dropped"),
    [
        ("gsm8k/train.jsonl.gz", 7473, {}),
        ("sft_oasst_trees/en_100_tree.jsonl", 626, {}),
        ("sft_oasst_octopack/oasst_manual.jsonl.gz", 1178, {}),
        ("sft_t0_flanlike/t0_sample.jsonl.gz", 3372, {"an assistant turn is empty": 84}),
        ("sft_t0_flanlike/seed_tasks.jsonl", 175, {}),
        ("xstest/completions_gpt4.csv", 450, {}),
    ],
)
def test_conversations(shared_data: Path, tokenizer: Any, name: str, rows: int, dropped: dict[str, int]) -> None:
    groups = load_groups("sft", source(shared_data, name), tokenizer, LONG)
    assert (groups.report.rows, reasons(groups.report)) == (rows, dropped)
    assert len(groups) == groups.report.used == rows - sum(dropped.values())
    assert len({group.id for group in groups}) == len(groups)
    for group in groups[:200]:
        # What is trained last is the end-of-turn token.
        assert group.completions[0].tokens[-1] == tokenizer.eos_token_id
        assert group.completions[0].trained[0]
        assert group.completions[0].trained[-1]


def test_gsm8k_as_conversation(shared_data: Path, tokenizer: Any) -> None:
    group = load_groups("sft", source(shared_data, "gsm8k/test.jsonl"), tokenizer, LONG)[0]
    assert bytes(group.completions[0].tokens[:-1]).decode() == (
        "Janet sells 16 - 3 - 4 = 9 duck eggs a day.\nShe makes 9 * 2 = $18 every day at the farmer’s market.\n#### 18"
    )


def test_t0_rows_lose_their_written_end(shared_data: Path) -> None:
    rows = list(sample_rows(source(shared_data, "sft_t0_flanlike/t0_sample.jsonl.gz")[0], 1, "sft"))
    assert rows[0].columns["completion"].endswith("<|endoftext|>")


def test_hh_transcripts(shared_data: Path, tokenizer: Any) -> None:
    began = process_time()
    groups = load_groups("pairs", source(shared_data, "hh_rlhf/harmless-base/test.jsonl.gz"), tokenizer, LONG)
    # 1.2 s on one idle core; whoever else wants it is not counted, but slows it down.
    assert process_time() - began < 15
    assert (groups.report.rows, reasons(groups.report)) == (2312, {"the chosen answer is empty": 4})
    # Five pairs whose contexts differ are compared all the same, and named.
    assert groups.report.noted["chosen and rejected answer different prompts"].count == 5
    for group in groups[:200]:
        chosen, rejected = group.completions
        assert chosen.tokens != rejected.tokens
        assert all(chosen.trained)
        assert chosen.tokens[-1] == rejected.tokens[-1] == tokenizer.eos_token_id


def test_oasst_pairs(shared_data: Path, tokenizer: Any) -> None:
    groups = load_groups("pairs", source(shared_data, "sft_oasst_trees/en_100_tree.jsonl"), tokenizer, LONG, drop_long=True)
    assert (groups.report.rows, len(groups)) == (754, 754)


@pytest.mark.parametrize(
    ("subset", "rows"),
    [
        ("Natural", 100),
        ("Adversarial/Neighbor", 134),
        ("Adversarial/GPTInst", 92),
        ("Adversarial/GPTOut", 47),
        ("Adversarial/Manual", 46),
    ],
)
def test_llmbar(shared_data: Path, tokenizer: Any, subset: str, rows: int) -> None:
    assert len(load_groups("pairs", source(shared_data, f"llmbar/LLMBar/{subset}/dataset.json"), tokenizer, LONG)) == rows


def test_llmbar_chooses_the_labelled_output(shared_data: Path, tokenizer: Any) -> None:
    groups = load_groups("pairs", source(shared_data, "llmbar/LLMBar/Adversarial/Neighbor/dataset.json"), tokenizer, LONG)
    assert bytes(groups[0].completions[0].tokens[:16]) == b"1. Get enough sl"


@pytest.mark.parametrize(
    ("name", "verifier", "rows", "truth"),
    [
        ("gsm8k/train.jsonl.gz", None, 7473, "72"),
        ("gsm8k/test.jsonl", "math", 1319, "18"),
        ("openinstruct_misc/rlvr_test.jsonl", "gsm8k", 100, "3"),
    ],
)
def test_problems(shared_data: Path, tokenizer: Any, name: str, verifier: str | None, rows: int, truth: str) -> None:
    found = load_problems(source(shared_data, name), tokenizer, LONG, verifier)
    assert (len(found), found[0].ground_truth, found[0].verifiers) == (rows, truth, (verifier or "gsm8k",))
