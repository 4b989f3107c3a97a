"""Results of evaluations, and tables of them in plain text."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterable, Mapping, Sequence

import numpy as np

import paddle_srgnn  # loads pandas only where a dataset has to be loaded

from ..datasets.sessions import SessionDataset, Sessions
from ..errors import InputError, WorkFailed
from ..protocols import Protocol, protocol_of
from ..protocols.paper import Measured
from ..run import Run
from .baselines import Baseline, BaselineScorer
from .ranks import ModelScorer, progress_bar
from .statistics import session_intervals


@dataclasses.dataclass(frozen=True)
class Result:
    """What an evaluation found.

    Attributes:
        name: the path of the run as it was given, or the baseline's name.
        samples: how many the metrics are means of; under the course's protocol these are users.
        metrics: in percent, by names such as "P@20".
        intervals: 95 % intervals (low, high) by metric; empty under a protocol without ranks.
        error: why the evaluation failed; None if it succeeded.
        sessions: the sessions that were ranked.
        ranks: (samples,) float64, from 1; None under a protocol without ranks.
        top: (samples, k) int32, the best items of each sample, best first, where they were kept.
        run: what was evaluated; None for a baseline.
        is_bound: whether this is an upper bound and not a contender.
        unfinished: the progress of a training that is not complete, such as "epoch 2 of 5"; "" for any other.
    """

    name: str
    samples: int = 0
    metrics: Mapping[str, float] = dataclasses.field(default_factory=dict)
    intervals: Mapping[str, tuple[float, float]] = dataclasses.field(default_factory=dict)
    error: str | None = None
    sessions: Sessions | None = None
    ranks: np.ndarray | None = None
    top: np.ndarray | None = None
    run: Run | None = None
    is_bound: bool = False
    unfinished: str = ""

    @property
    def title(self) -> str:
        """The name, with a warning where the training is not complete."""
        return f"{self.name} (unfinished: {self.unfinished})" if self.unfinished else self.name


def evaluate(
    what: Run | Baseline | str | os.PathLike,
    data: SessionDataset | str | os.PathLike | None = None,
    ks: Iterable[int] | None = None,
    *,
    split: str = "test",
    ties: str | None = None,
    keep_lists: bool = False,
    label: str | None = None,
) -> Result:
    """Measure a run or a baseline as the dataset's protocol says, with a progress bar on stderr.

    Args:
        what: a run, its path or a checkpoint's path, or one of `baselines(data)`.
        data: a dataset, its folder or "sample"; None for the one that the run was trained on.
        ks: the cut-offs; None for the protocol's.
        split: "test", or "valid" for the validation sessions of the run.
        ties: the rank of a target among items of equal score: "mean" (None), "optimistic" or "pessimistic".
        keep_lists: whether to keep the best items of each sample, which `report` shows.
        label: of the progress bar.

    Raises:
        InputError: no such run, it does not fit the data, or it has no such split.
        WorkFailed: a score is not finite: the model has diverged.
    """
    if hasattr(what, "scores"):
        if data is None:
            raise InputError(f"{what.name}: a baseline needs the dataset to be measured on")
        dataset = data if isinstance(data, SessionDataset) else paddle_srgnn.load_dataset(data)
        name, scorer, sessions, run = what.name, BaselineScorer(what), _part(dataset, split, 0.0, what.name), None
    else:
        run = what if isinstance(what, Run) else Run(what)
        dataset, checkpoint = run.load_dataset(data), run.checkpoint()
        sessions = _part(dataset, split, checkpoint.settings.valid_fraction, run.name)
        name, scorer = run.name, ModelScorer(run.model(), checkpoint.settings)
    protocol = protocol_of(dataset)
    with progress_bar(label or name, protocol.n_measured(sessions)) as bar:
        try:
            found = protocol.measure(scorer, sessions, ks or protocol.ks, ties or protocol.ties, keep_lists, bar.update)
        except WorkFailed as error:
            raise WorkFailed(f"{run.find_checkpoint() if run else name}: {error}") from None
    result = result_of(name, protocol, sessions, found, run, getattr(what, "is_bound", False))
    return dataclasses.replace(result, unfinished=_unfinished(run)) if run else result


def _unfinished(run: Run) -> str:
    try:
        if run.is_finished:
            return ""
        last = run.checkpoint("last")
    except InputError:  # what is reported is validation's choice, and the last checkpoint is missing or damaged
        return "unknown progress"
    return f"epoch {last.progress.epoch} of {last.settings.epochs}"


def _part(dataset: SessionDataset, split: str, valid_fraction: float, name: str) -> Sessions:
    if split not in ("test", "valid"):
        raise InputError(f"split={split}: expected test or valid")
    sessions = dataset.test if split == "test" else protocol_of(dataset).split(dataset, valid_fraction)[1]
    if sessions is None:
        raise InputError(f"{name}: no validation set, as it was trained without one (valid_fraction=0)")
    return sessions


def result_of(
    name: str, protocol: Protocol, sessions: Sessions, found: Measured, run: Run | None = None, is_bound: bool = False
) -> Result:
    """The `Result` of what a pass over the samples of these sessions found."""
    intervals = {}
    if found.ranks is not None:
        ks = sorted({int(metric.partition("@")[2]) for metric in found.metrics})
        intervals = session_intervals(found.ranks, session_labels(sessions), ks)
    return Result(
        name, protocol.n_measured(sessions), found.metrics, intervals, None, sessions, found.ranks, found.top, run,
        is_bound,
    )  # fmt: skip


def mean_and_deviation(results: Sequence[Result]) -> list[tuple[str, dict[str, float]]]:
    """Each metric's mean over results of different seeds, and for two or more results its standard deviation."""
    values = np.array([list(result.metrics.values()) for result in results])  # (seeds, metrics)
    found = {"mean": values.mean(axis=0)}
    if len(values) > 1:
        found["standard deviation"] = values.std(axis=0, ddof=1)  # of a run, not of the mean
    return [(name, dict(zip(results[0].metrics, row.tolist(), strict=True))) for name, row in found.items()]


def session_labels(sessions: Sessions) -> np.ndarray:
    """A label for each sample that the samples of a session share: where it starts, int64 (samples,)."""
    return sessions.sample_starts(sessions.sample_positions())


def format_table(header: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """A table in plain text: the first column left-aligned, the others right-aligned, floats with two decimals.

    A row shorter than the header holds a name and a message instead of figures.
    """
    cells = [list(header)] + [[f"{cell:.2f}" if isinstance(cell, float) else str(cell) for cell in row] for row in rows]
    whole = [row for row in cells if len(row) == len(header)]
    widths = [max(map(len, column)) for column in zip(*whole, strict=True)]
    widths[0] = max(len(row[0]) for row in cells)
    cells = [row if len(row) < len(header) else [row[0], *map(str.rjust, row[1:], widths[1:])] for row in cells]
    lines = ["  ".join([row[0].ljust(widths[0]), *row[1:]]).rstrip() for row in cells]
    return "\n".join([lines[0], "  ".join("-" * width for width in widths), *lines[1:]])


def metrics_table(results: Sequence[tuple[str, Mapping[str, float] | str]]) -> str:
    """A row for each named result: its metrics in percent, the same for all, or a message on why it has none."""
    header = ["", *next(metrics for _, metrics in results if not isinstance(metrics, str))]
    return format_table(header, [[name, *([m] if isinstance(m, str) else m.values())] for name, m in results])


def intervals_table(results: Sequence[Result], metrics: Sequence[str]) -> str:
    """A numbered row for each result: the given metrics in percent, each with its interval."""
    rows = [["intervals of 95 %, over sessions", *(cell for metric in metrics for cell in (metric, ""))]]
    for number, result in enumerate(results, start=1):
        rows.append([f"{number} {result.title}"])
        for metric in metrics:
            low, high = result.intervals[metric]
            rows[-1] += [result.metrics[metric], f"[{low:.2f}, {high:.2f}]"]
    return format_table(rows[0], rows[1:])


def tests_table(tests: Sequence[Mapping], names: Sequence[str]) -> str:
    """A row for each pair of results, by their numbers: the difference of each metric and its p-value after Holm."""
    metrics = list(dict.fromkeys(test["metric"] for test in tests))
    header = ["differences, p after Holm", *(cell for metric in metrics for cell in (metric, "p"))]
    rows: dict[str, list] = {}
    for test in tests:
        pair = f"{names.index(test['a']) + 1} - {names.index(test['b']) + 1}"
        rows.setdefault(pair, [pair]).extend([f"{test['difference']:+.2f}", f"{test['p_holm']:.4f}"])
    return format_table(header, list(rows.values()))
