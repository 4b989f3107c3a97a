"""Confidence intervals by the bootstrap and significance by permutation tests, over sessions.

The samples of a session share its clicks and are not independent, so whole sessions are drawn or flipped.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Mapping, Sequence

import numpy as np

from ..protocols.metrics import sample_gains

AT_ONCE = 1 << 21  # sessions drawn at a time, over several repetitions: 16 MB for each array of them


def session_intervals(
    ranks: np.ndarray,
    session_of_sample: np.ndarray,
    ks: Iterable[int],
    level: float = 0.95,
    resamples: int = 1000,
    seed: int = 0,
) -> dict[str, tuple[float, float]]:
    """Percentile bootstrap intervals of the ranking metrics over sessions (Efron & Tibshirani 1993, chapter 13).

    Each resample draws as many sessions as there are, with replacement.

    Args:
        ranks: (n,), from 1.
        session_of_sample: (n,), a label shared by the samples of a session.
        ks: the cut-offs, each >= 1.
        level: the share of the resamples' metrics inside the interval.
        resamples: the number of resamples.
        seed: of the resamples, which draw the same sessions for every result.

    Returns:
        `{"P@20": (low, high), ..}` with the keys of `ranking_metrics`, in percent.

    Raises:
        ValueError: as `sample_gains`; or the numbers of labels and ranks differ.
    """
    gains = sample_gains(ranks, ks)
    per_session = _sum_by_session([*gains.values(), np.ones(len(ranks))], session_of_sample)  # (sessions, metrics + 1)
    n_sessions = len(per_session)

    def draw(rng: np.random.Generator, n: int) -> np.ndarray:
        drawn = rng.integers(0, n_sessions, (n, n_sessions)) + np.arange(n)[:, None] * n_sessions
        return np.bincount(drawn.ravel(), minlength=n * n_sessions).reshape(n, n_sessions)  # how often each was drawn

    sums = _repeat(draw, per_session, resamples, seed)  # (resamples, metrics + 1)
    metrics = 100.0 * sums[:, :-1] / sums[:, -1:]
    low, high = np.quantile(metrics, [(1 - level) / 2, (1 + level) / 2], axis=0)
    return {name: (float(a), float(b)) for name, a, b in zip(gains, low, high, strict=True)}


def paired_tests(
    ranks: Mapping[str, np.ndarray],
    session_of_sample: np.ndarray,
    metrics: Sequence[str] = ("P@20", "MRR@20"),
    permutations: int = 10_000,
    seed: int = 0,
) -> list[dict]:
    """Two-sided paired permutation tests between every two results, flipping the signs of sessions' differences.

    Under the null hypothesis either sign of a session's difference is equally likely. `p` is the share of random signs
    whose absolute sum of differences reaches the observed one, which counts as one of them
    ((1 + reached) / (1 + permutations), Phipson & Smyth 2010), so it is never 0. `p_holm` is corrected after Holm
    (1979) over all pairs of the same metric; the metrics are separate families.

    Args:
        ranks: each result's ranks (n,), of the same samples in the same order.
        session_of_sample: (n,), a label shared by the samples of a session.
        metrics: such as "P@20".
        permutations: the number of random assignments of signs, which are the same for every pair.
        seed: of the signs.

    Returns:
        For each metric and pair `{"metric", "a", "b", "difference", "p", "p_holm"}`: the difference is a minus b in
        percentage points.

    Raises:
        ValueError: as `sample_gains`; the results have different numbers of samples; or an unknown metric.
    """
    pairs = list(itertools.combinations(ranks, 2))
    if not pairs:
        return []
    ks = sorted({int(metric.partition("@")[2]) for metric in metrics})
    per_result = {}
    for name, of_result in ranks.items():
        gains = sample_gains(of_result, ks)
        if unknown := [metric for metric in metrics if metric not in gains]:
            raise ValueError(f"unknown metric {unknown[0]}: expected P, MRR or NDCG with a K, such as P@20")
        per_result[name] = _sum_by_session([gains[metric] for metric in metrics], session_of_sample)
    # (sessions, pairs x metrics), a pair's metrics side by side
    differences = np.concatenate([per_result[a] - per_result[b] for a, b in pairs], axis=1)
    found = differences.sum(axis=0)
    same = 1e-12 * np.abs(differences).sum(axis=0)  # sums that differ only by rounding count as equal

    def reach(rng: np.random.Generator, n: int) -> np.ndarray:
        bits = np.frombuffer(rng.bytes(n * -(-len(differences) // 8)), dtype=np.uint8).reshape(n, -1)
        return np.unpackbits(bits, axis=1, count=len(differences))  # 1: sign kept, 0: sign flipped

    sums = 2 * _repeat(reach, differences, permutations, seed) - found  # (permutations, pairs x metrics)
    reached = np.count_nonzero(np.abs(sums) >= np.abs(found) - same, axis=0)
    p = ((1 + reached) / (1 + permutations)).reshape(len(pairs), len(metrics))
    points = (100.0 * found / len(session_of_sample)).reshape(p.shape)
    return [
        {"metric": metric, "a": a, "b": b, "difference": float(points[row, column]), "p": float(p[row, column]),
         "p_holm": float(corrected)}
        for column, metric in enumerate(metrics)
        for row, ((a, b), corrected) in enumerate(zip(pairs, holm(p[:, column]), strict=True))
    ]  # fmt: skip


def holm(p: np.ndarray) -> np.ndarray:
    """Holm's step-down correction of p-values (n,) for the error rate of the whole family."""
    order = np.argsort(p)
    factors = np.arange(len(p), 0, -1)  # n for the smallest, n - 1 for the next, ...
    corrected = np.empty(len(p))
    corrected[order] = np.minimum(1.0, np.maximum.accumulate(p[order] * factors))
    return corrected


def _sum_by_session(columns: Sequence[np.ndarray], session_of_sample: np.ndarray) -> np.ndarray:
    """Each column (n,) summed over the samples of each session: (sessions, columns)."""
    if any(len(column) != len(session_of_sample) for column in columns):
        raise ValueError(f"found {len(session_of_sample)} session labels for {len(columns[0])} ranks")
    _, session = np.unique(session_of_sample, return_inverse=True)  # (n,) from 0
    return np.stack([np.bincount(session, column) for column in columns], axis=1)


def _repeat(
    draw: Callable[[np.random.Generator, int], np.ndarray], per_session: np.ndarray, times: int, seed: int
) -> np.ndarray:
    """Sums of `per_session` (sessions, columns) with the weights `draw(rng, n)` (n, sessions): (times, columns)."""
    rng = np.random.default_rng(seed)
    rows = max(1, AT_ONCE // len(per_session))
    parts = [draw(rng, min(rows, times - done)).astype(np.float64) @ per_session for done in range(0, times, rows)]
    return np.concatenate(parts)
