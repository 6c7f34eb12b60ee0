"""`tulu rewardbench MODEL` from end to end: files written, resumed without rescoring, the same figure whatever the packing."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from tests.samples import OneAnHour
from tulu.errors import RecipeError
from tulu.reward_models import choose_scorer, rewardbench
from tulu.reward_models.items import Item, Scored
from tulu.reward_models.options import RewardBenchOptions
from tulu.reward_models.rewardbench import run
from tulu.train.ledger import read_ledger

PAIRS = [
    {
        "subset": "llmbar-natural" if k % 2 else "mt-bench-hard",
        "prompt": f"Q{k}",
        "chosen": "a" * (k % 5 + 1),
        "rejected": "b" * (k % 3 + 1),
    }
    for k in range(200)
]


@pytest.fixture
def pairs(tmp_path: Path) -> str:
    path = tmp_path / "pairs.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in PAIRS))
    return str(path)


class LengthScorer:
    """Scores an answer by its length, and dies after some chunks."""

    def __init__(self, chunks: int | None = None) -> None:
        self.settings = {"kind": "fake"}
        self.seen: list[str] = []
        self.chunks = chunks
        self.closed = 0

    def close(self) -> None:
        self.closed += 1

    def score(self, items: Sequence[Item]) -> list[Scored]:
        if self.chunks == 0:
            raise KeyboardInterrupt
        self.chunks = None if self.chunks is None else self.chunks - 1
        self.seen += [item.id for item in items]
        return [item.scored([float(len(answer[0]["content"])) for answer in item.answers]) for item in items]


def results(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "results.json").read_text())
    return found


def test_killed_evaluation_resumes_without_rescoring(pairs: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    dying, second, whole = LengthScorer(chunks=2), LengthScorer(), LengthScorer()
    options = RewardBenchOptions(out=tmp_path / "out", json_output=True)
    monkeypatch.setattr("tulu.train.measured.EnergyMeter", OneAnHour)
    monkeypatch.setattr(choose_scorer, "load_scorer", lambda *_: dying)
    with pytest.raises(KeyboardInterrupt):
        run("model", pairs, None, options)
    assert len(dying.seen) == 2 * rewardbench.CHUNK
    assert dying.closed == 1
    monkeypatch.setattr(choose_scorer, "load_scorer", lambda *_: second)
    run("model", pairs, None, options)
    assert len(second.seen) == 200 - 2 * rewardbench.CHUNK
    assert not set(second.seen) & set(dying.seen)
    monkeypatch.setattr(choose_scorer, "load_scorer", lambda *_: whole)
    run("model", pairs, None, RewardBenchOptions(out=tmp_path / "unbroken", json_output=True))
    broken, unbroken = results(tmp_path / "out"), results(tmp_path / "unbroken")
    for key in ("subsets", "sections", "score", "ties", "missing", "intervals", "baselines"):
        assert broken[key] == unbroken[key]
    assert (tmp_path / "out" / "scores.jsonl").read_text() == (tmp_path / "unbroken" / "scores.jsonl").read_text()
    assert (broken["energy"]["kwh"], unbroken["energy"]["kwh"]) == (2.0, 1.0)
    assert [one.kwh for one in read_ledger([tmp_path])] == [2.0, 1.0]


def test_results_say_what_they_rest_on(
    pairs: str, tmp_path: Path, tiny_reward_model: Callable[..., Path], capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tiny_reward_model("olmo2")
    out = run(str(folder), pairs, None, RewardBenchOptions(out=tmp_path / "out", compare=True, max_length=16))
    assert out == tmp_path / "out"
    shown = capsys.readouterr().out
    for words in ("llmbar-natural", "longer wins", "picks markup", "exact ties", "lost the start of the conversation", "INF-ORM"):
        assert words in shown
    found = results(out)
    assert found["data"] == "v1"
    assert found["settings"]["kind"] == "classifier"
    assert len(found["settings"]["template"]) == 16
    assert found["settings"]["max_length"] == 16
    assert found["counts"]["items"] == 200
    assert found["counts"]["prompt_cut"] == 200
    assert found["environment"]["versions"]["torch"]
    low, high = found["intervals"]["sections"]["Chat Hard"]
    assert low <= found["sections"]["Chat Hard"] <= high
    assert (out / "chart.png").read_bytes().startswith(b"\x89PNG")
    assert (out / "scores.parquet").stat().st_size > 0
    run(None, "v1", out / "scores.jsonl", RewardBenchOptions(json_output=True))
    assert json.loads(capsys.readouterr().out) == {
        key: found[key] for key in ("data", "subsets", "sections", "score", "ties", "missing")
    }


def test_figure_does_not_depend_on_packing(pairs: str, tmp_path: Path, tiny_reward_model: Callable[..., Path]) -> None:
    folder = str(tiny_reward_model("olmo2"))
    rows = {}
    for row_tokens in (40, 8192):
        out = run(
            folder, pairs, None, RewardBenchOptions(out=tmp_path / str(row_tokens), row_tokens=row_tokens, json_output=True)
        )
        assert out is not None
        rows[row_tokens] = [json.loads(line) for line in (out / "scores.jsonl").read_text().splitlines()]
    for one, other in zip(rows[40], rows[8192], strict=True):
        assert one["chosen"] == pytest.approx(other["chosen"], abs=1e-5)
        assert one["rejected"] == pytest.approx(other["rejected"], abs=1e-5)


def test_the_default_folder_and_the_title_hold_the_whole_name(
    pairs: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(choose_scorer, "load_scorer", lambda *_: LengthScorer())
    for model in ("runs/mine/rm/model", "runs/other/rm/model/"):
        name = model.strip("/").replace("/", "-")
        Path(model).mkdir(parents=True)
        (Path(model) / "config.json").write_text('{"model_type": "olmo2"}')
        assert run(model, "pairs.jsonl", None, RewardBenchOptions(limit=3)) == Path("runs/rewardbench", name, "pairs")
        assert f"{name} on pairs" in capsys.readouterr().out


def test_a_wrong_out_is_told_before_a_model_is_loaded(pairs: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(choose_scorer, "load_scorer", lambda *_: pytest.fail("loaded"))
    with pytest.raises(RecipeError, match="is a file where a folder belongs"):
        run("model", pairs, None, RewardBenchOptions(out=Path(pairs)))


def test_dpo_kind(pairs: str, tmp_path: Path, tiny_model: Callable[..., Path]) -> None:
    policy, reference = str(tiny_model("olmo2", 0)), str(tiny_model("olmo2", 1))
    out = run(policy, pairs, None, RewardBenchOptions(out=tmp_path / "ref", reference=reference, limit=4, json_output=True))
    assert out is not None
    assert results(out)["settings"]["reduction"] == "sum"
    out = run(policy, pairs, None, RewardBenchOptions(out=tmp_path / "free", reference_free="avg", limit=4, json_output=True))
    assert out is not None
    assert results(out)["settings"]["reference"] is None


def test_llmbar(tiny_reward_model: Callable[..., Path], shared_data: Path, tmp_path: Path) -> None:
    small = {"num_hidden_layers": 1, "num_attention_heads": 1, "num_key_value_heads": 1, "hidden_size": 16}
    folder = str(tiny_reward_model("olmo2", 0, max_position_embeddings=16384, **small))
    out = run(folder, str(shared_data / "llmbar"), None, RewardBenchOptions(out=tmp_path, json_output=True))
    assert out is not None
    found = results(out)
    assert {name: subset["count"] for name, subset in found["subsets"].items()} == {
        "llmbar-natural": 100,
        "llmbar-adver-neighbor": 134,
        "llmbar-adver-GPTInst": 92,
        "llmbar-adver-GPTOut": 47,
        "llmbar-adver-manual": 46,
    }
    assert list(found["sections"]) == ["Chat Hard"]
    assert found["counts"]["answer_start_cut"] == found["missing"] == 0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (RewardBenchOptions(), "--kind dpo with --reference MODEL"),
        (RewardBenchOptions(kind="dpo"), "needs --reference MODEL"),
        (RewardBenchOptions(reference="a", reference_free="avg"), "exclude each other"),
        (RewardBenchOptions(kind="classifier", reference="a"), "belong to --kind dpo"),
        (RewardBenchOptions(kind="classifier", endpoint="http://x"), "belongs to --kind judge"),
        (RewardBenchOptions(kind="classifier"), "no trained reward head"),
        (RewardBenchOptions(kind="dpo", reference_free="sum", max_length=10_000), "the model has 512 positions"),
    ],
)
def test_kinds_that_cannot_be(options: RewardBenchOptions, message: str, pairs: str, tiny_model: Callable[..., Path]) -> None:
    with pytest.raises(RecipeError, match=message) as caught:
        run(str(tiny_model("olmo2", 0)), pairs, None, options)
    assert caught.value.exit_code == 2


def test_a_folder_that_is_no_model(pairs: str, tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r"without config\.json"):
        run(str(tmp_path), pairs, None, RewardBenchOptions())
    assert choose_scorer.detect_kind("any", RewardBenchOptions(endpoint="http://localhost:1/v1")) == "judge"
