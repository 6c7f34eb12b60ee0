"""Rows and lengths of a mix: stated, generated, counted in local files, or known of a released set."""

import gzip
from pathlib import Path

import pytest

from tulu.config.mixes import mix_of
from tulu.config.schema import Source


def test_rows_are_counted_stated_or_generated(tmp_path: Path) -> None:
    plain, zipped = tmp_path / "a.jsonl", tmp_path / "b.jsonl.gz"
    plain.write_text("{}\n\n{}\n{}\n")
    with gzip.open(zipped, "wb") as file:
        file.write(b"{}\n{}\n")
    sources = [Source(name=str(plain), fraction=2.0), Source(name=str(zipped), fraction=0.5), Source(name="x/y", count=10)]
    assert mix_of(sources, "sft").rows == 2 * 3 + 1 + 10
    unknown = mix_of([*sources, Source(name="x/z", fraction=1.0)], "sft")
    assert (unknown.rows, unknown.unknown) == (None, ("x/z",))
    assert mix_of([Source(name="sums:held_out", fraction=1.0)], "rlvr").rows == 500
    assert mix_of([Source(name="sums:nothing", fraction=1.0)], "rlvr").unknown == ("sums:nothing",)


def test_lengths_of_a_local_file_are_its_bytes(tmp_path: Path) -> None:
    rows = tmp_path / "rows.jsonl"
    rows.write_text(("x" * 399 + "\n") * 5)
    assert mix_of([Source(name=str(rows), fraction=1.0)], "sft").tokens == 100
    assert mix_of([Source(name=str(rows), fraction=1.0)], "pairs").tokens == 50, "a pair is two conversations"
    (tmp_path / "none.jsonl").write_text("")
    empty = mix_of([Source(name=str(tmp_path / "none.jsonl"), fraction=1.0)], "sft")
    assert (empty.rows, empty.tokens) == (0, None)


def test_released_sets_are_known_by_name_and_split() -> None:
    mix = mix_of([Source(name="allenai/tulu-3-sft-mixture", fraction=0.5)], "sft")
    assert (mix.rows, mix.about, mix.unknown) == (round(939343 / 2), False, ())
    assert mix.sources
    assert "b14afda6" in mix.sources[0]
    assert mix_of([Source(name="allenai/tulu-3-sft-mixture", split="test", fraction=1.0)], "sft").rows is None
    assert mix_of([Source(name="allenai/RLVR-GSM", fraction=1.0)], "rlvr").about
    assert not mix_of([Source(name="allenai/RLVR-GSM", count=100)], "rlvr").about, "a count is what is trained on"


def test_lengths_of_a_mix_are_the_mean_over_its_rows() -> None:
    names = ["allenai/tulu-3-sft-mixture", "allenai/Dolci-Think-SFT-7B"]
    one, other = (mix_of([Source(name=name, count=100)], "sft").tokens for name in names)
    assert one is not None
    assert other is not None
    both = mix_of([Source(name=names[0], count=300), Source(name=names[1], count=100), Source(name="x/y", count=10**6)], "sft")
    assert both.tokens == pytest.approx((3 * one + other) / 4), "what is not known has no weight"


def test_sets_that_are_known_together() -> None:
    from tests.config.plan_sections import OLMO32

    whole = [Source(name=name, fraction=1.0) for name in OLMO32]
    assert mix_of(whole, "pairs").rows == 377809
    assert mix_of(whole[1:], "pairs").rows is None
    assert mix_of([Source(name=name, fraction=0.5) for name in OLMO32], "pairs").rows is None, "only all of it is known"
