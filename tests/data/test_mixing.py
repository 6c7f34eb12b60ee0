"""How many rows of a source are drawn, which, and in what order they are trained on."""

import json
from collections import Counter
from pathlib import Path
from time import thread_time

import pytest

from tulu.config.schema import Source
from tulu.data.mixing import check_sources, order, sample_places, sample_rows
from tulu.errors import DataError


@pytest.mark.parametrize(
    ("n", "amount", "whole", "rest"),
    [
        (10, {"fraction": 1.0}, 1, 0),
        (10, {"fraction": 2.5}, 2, 5),
        (10, {"fraction": 0.5}, 0, 5),
        (100, {"fraction": 0.29}, 0, 29),
        (3, {"fraction": 2.5}, 2, 1),
        (10, {"count": 1}, 0, 1),
        (10, {"count": 10}, 1, 0),
        (10, {"count": 23}, 2, 3),
    ],
)
def test_amounts_are_whole_copies_and_a_remainder(n: int, amount: dict[str, float], whole: int, rest: int) -> None:
    places = sample_places(n, Source.model_validate({"name": "x", **amount}), seed=3).tolist()
    assert places[: whole * n] == [*range(n)] * whole
    copies = Counter(places)
    assert sorted(copies[index] for index in range(n)) == [whole] * (n - rest) + [whole + 1] * rest
    assert places[whole * n :] == sorted(places[whole * n :])


def sampled(source: Source, seed: int) -> list[int]:
    return list(sample_places(1000, source, seed).tolist())


def test_the_sample_depends_on_the_seed_and_the_source_alone() -> None:
    half = Source(name="a", fraction=0.5)
    assert sampled(half, 1) == sampled(half, 1)
    assert sampled(half, 1) != sampled(half, 2)
    assert sampled(half, 1) != sampled(Source(name="b", fraction=0.5), 1)
    # A larger share of the same source keeps what a smaller one had.
    assert set(sampled(Source(name="a", count=100), 1)) < set(sampled(half, 1))


def test_a_share_of_nothing_is_refused() -> None:
    with pytest.raises(DataError, match=r"fraction 0.01 of 10 rows is none"):
        sample_places(10, Source(name="x", fraction=0.01), 1)


def test_mix_concatenates_and_names_copies(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps({"text": f"{name}{n}"}) + "\n" for n in range(3)))
    a, b = (str(tmp_path / f"{name}.jsonl") for name in ("a", "b"))
    sources = [Source(name=a, fraction=2.0), Source(name=b, count=2)]
    rows = [row for source in check_sources(sources) for row in sample_rows(source, 1, "text")]
    assert [row.columns["text"] for row in rows[:6]] == ["a0", "a1", "a2", "a0", "a1", "a2"]
    assert [row.id for row in rows[2:5]] == [f"{a}:3", f"{a}:1#2", f"{a}:2#2"]
    assert len(rows) == 8
    assert len({row.id for row in rows}) == 8


def test_a_source_listed_twice_is_refused() -> None:
    sources = [Source(name="sums:sft", count=2), Source(name="sums:sft", count=3)]
    with pytest.raises(DataError, match=r"sums:sft: listed twice.*fraction: 2.0"):
        check_sources(sources)


def test_the_sample_never_changes() -> None:
    # A mix that is read again after an upgrade must hold the same rows.
    assert sample_places(10, Source(name="x", count=14), 3).tolist() == [*range(10), 0, 1, 6, 9]


def test_order_is_a_permutation_that_never_changes() -> None:
    assert sorted(order(1000, 1, 0)) == list(range(1000))
    assert order(1000, 1, 0).tolist() != order(1000, 1, 1).tolist()
    assert order(1000, 1, 0).tolist() != order(1000, 2, 0).tolist()
    # A run that is resumed after an upgrade must find the same order.
    assert order(8, 1, 0).tolist() == [6, 3, 7, 1, 4, 0, 2, 5]
    assert order(8, 1, 1).tolist() == [7, 2, 0, 6, 3, 1, 4, 5]


def test_order_is_kept_for_two_epochs_and_cannot_be_changed() -> None:
    order.cache_clear()
    first, second = order(100, 1, 0), order(100, 1, 1)
    assert order(100, 1, 0) is first
    assert order(100, 1, 1) is second
    order(100, 1, 2)
    assert order.cache_info().currsize == 2
    again = order(100, 1, 0)
    assert again is not first
    assert again.tolist() == first.tolist()
    with pytest.raises(ValueError, match="read-only"):
        first[0] = 1


def test_the_rows_of_a_step_of_a_large_mix_are_drawn_within_20_ms() -> None:
    # Tülu 3's SFT mix and batch; the second step draws from the end of one epoch and the beginning of the next.
    rows, batch = 939_343, 128
    order(rows, 1, 0), order(rows, 1, 1)
    for start in (0, rows - batch // 2):
        # Seconds of this thread, whoever else wants the core.
        began = thread_time()
        drawn = [order(rows, 1, position // rows)[position % rows] for position in range(start, start + batch)]
        assert thread_time() - began < 0.02
        assert len({int(row) for row in drawn}) > batch - 3


def test_lines_that_cannot_be_read_are_counted_at_once(tmp_path: Path) -> None:
    lines = [json.dumps({"text": str(number)}) for number in range(40)]
    for number in (3, *range(20, 32)):
        lines[number] = lines[number][:-1]
    (tmp_path / "rows.jsonl").write_text("\n".join(lines))
    rows = sample_rows(Source(name=str(tmp_path / "rows.jsonl"), fraction=2.0), 1, "text")
    assert [next(rows).id.rpartition(":")[2] for _ in range(3)] == ["1", "2", "3"], "what stands before is read as ever"
    with pytest.raises(DataError) as told:
        next(rows)
    said = str(told.value).splitlines()
    assert said[0] == "13 of 80 rows cannot be read:", "two copies of each row have one mistake"
    assert [line.split(": ")[0].rpartition(":")[2] for line in said[1:11]] == ["4", *map(str, range(21, 30))]
    assert said[11:] == ["… and 3 more", "Nothing was done: mend or remove these lines first."]


def test_a_single_line_that_cannot_be_read_is_told_alone(tmp_path: Path) -> None:
    (tmp_path / "rows.jsonl").write_text('{"text": "a"}\n{\n{"text": "b"}\n')
    with pytest.raises(DataError, match=r"^[^\n]*rows.jsonl:2: broken JSON at column 2: [^\n]*; mend or remove the line$"):
        list(sample_rows(Source(name=str(tmp_path / "rows.jsonl"), fraction=1.0), 1, "text"))
