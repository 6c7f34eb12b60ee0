"""Two learner processes share what one fleet samples: every rollout goes to one of them, in equal parts."""

import json
import os
from pathlib import Path

from tests import forked
from tests.rollout.two_ranks import STEPS, main


def test_each_rollout_goes_to_one_of_two_processes(tmp_path: Path) -> None:
    log = tmp_path / "log"
    process = forked.start(main, tmp_path, output=log, environment=os.environ)
    assert process.wait(timeout=240) == 0, log.read_text()[-4000:]
    first, second = (json.loads((tmp_path / f"rank-{rank}.json").read_text()) for rank in range(2))
    assert [len(step) for rank in (first, second) for step in rank["trained"]] == [2] * 2 * STEPS
    assert first["places"] == [[[0, 2], 4]] * STEPS
    assert second["places"] == [[[1, 3], 4]] * STEPS
    lines = [json.loads(line) for line in (tmp_path / "stream" / "from-000000.jsonl").read_text().splitlines()]
    steps = [line["trained"] for line in lines if line["kind"] == "step"]
    assert [len(positions) for positions in steps] == [4] * STEPS
    groups = [str(group) for rank in (first, second) for step in rank["trained"] for group in step]
    assert len(set(groups)) == 4 * STEPS, "none is trained twice"
    # The reward model of each process scored its share, and sharded weights were gathered by both.
    assert first["scored"] > 0
    assert second["scored"] > 0
    assert first["synced"] == second["synced"] == [2.0] * (STEPS + 1)
    # The engines of both processes hand over as they end, but where a rest must be shared out as the whole was.
    early, early_one, late, late_one = json.loads((tmp_path / "parts-0.json").read_text())
    whole = [[0, 0, 1, 0, 0], [0, 1, 1, 1, 0], [1, 1, 2, 1, 1], [2, 0, 3, 0, 0], [2, 1, 3, 1, 0]]
    assert sorted(one for part in early for one in part) == whole
    assert len([part for part in early if part]) > 1
    assert [one for part in early_one for one in part] == [[0, 1, 1, 1, 0]]
    assert (late, late_one) == ([whole], [[[0, 1, 1, 1, 0]]])
