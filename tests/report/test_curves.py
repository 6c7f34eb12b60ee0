"""Metrics as curves, and charts as SVG."""

import math
import re
from pathlib import Path
from typing import Any

import pytest

from tulu.report import svg
from tulu.report.curves import panels, series_of
from tulu.report.svg import BOTTOM, HEIGHT, LEFT, RIGHT, TOP, WIDTH, chart, label, ticks


def test_a_point_that_stands_for_several_steps_is_their_mean_with_their_range() -> None:
    rows = [{"step": step, "loss": float(step), "rare": 5.0 if step == 4 else None} for step in range(1, 8)]
    found = series_of(0, rows, points=3)
    # Seven steps in three points: 1 2 3, 4 5 6 and 7.
    loss = found["loss"]
    assert (loss.each, loss.steps) == (3, [3, 6, 7])
    assert loss.values == pytest.approx([2.0, 5.0, 7.0])
    assert (loss.low, loss.high, loss.last) == ([1.0, 4.0, 7.0], [3.0, 6.0, 7.0], 7.0)
    assert (found["rare"].steps, found["rare"].values, found["rare"].each) == ([4], [5.0], 1)


def test_what_is_no_number_is_no_point_and_the_largest_numbers_have_a_mean() -> None:
    rows: list[dict[str, Any]] = [
        {"step": 1, "a": math.nan, "b": "x", "c": True, "d": 1.7e308},
        {"step": 2, "d": 1.7e308},
        {"d": 1.0},
        {"step": "x", "d": 1.0},
    ]
    found = series_of(0, rows, points=1)
    assert list(found) == ["d"]
    assert found["d"].values == [1.7e308]


def test_runs_share_a_panel_and_families_share_one_where_there_is_one_run() -> None:
    rows = [{"step": 1, "zebra": 1.0, "share_data": 0.1, "share_forward": 0.9, "loss": 2.0, "eval/loss": 1.0}]
    one = panels(series_of(0, rows, 9).values(), together=True)
    assert [(panel.title, len(panel.series)) for panel in one] == [
        ("eval/loss", 1),
        ("loss", 1),
        ("share of time", 2),
        ("zebra", 1),
    ]
    both = [*series_of(0, rows, 9).values(), *series_of(1, rows, 9).values()]
    assert [(panel.title, len(panel.series)) for panel in panels(both, together=False)] == [
        ("eval/loss", 2),
        ("loss", 2),
        ("share_data", 2),
        ("share_forward", 2),
        ("zebra", 2),
    ]


def test_a_curve_goes_from_edge_to_edge_and_its_title_is_escaped() -> None:
    rows = [{"step": step, '<b onload="x">': float(step)} for step in (1, 2, 3)]
    [panel] = panels(series_of(0, rows, 9).values(), together=True)
    drawn = str(chart(panel, "k0", by_run=False))
    path = re.search(r'class="line c0"[^>]* d="M([\d.]+) [\d.]+L([\d.]+) [\d.]+L([\d.]+)', drawn)
    assert path is not None
    middle = (LEFT + WIDTH - RIGHT) / 2
    assert [float(place) for place in path.groups()] == [LEFT, middle, WIDTH - RIGHT]
    assert "<b onload" not in drawn
    assert "&lt;b onload" in drawn


@pytest.mark.parametrize("values", [[1e308, -1e308], [0.0, 5e-324], [3.0], [1e-9, 1.0000001e-9], [-0.0, 0.0]])
def test_no_range_of_numbers_leaves_the_chart(values: list[float]) -> None:
    rows = [{"step": step, "x": value} for step, value in enumerate(values)]
    [panel] = panels(series_of(0, rows, 9).values(), together=True)
    drawn = str(chart(panel, "k0", by_run=False))
    places = [float(found) for found in re.findall(r"[ML](?:[\d.]+) (-?[\d.]+)", drawn)]
    assert all(0 <= place <= HEIGHT for place in places)
    assert "nan" not in drawn
    assert "inf" not in drawn


def test_ticks_are_round_and_labels_short() -> None:
    assert ticks(0.0, 1.0) == pytest.approx([0.0, 0.25, 0.5, 0.75, 1.0])
    assert ticks(1.0, 400.0, 5) == pytest.approx([100.0, 200.0, 300.0, 400.0])
    assert ticks(-0.31, 0.29) == pytest.approx([-0.2, 0.0, 0.2])
    assert [label(value) for value in (0.0, 0.25, 12000.0, 1.25e-5, -2.5e9, 1e6)] == [
        "0",
        "0.25",
        "12k",
        "1.25e−5",
        "−2.5e9",
        "1e6",
    ]


def test_the_script_draws_on_the_scales_of_the_page() -> None:
    script = (Path(svg.__file__).parent / "charts.js").read_text()
    sizes = f"left: {LEFT}, right: {RIGHT}, top: {TOP}, bottom: {BOTTOM}, width: {WIDTH}, height: {HEIGHT}"
    assert f"const PLOT = {{ {sizes} }};" in script
