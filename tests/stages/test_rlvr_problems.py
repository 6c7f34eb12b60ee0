"""The problems of RLVR with several processes: one reads and proves them, and all have them."""

import json
import pickle
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tests.samples import make_stage
from tests.train.test_agreement import Together
from tulu.config.schema import Rlvr, Source
from tulu.data import golds
from tulu.data.chat import apply_template, make_byte_tokenizer
from tulu.errors import DataError
from tulu.stages.rlvr_problems import read_problems


def rlvr(folder: Path, truths: list[str]) -> Any:
    rows = [
        {"messages": [{"role": "user", "content": f"q{number}"}], "ground_truth": truth, "dataset": "gsm8k"}
        for number, truth in enumerate(truths)
    ]
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    data = [Source(name=str(folder / "rows.jsonl"), fraction=1.0)]
    return make_stage(Rlvr, data=data, prompts=2, samples=2, max_prompt=64, max_tokens=8, batch=4)


class Apart(Together):
    """Processes that share no memory: what is sent is bytes."""

    def broadcast(self, items: list[Any], src: int, group: None) -> None:
        items[:] = pickle.loads(self.exchange(pickle.dumps(items))[src])


def test_one_process_proves_and_all_have_the_problems(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tokenizer = make_byte_tokenizer()
    apply_template(tokenizer, "tulu")
    stage, proven = rlvr(tmp_path, [str(number) for number in range(7)]), [0]
    examine = golds._examine

    def counted(pairs: Any) -> Any:
        proven[0] += len(pairs)
        return examine(pairs)

    monkeypatch.setattr(golds, "_examine", counted)
    monkeypatch.setattr(golds, "_proven", type(golds._proven)())
    found = Apart(3, monkeypatch).run(
        lambda parallel: read_problems(SimpleNamespace(parallel=parallel, tokenizer=tokenizer), stage)  # type: ignore[arg-type]
    )
    assert proven == [7], "each ground truth once"
    assert len({problems.digest for problems in found}) == 1
    assert [[problem.ground_truth for problem in problems] for problems in found] == [[str(number) for number in range(7)]] * 3


def test_ground_truths_that_cannot_be_used_stop_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tokenizer = make_byte_tokenizer()
    apply_template(tokenizer, "tulu")
    stage = rlvr(tmp_path, ["seven", "8"])
    found = Apart(3, monkeypatch).run(
        lambda parallel: read_problems(SimpleNamespace(parallel=parallel, tokenizer=tokenizer), stage)  # type: ignore[arg-type]
    )
    assert [type(error) for error in found] == [DataError] * 3
    assert len({str(error) for error in found}) == 1
