"""`tulu data`: what it prints, and that a planted leak is found and left out of the clean copy."""

import json
from pathlib import Path
from typing import Any

import pytest

from tulu.commands.data import held_out, load_recipe_tokenizer, masked_text, mix_table, read_mix, report
from tulu.config.job import stages_of
from tulu.config.schema import Recipe, Source
from tulu.data.chat import apply_template, make_byte_tokenizer
from tulu.data.datasets import load_groups
from tulu.errors import RecipeError

STAGE: dict[str, Any] = {"max_length": 128, "batch": 2, "learning_rate": 1e-3, "steps": 1}
ROLLOUTS = {"prompts": 1, "samples": 2, "max_prompt": 64, "max_tokens": 48}
QUESTION = "Janet sells sixteen eggs a day and eats three for breakfast, how many dollars does she make?"


def recipe(**sections: Any) -> Recipe:
    base = {**STAGE, "data": {"name": "sums:base", "count": 10}, "config": {"model_type": "olmo2"}}
    return Recipe.model_validate({"name": "test", "template": "tulu", "base": base, **sections})


def written(path: Path, rows: list[dict[str, Any]]) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def test_report_shows_every_stage(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows: list[dict[str, Any]] = [{"prompt": "q", "completion": "a"}] * 3 + [{"messages": []}]
    loaded = recipe(
        sft={**STAGE, "data": written(tmp_path / "rows.jsonl", rows)},
        dpo={**STAGE, "data": {"name": "sums:pairs", "count": 5}},
        rlvr={
            **STAGE,
            "data": {"name": "sums:train", "count": 5},
            "prompts": 1,
            "samples": 2,
            "max_prompt": 64,
            "max_tokens": 48,
        },
    )
    report(loaded, cache=tmp_path / "cache")
    shown = capsys.readouterr().out
    for expected in ("base", "sft", "dpo", "rlvr", "sums:pairs", "dropped, no assistant turn: 1", "[chosen]", "<|assistant|>"):
        assert expected in shown
    assert "sums:train" in shown, "a name is not read as markup or emoji"


def test_table_counts_by_hand(tmp_path: Path) -> None:
    rows = [{"prompt": "q", "completion": "a" * length} for length in (1, 3, 5)]
    loaded = recipe(sft={**STAGE, "data": written(tmp_path / "rows.jsonl", rows)})
    (stage,) = stages_of(loaded, "sft")
    mix = read_mix(stage, load_recipe_tokenizer(loaded), tmp_path / "cache")
    # 25 prompt tokens each, answers of 2, 4 and 6 tokens with their end: 87 tokens, 12 of them trained.
    cells = [next(iter(column.cells)) for column in mix_table(mix).columns]
    assert cells[1:7] == ["3", "3", "0", "0", "87", "14%"]
    assert cells[-1] == "31"


def test_sample_colours_what_is_trained() -> None:
    tokenizer = make_byte_tokenizer()
    apply_template(tokenizer, "tulu")
    group = load_groups("sft", [Source(name="sums:sft", count=1)], tokenizer, 100)[0]
    shown = masked_text(group, tokenizer)
    green = [shown.plain[span.start : span.end] for span in shown.spans if span.style == "green"]
    assert green == [bytes(group.completions[0].tokens[:-1]).decode() + "<|endoftext|>"]
    pair = masked_text(load_groups("pairs", [Source(name="sums:pairs", count=1)], tokenizer, 100)[0], tokenizer)
    assert "[chosen]" in pair.plain
    assert "[rejected]" in pair.plain


def test_a_planted_leak_is_reported_and_left_out(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    leaked = written(tmp_path / "held.jsonl", [{"question": QUESTION, "answer": "#### 18"}])
    rows = [{"prompt": f"harmless {number}", "completion": "a"} for number in range(3)]
    rows.insert(1, {"prompt": f"Tell me. {QUESTION}", "completion": "18"})
    source = written(tmp_path / "rows.jsonl", rows)
    loaded = recipe(sft={**STAGE, "data": source})
    report(loaded, decontaminate=True, against=[leaked], clean=tmp_path / "clean", cache=tmp_path / "cache")
    shown = capsys.readouterr().out.replace("\n", "")
    assert f"100% of {leaked}:1 in {source}:2" in shown
    clean = [json.loads(line) for line in (tmp_path / "clean" / "sft" / "rows.clean.jsonl").read_text().splitlines()]
    assert clean == [rows[0], rows[2], rows[3]]
    report(
        recipe(sft={**STAGE, "data": str(tmp_path / "clean" / "sft" / "rows.clean.jsonl")}),
        against=[leaked],
        cache=tmp_path / "cache",
    )
    assert "0 questions given away by 0 rows" in capsys.readouterr().out


def test_what_is_held_out_comes_from_the_recipe() -> None:
    assert held_out(recipe(evaluate={"task": "sums"}), ())[0].name == "sums:held_out"
    named = recipe(evaluate={"task": "x", "data": {"name": "sums:held_out", "count": 7}})
    assert held_out(named, ())[0].count == 7
    assert held_out(named, ["other.jsonl"])[0].name == "other.jsonl"
    with pytest.raises(RecipeError, match=r"evaluate.data: missing.*--against FILE"):
        held_out(recipe(evaluate={"task": "x"}), ())


def test_where_there_are_no_colours_brackets_mark_what_is_trained(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = [{"messages": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "the answer"}]}] * 2
    loaded = recipe(sft={**STAGE, "data": written(tmp_path / "rows.jsonl", rows)})
    report(loaded, cache=tmp_path / "cache")
    shown = capsys.readouterr().out
    assert "<|user|>\nq\n<|assistant|>\n⟦the answer<|endoftext|>⟧" in shown
    assert f"{tmp_path}/rows.jsonl:1 (⟦trained⟧)" in shown.replace("\n", "")
    monkeypatch.setenv("FORCE_COLOR", "1")
    report(loaded, cache=tmp_path / "cache")
    coloured = capsys.readouterr().out
    assert "⟦" not in coloured
    assert "\x1b[32mthe answer<|endoftext|>" in coloured
    monkeypatch.setenv("NO_COLOR", "1")
    report(loaded, cache=tmp_path / "cache")
    assert "⟦the answer<|endoftext|>⟧" in capsys.readouterr().out
