"""Charts as SVG, drawn when the report is written, so that they are there without a script and on paper."""

import math
from collections.abc import Sequence

from markupsafe import Markup

from tulu.report.curves import Panel

WIDTH, HEIGHT = 340, 168
LEFT, RIGHT, TOP, BOTTOM = 52, 8, 8, 22
"""What a chart leaves free for its scales."""


def chart(panel: Panel, name: str, by_run: bool) -> Markup:
    """The curves of a panel over its steps; a script finds the scales in data-scale to draw smoothed ones over them."""
    x0, x1 = _range([step for one in panel.series for step in one.steps], padded=False)
    y0, y1 = _range([value for one in panel.series for value in (*one.low, *one.high)])
    parts = [_scales(x0, x1, y0, y1)]
    for place, one in enumerate(panel.series):
        colour = (one.run if by_run else place) % 8
        xs = [_x(step, x0, x1) for step in one.steps]
        if one.each > 1:
            band = [*zip(xs, one.high, strict=True), *zip(reversed(xs), reversed(one.low), strict=True)]
            points = " ".join(f"{x:.1f},{_y(value, y0, y1):.1f}" for x, value in band)
            parts.append(f'<polygon class="band c{colour}" data-run="{one.run}" points="{points}"/>')
        points = "".join(
            f"{'L' if number else 'M'}{x:.1f} {_y(value, y0, y1):.1f}"
            for number, (x, value) in enumerate(zip(xs, one.values, strict=True))
        )
        # A single point has no line; a round cap makes it a dot.
        points += "h0" if len(xs) == 1 else ""
        parts.append(f'<path class="line c{colour}" data-run="{one.run}" data-series="{place}" d="{points}"/>')
    scale = f"{x0!r} {x1!r} {y0!r} {y1!r}"
    title = Markup.escape(panel.title)
    head = (
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{title} by step" data-chart="{name}" data-scale="{scale}">'
    )
    return Markup(f"{head}{''.join(parts)}</svg>")


def _scales(x0: float, x1: float, y0: float, y1: float) -> str:
    parts = []
    for value in ticks(y0, y1):
        y = _y(value, y0, y1)
        parts.append(f'<path class="grid" d="M{LEFT} {y:.1f}H{WIDTH - RIGHT}"/>')
        parts.append(f'<text class="tick" x="{LEFT - 6}" y="{y + 3:.1f}" text-anchor="end">{label(value)}</text>')
    for value in ticks(x0, x1, 5):
        if value == int(value):
            x = _x(value, x0, x1)
            parts.append(f'<path class="notch" d="M{x:.1f} {HEIGHT - BOTTOM}v4"/>')
            parts.append(f'<text class="tick" x="{x:.1f}" y="{HEIGHT - 6}" text-anchor="middle">{label(value)}</text>')
    parts.append(f'<path class="axis" d="M{LEFT} {HEIGHT - BOTTOM}H{WIDTH - RIGHT}"/>')
    return "".join(parts)


def _range(values: Sequence[float], padded: bool = True) -> tuple[float, float]:
    """The ends of a scale that shows all values, which are never equal."""
    low, high = min(values, default=0.0), max(values, default=1.0)
    if low == high:
        room = abs(low) * 0.5 or 0.5
        return low - room, high + room
    room = 0.04 * (high - low) if padded else 0.0
    # Halves, because the distance of the largest numbers overflows.
    return (low - room, high + room) if math.isfinite(high - low) else (low / 2, high / 2)


def ticks(low: float, high: float, count: int = 4) -> list[float]:
    """Round numbers within a range, about as many as asked for."""
    span = high - low
    # Below, powers of ten have no exact neighbours any more.
    if not math.isfinite(span) or span < 1e-290:
        return []
    rough = span / count
    power = 10.0 ** math.floor(math.log10(rough))
    step = next((power * factor for factor in (1, 2, 2.5, 5, 10) if power * factor >= rough), 0.0)
    if step <= 0 or not math.isfinite(low / step):
        return []
    first = math.ceil(low / step - 1e-9)
    return [
        round((first + number) * step, 12 - math.floor(math.log10(step)))
        for number in range(12)
        if (first + number) * step <= high + 1e-9 * step
    ]


def label(value: float) -> str:
    """A tick's number, short."""
    if value == 0:
        return "0"
    size = abs(value)
    if size >= 1e6 or size < 1e-3:
        mantissa, _, exponent = f"{value:.2e}".partition("e")
        return f"{float(mantissa):g}e{int(exponent)}".replace("-", "−")
    if size >= 1e4:
        return f"{value / 1000:g}k".replace("-", "−")
    return f"{value:.4g}".replace("-", "−")


def _x(value: float, x0: float, x1: float) -> float:
    return LEFT + (WIDTH - LEFT - RIGHT) * (value - x0) / (x1 - x0)


def _y(value: float, y0: float, y1: float) -> float:
    return HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * min(1.0, max(0.0, (value - y0) / (y1 - y0)))


def whisker(value: float, interval: tuple[float, float] | None, colour: int = 0, low: float = 0.0, high: float = 1.0) -> Markup:
    """A dot on a scale from `low` to `high` with its interval."""
    width, middle = 220, 11

    def place(number: float) -> float:
        return 6 + (width - 12) * min(1.0, max(0.0, (number - low) / ((high - low) or 1.0)))

    rules = "".join(f'<path class="grid" d="M{place(low + (high - low) * part):.1f} 0v22"/>' for part in (0, 0.25, 0.5, 0.75, 1))
    span = ""
    if interval is not None:
        left, right = place(interval[0]), place(interval[1])
        span = f'<path class="whisker c{colour}" d="M{left:.1f} {middle}H{right:.1f}M{left:.1f} 7v8M{right:.1f} 7v8"/>'
    dot = f'<circle class="dot c{colour}" cx="{place(value):.1f}" cy="{middle}" r="4"/>'
    return Markup(f'<svg class="whiskers" viewBox="0 0 {width} 22" aria-hidden="true">{rules}{span}{dot}</svg>')


def bar(value: float, interval: tuple[float, float] | None) -> Markup:
    """A share as a bar with its interval."""
    width = 300
    long = width * min(1.0, max(0.0, value))
    span = ""
    if interval is not None:
        left, right = (width * min(1.0, max(0.0, end)) for end in interval)
        span = f'<path class="whisker" d="M{left:.1f} 8H{right:.1f}M{left:.1f} 5v6M{right:.1f} 5v6"/>'
    rules = "".join(f'<path class="grid" d="M{width * part:.0f} 0v16"/>' for part in (0.25, 0.5, 0.75, 1))
    fill = f'<rect class="bar" x="0" y="3" width="{long:.1f}" height="10" rx="1"/>'
    return Markup(f'<svg class="bars" viewBox="0 0 {width + 2} 16" aria-hidden="true">{rules}{fill}{span}</svg>')
