"""Results as tables."""

from __future__ import annotations

from collections.abc import Sequence


def format_table(header: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """A table in plain text: the first column to the left, figures to the right with two decimals."""
    cells = [list(header)] + [[f"{cell:.2f}" if isinstance(cell, float) else str(cell) for cell in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    lines = ["  ".join([row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])]).rstrip() for row in cells]
    return "\n".join([lines[0], "  ".join("-" * width for width in widths), *lines[1:]])


def metrics_table(results: Sequence[tuple[str, dict[str, float]]]) -> str:
    """A row of metrics in percent for each named result; all have the same metrics."""
    header = ["", *results[0][1]]
    return format_table(header, [[name, *metrics.values()] for name, metrics in results])
