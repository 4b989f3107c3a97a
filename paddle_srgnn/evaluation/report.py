"""Results as tables."""

from __future__ import annotations

from collections.abc import Mapping, Sequence


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


def intervals_table(results: Sequence[tuple[str, Mapping]], metrics: Sequence[str]) -> str:
    """A numbered row for each named result: the given metrics, each with its interval, in percent."""
    header = ["intervals of 95 %, over sessions", *(cell for metric in metrics for cell in (metric, ""))]
    rows = []
    for number, (name, result) in enumerate(results, start=1):
        cells = []
        for metric in metrics:
            low, high = result["intervals"][metric]
            cells += [result["metrics"][metric], f"[{low:.2f}, {high:.2f}]"]
        rows.append([f"{number} {name}", *cells])
    return format_table(header, rows)


def tests_table(tests: Sequence[Mapping], names: Sequence[str]) -> str:
    """A row for each pair of results, by their numbers: the difference of each metric and its p-value after Holm."""
    metrics = list(dict.fromkeys(test["metric"] for test in tests))
    header = ["differences, p after Holm", *(cell for metric in metrics for cell in (metric, "p"))]
    rows: dict[str, list] = {}
    for test in tests:
        pair = f"{names.index(test['a']) + 1} - {names.index(test['b']) + 1}"
        rows.setdefault(pair, [pair]).extend([f"{test['difference']:+.2f}", f"{test['p_holm']:.4f}"])
    return format_table(header, list(rows.values()))
