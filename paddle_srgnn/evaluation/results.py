"""Results, and tables of them in plain text."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from ..datasets.sessions import Sessions
from .metrics import ranking_metrics
from .statistics import session_intervals


@dataclasses.dataclass(frozen=True)
class Result:
    """What an evaluation found.

    Attributes:
        name: a checkpoint's path as it was given, or a baseline's name.
        samples: how many the metrics are over.
        metrics: in percent, "P@20" and so on.
        intervals: of the metrics where they were computed, (low, high).
        error: why there are no metrics.
        sessions, ranks: what was ranked, and the ranks (samples,) float64, where there are ranks.
        top: the lists (samples, k), item numbers, int32, best first, where they were kept.
        origin: of a checkpoint.
        is_bound: it is no contender, but what none can beat.
    """

    name: str
    samples: int = 0
    metrics: Mapping[str, float] = dataclasses.field(default_factory=dict)
    intervals: Mapping[str, tuple[float, float]] = dataclasses.field(default_factory=dict)
    error: str | None = None
    sessions: Sessions | None = None
    ranks: np.ndarray | None = None
    top: np.ndarray | None = None
    origin: object | None = None
    is_bound: bool = False


def result_of(
    name: str, sessions: Sessions, ranks: np.ndarray, ks: Iterable[int], top: np.ndarray | None = None, **more: object
) -> Result:
    """The metrics and intervals of ranks.

    Args:
        sessions: what was ranked.
        ranks: (samples,), from 1, in order of the samples' positions.
        ks: the cut-offs.
        top: the `Result`'s lists.
        more: the `Result`'s origin and is_bound.
    """
    ks = sorted(set(ks))
    intervals = session_intervals(ranks, session_labels(sessions), ks)
    return Result(name, len(ranks), ranking_metrics(ranks, ks), intervals, None, sessions, ranks, top, **more)


def session_labels(sessions: Sessions) -> np.ndarray:
    """What the samples of a session have in common: where it starts, int64 (samples,)."""
    return sessions.sample_starts(sessions.sample_positions())


def format_table(header: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """A table in plain text: the first column to the left, figures to the right with two decimals.

    A row of two cells under a longer header is a name and what there is to say instead of figures.
    """
    cells = [list(header)] + [[f"{cell:.2f}" if isinstance(cell, float) else str(cell) for cell in row] for row in rows]
    whole = [row for row in cells if len(row) == len(header)]
    widths = [max(map(len, column)) for column in zip(*whole, strict=True)]
    widths[0] = max(len(row[0]) for row in cells)
    cells = [row if len(row) < len(header) else [row[0], *map(str.rjust, row[1:], widths[1:])] for row in cells]
    lines = ["  ".join([row[0].ljust(widths[0]), *row[1:]]).rstrip() for row in cells]
    return "\n".join([lines[0], "  ".join("-" * width for width in widths), *lines[1:]])


def metrics_table(results: Sequence[tuple[str, Mapping[str, float] | str]]) -> str:
    """A row of metrics in percent for each named result, the same ones for all, or the words on why it has none."""
    header = ["", *next(metrics for _, metrics in results if not isinstance(metrics, str))]
    return format_table(header, [[name, *([m] if isinstance(m, str) else m.values())] for name, m in results])


def intervals_table(results: Sequence[Result], metrics: Sequence[str]) -> str:
    """A numbered row for each result: the given metrics, each with its interval, in percent."""
    header = ["intervals of 95 %, over sessions", *(cell for metric in metrics for cell in (metric, ""))]
    rows = []
    for number, result in enumerate(results, start=1):
        cells = []
        for metric in metrics:
            low, high = result.intervals[metric]
            cells += [result.metrics[metric], f"[{low:.2f}, {high:.2f}]"]
        rows.append([f"{number} {result.name}", *cells])
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
