"""A mix of 50,000 rows: what is made up is shaped as it says, and no process holds anything that grows with the rows."""

import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks.scale import LONGEST, conversations, made_up_arrays, preferences
from tests.samples import make_stage
from tulu.config.schema import Sft
from tulu.data.datasets import open_groups
from tulu.data.mixing import order
from tulu.data.row_report import RowReport
from tulu.data.token_cache import PartWriter, is_whole
from tulu.train.fit import draw, pack_whole

ROWS = 50_000
TEXT = "Some words of a text, one after the other. " * 2000


@pytest.fixture(scope="module")
def entry(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An entry of the cache with so many made-up rows of 700 tokens, 170 MB in all."""
    folder = tmp_path_factory.mktemp("cache") / "entry"
    with PartWriter("made.jsonl", folder) as writer:
        for first in range(0, ROWS, 5000):
            writer.add(made_up_arrays(range(first, first + 5000), 1, "made.jsonl"), RowReport("", rows=5000))
        writer.part()
    return folder


def test_rows_have_the_lengths_of_the_mix(entry: Path) -> None:
    groups = open_groups([entry])
    lengths = groups.lengths
    assert len(groups) == len(lengths) == ROWS
    assert 600 < lengths.mean() < 720, "cut at 4,096, the mean of 700 is a little lower"
    assert lengths.max() <= LONGEST + 3
    assert groups[49_999].id == "made.jsonl:50000"
    assert [group.n_tokens for group in groups[:5]] == lengths[:5].tolist()
    assert all(completion.n_trained == len(completion.tokens) for completion in groups[7].completions)


@pytest.mark.parametrize("make", [conversations, preferences])
def test_rows_are_made_from_the_text(make: Any) -> None:
    rows = list(make(TEXT, 300, 3.0))
    assert len({row["id"] for row in rows}) == 300
    lengths = [sum(len(str(value)) for value in row.values()) for row in rows]
    assert 1200 < np.mean(lengths) < 3500
    again = list(make(TEXT, 300, 3.0))
    assert again == rows


def test_a_start_and_its_steps_hold_nothing_that_grows_with_the_rows(entry: Path) -> None:
    """Beside the order of two epochs, 8 bytes a row each, a process holds the rows of a step."""
    stage = make_stage(Sft, batch=128, steps=100, max_length=LONGEST)
    order.cache_clear()
    tracemalloc.start()
    try:
        assert is_whole(entry)
        groups = open_groups([entry])
        assert groups.digest
        held_open, peak_open = tracemalloc.get_traced_memory()
        for step in range(3):
            assert pack_whole([groups[place] for place in draw(len(groups), stage, step)], stage)
        held, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert held_open < 200_000
    assert peak_open < 40e6, "a block of a file that is hashed"
    assert held < 200_000 + 2 * 8 * ROWS + 128 * 700 * 100
