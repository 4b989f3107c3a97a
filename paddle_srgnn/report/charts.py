"""Line charts as coordinates; the template draws them as SVG in the page's colours."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

LEFT, RIGHT, TOP, BOTTOM = 36, 392, 10, 214  # of the plot in a drawing of 400 units, about the width of a phone
BAR_SHARE = 0.4  # of the plot's height, for the highest bar
COLOURS = 8
MARKERS = ("M-3.5 0a3.5 3.5 0 1 0 7 0a3.5 3.5 0 1 0-7 0z", "M-3-3h6v6h-6z", "M0-4l4 7h-8z",
           "M0-4.5l4.5 4.5-4.5 4.5-4.5-4.5z", "M0 4l-4-7h8z")  # fmt: skip
DASHES = ("", "5 2", "2 2", "7 2 2 2")
BASELINE_DASHES = ("4 3", "8 3", "2 3")


class Style(NamedTuple):
    """How a result is drawn in every chart: class, CSS colour, marker (an SVG path), dash array and width."""

    key: str
    colour: str
    marker: str
    dashes: str
    width: float


def styles(is_model: Sequence[bool]) -> list[Style]:
    """A style for each result. Colours and markers differ; models have thicker lines, which are solid before dashed."""
    return [
        Style(
            f"s{n}", f"var(--s{n % COLOURS})", MARKERS[n % len(MARKERS)],
            DASHES[n // COLOURS % len(DASHES)] if model else BASELINE_DASHES[n % len(BASELINE_DASHES)],
            2.2 if model else 1.5,
        )
        for n, model in enumerate(is_model)
    ]  # fmt: skip


class Line(NamedTuple):
    """A result's values at each x of a chart; NaN is a gap."""

    name: str
    style: Style
    values: Sequence[float]


def line_chart(
    key: str, title: str, x_label: str, x: Sequence[float] | Sequence[str], lines: Sequence[Line],
    samples: Sequence[int] = (), from_zero: bool = True,
) -> dict:  # fmt: skip
    """Lay out a chart.

    Args:
        key: the chart's id, unique on the page.
        x: numbers in ascending order, or the names of categories.
        samples: in each category, drawn as bars in the background.
        from_zero: whether the y axis starts at 0.

    Returns:
        What the template draws: texts, ticks as (position, label), bars as (x, y, width, height, label), lines as
        (style, path, markers), the numbers as text (`words`), and what is shown under the pointer (`data`).
    """
    at = _positions(x)
    labels = [value if isinstance(value, str) else f"{value:g}" for value in x]
    values = [value for line in lines for value in line.values if value == value]
    low, high = 0.0 if from_zero else min(values), max(values)
    spare = 0.06 * (high - low or abs(high) or 1.0)
    low, high = (0.0 if from_zero else low - spare), high + spare

    def to_y(value: float) -> float:
        return round(BOTTOM - (BOTTOM - TOP) * (value - low) / (high - low), 1)

    every = 1 if len(x) <= 10 or samples else math.ceil(len(x) / 10)  # of the labels under the axis
    width = 0.72 * (RIGHT - LEFT) / len(x)
    heights = [BAR_SHARE * (BOTTOM - TOP) * n / max(samples) for n in samples]
    named = [
        {"name": line.name, "key": line.style.key, "colour": line.style.colour,
         "values": [f"{value:.2f}" if value == value else None for value in line.values]}
        for line in lines
    ]  # fmt: skip
    return {
        "key": key, "title": title, "x_label": x_label, "words": _in_words(x_label, labels, lines),
        "is_slanted": bool(samples) and len(x) > 5 and max(map(len, labels)) > 5,
        "x_ticks": list(zip(at, labels, strict=True))[every - 1 :: every],
        "y_ticks": [(to_y(value), f"{value:g}") for value in round_numbers(low, high)],
        "bars": [(round(x - width / 2, 1), round(BOTTOM - height, 1), round(width, 1), round(height, 1), compact(n))
                 for x, height, n in zip(at, heights, samples, strict=False)],
        "lines": [_line(number, line, at, list(map(to_y, line.values))) for number, line in enumerate(lines)],
        "data": {"x": at, "labels": labels, "lines": named},
    }  # fmt: skip


def _positions(x: Sequence[float] | Sequence[str]) -> list[float]:
    """Categories in the middle of equal parts of the axis, numbers along it."""
    if isinstance(x[0], str):
        return [round(LEFT + (RIGHT - LEFT) * (i + 0.5) / len(x), 1) for i in range(len(x))]
    span = x[-1] - x[0] or 1.0
    return [round(LEFT + 6 + (RIGHT - LEFT - 12) * (value - x[0]) / span, 1) for value in x]


def _line(number: int, line: Line, x: Sequence[float], y: Sequence[float]) -> tuple[Style, str, list]:
    path, previous = "", math.nan
    for point, height in zip(x, y, strict=True):
        if height == height:
            path += f"{'L' if previous == previous else 'M'}{point} {height}"
        previous = height
    marked = slice(None) if len(x) < 20 else slice(4 + number % 5, None, 10)  # not all lines at the same x
    return line.style, path, [(a, b) for a, b in list(zip(x, y, strict=True))[marked] if b == b]


def round_numbers(low: float, high: float, most: int = 6) -> list[float]:
    """Round numbers at equal distances from low to high, at most `most` + 1 of them."""
    power = 10.0 ** math.floor(math.log10((high - low) / most))
    step = next(power * factor for factor in (1, 2, 5, 10) if (high - low) / (power * factor) <= most)
    return [round(n * step, 10) for n in range(math.ceil(low / step), math.floor(high / step) + 1)]


def compact(n: int) -> str:
    """A count in few characters: 950, 1.2k, 35k."""
    return str(n) if n < 1000 else f"{n / 1000:.1f}k" if n < 9950 else f"{n / 1000:.0f}k"


def _in_words(x_label: str, labels: Sequence[str], lines: Sequence[Line]) -> str:
    """The chart's numbers, every fifth of a long line."""
    every = slice(None) if len(labels) < 20 else slice(4, None, 5)
    told = []
    for line in lines:
        points = list(zip(labels, line.values, strict=True))[every]
        told.append(f"{line.name}: " + ", ".join(f"{label}: {value:.2f}" for label, value in points if value == value))
    return f"By {x_label}. " + "; ".join(told)
