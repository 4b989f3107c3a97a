import math

import pytest

from paddle_srgnn.report.charts import BOTTOM, LEFT, RIGHT, Line, compact, line_chart, round_numbers, styles


def test_round_numbers():
    assert round_numbers(0, 72, 5) == [0, 20, 40, 60]
    assert round_numbers(5.63, 6.54, 5) == [5.8, 6.0, 6.2, 6.4]
    assert round_numbers(0, 1, 5) == [0, 0.2, 0.4, 0.6, 0.8, 1]


def test_compact_counts():
    assert [compact(n) for n in (6, 999, 1000, 9949, 9950, 35400)] == ["6", "999", "1.0k", "9.9k", "10k", "35k"]


def test_styles_differ_in_colour_and_marker():
    found = styles([True, True, *[False] * 5])
    assert len({style.colour for style in found}) == len({(style.colour, style.marker) for style in found}) == 7
    assert [bool(style.dashes) for style in found] == [False, False, *[True] * 5]


def test_a_chart_by_hand():
    (style,) = styles([True])
    found = line_chart("k", "t", "epoch", [1, 2, 3], [Line("a", style, [10.0, math.nan, 20.0])])
    middle = (LEFT + RIGHT) / 2
    assert found["data"]["x"] == [LEFT + 6, middle, RIGHT - 6]
    ((_, path, marks),) = found["lines"]
    assert path.count("M") == 2 and "L" not in path and len(marks) == 2  # a gap
    assert found["y_ticks"][0] == (BOTTOM, "0")
    assert found["words"] == "By epoch. a: 1: 10.00, 3: 20.00"
    bars = line_chart("k", "t", "x", ["a", "b"], [Line("a", style, [1.0, 2.0])], [10, 5])["bars"]
    assert [bar[3] for bar in bars] == pytest.approx([0.4 * 204, 0.2 * 204], abs=0.05) and bars[1][4] == "5"
