"""Ranks by counting, the best items by selection, and the metrics of one next item per sample.

The rank of a target is one more than the number of candidates that score higher. Unlike sorting, counting makes the
treatment of ties explicit, and scores that are not finite.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from ..errors import WorkFailed

TIES = {"mean": 0.5, "optimistic": 0.0, "pessimistic": 1.0}  # the share of a target's equals that counts as above it


def count_above(scores: np.ndarray, targets: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Count the candidates that score higher than each sample's target, and those that score the same.

    Args:
        scores: float (n, items), a row per sample and a column per item. Column 0, the padding, is not a candidate.
        targets: integers (n,), the item that came next.

    Returns:
        How many candidates are greater, int64 (n,), and how many others are equal, int64 (n,).

    Raises:
        WorkFailed: a candidate's score is not finite. Comparisons with NaN are false, so it would get rank 1.
        ValueError: a target is not a candidate.
    """
    outside = (targets < 1) | (targets >= scores.shape[1])
    if outside.any():
        row = np.argmax(outside)
        raise ValueError(f"row {row}: target {targets[row]} is not in [1, {scores.shape[1]})")
    candidates = scores[:, 1:]  # (n, candidates), a view
    finite = np.isfinite(candidates)
    if not finite.all():
        row, column = np.unravel_index(np.argmin(finite), finite.shape)
        score = candidates[row, column]
        raise WorkFailed(f"row {row}: the score of item {column + 1} is {score}, expected a finite number")
    of_target = scores[np.arange(len(targets)), targets][:, None]  # (n, 1)
    greater = np.count_nonzero(candidates > of_target, axis=1)
    equals = np.count_nonzero(candidates == of_target, axis=1) - 1
    return greater.astype(np.int64), equals.astype(np.int64)


def ranks(greater: np.ndarray, equals: np.ndarray, ties: str = "mean") -> np.ndarray:
    """Ranks from the counts of `count_above`.

    Args:
        greater, equals: integers (n,).
        ties: the place of a target among equal scores: "mean" (middle), "optimistic" (first) or "pessimistic" (last).

    Returns:
        Ranks from 1, float64 (n,); under "mean" they can be halves.

    Raises:
        ValueError: `ties` is unknown.
    """
    if ties not in TIES:
        raise ValueError(f"ties must be one of {', '.join(TIES)}, found {ties!r}")
    return 1.0 + greater + TIES[ties] * np.asarray(equals)


def top_k(scores: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    """The columns of the k highest scores of each row and those scores, best first, ties by column.

    The columns of a row are split into 32 k groups. At least k scores reach the k-th highest of the groups' maxima, so
    the top k are among the few scores that do, and only those are sorted.

    Args:
        scores: float32 (b, V), -inf for excluded columns.
        k: from 1 to V.

    Returns:
        columns int64 (b, k) and scores float32 (b, k).

    Raises:
        WorkFailed: a score is NaN or +inf.
    """
    n_rows, width = scores.shape
    n_groups = min(width, 32 * k)
    whole = width - width % n_groups
    maxima = scores[:, :whole].reshape(n_rows, -1, n_groups).max(axis=1)  # (b, groups)
    rest = width - whole
    np.maximum(maxima[:, :rest], scores[:, whole:], out=maxima[:, :rest])
    if not (maxima < np.inf).all():
        raise WorkFailed("a session's scores are not finite: the model has diverged and cannot recommend")
    bound = np.partition(maxima, -k, axis=1)[:, -k, None]  # (b, 1)
    rows, columns = np.divmod(np.flatnonzero(scores >= bound), width)  # np.nonzero of two dimensions is slow
    values = scores[rows, columns]
    order = np.lexsort((columns, -values, rows))
    first = np.searchsorted(rows, np.arange(n_rows))  # rows ascend before and after the sort
    best = order[first[:, None] + np.arange(k)]  # (b, k)
    return columns[best], values[best]


def sample_gains(ranks: np.ndarray, ks: Iterable[int]) -> dict[str, np.ndarray]:
    """Each sample's contribution to P@K, MRR@K and NDCG@K, which are the means over samples.

    Args:
        ranks: (n,), from 1.
        ks: the cut-offs, each >= 1.

    Returns:
        `{"P@5": .., "MRR@5": .., "NDCG@5": ..}` for each K, each float64 (n,), from 0 to 1.

    Raises:
        ValueError: there are no samples, or a K is below 1.
    """
    ranks = np.asarray(ranks, dtype=np.float64)
    if not len(ranks):
        raise ValueError("metrics need at least one sample, found none")
    gains = {}
    for k in ks:
        if k < 1:
            raise ValueError(f"K must be at least 1, found {k}")
        hits = ranks <= k  # (n,)
        of_a_hit = {"P": np.ones_like(ranks), "MRR": 1.0 / ranks, "NDCG": 1.0 / np.log2(ranks + 1.0)}
        gains |= {f"{name}@{k}": hits * gain for name, gain in of_a_hit.items()}
    return gains


def ranking_metrics(ranks: np.ndarray, ks: Iterable[int]) -> dict[str, float]:
    """P@K, MRR@K and NDCG@K over samples with one relevant item each.

    A hit is a rank <= K. P@K is the share of hits, as in the SR-GNN paper; with one relevant item it equals Recall@K
    and HR@K. MRR@K is the mean of 1/rank and NDCG@K the mean of 1/log2(rank + 1), with 0 for ranks above K.

    Arguments and errors are those of `sample_gains`.

    Returns:
        `{"P@5": .., "MRR@5": .., "NDCG@5": ..}` for each K, in percent.
    """
    return {name: 100.0 * float(gain.mean()) for name, gain in sample_gains(ranks, ks).items()}
