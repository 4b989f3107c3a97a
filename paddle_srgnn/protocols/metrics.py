"""Ranks by counting, the best items by selection, and the metrics of one next item per sample.

The rank of a target is one more than the number of candidates that score higher. Sorting would hide two things that
counting makes explicit: what becomes of ties, and scores that are not numbers.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from ..errors import WorkFailed

TIES = {"mean": 0.5, "optimistic": 0.0, "pessimistic": 1.0}  # the share of a target's equals that counts as above it


class NotFinite(ValueError):
    """A score is NaN or infinite. Comparisons with NaN are false, so counting would give a diverged model rank 1.

    Attributes:
        row: the row of the scores.
    """

    def __init__(self, row: int, candidate: int, score: float):
        super().__init__(f"row {row}: the score of item {candidate} is {score}, expected a finite number")
        self.row = row


def count_above(scores: np.ndarray, targets: np.ndarray, first_candidate: int = 1) -> tuple[np.ndarray, np.ndarray]:
    """Count the candidates that score higher than each sample's target, and those that score the same.

    Args:
        scores: float (n, items), a row per sample and a column per item.
        targets: integers (n,), the item that came next.
        first_candidate: the columns before it are not candidates, whatever they hold; 1 leaves out the padding.

    Returns:
        How many candidates are greater, int64 (n,), and how many others are equal, int64 (n,).

    Raises:
        NotFinite: (a ValueError) a candidate's score is NaN or infinite; the message names the row.
        ValueError: a target is not a candidate.
    """
    scores, targets = np.asarray(scores), np.asarray(targets)
    outside = (targets < first_candidate) | (targets >= scores.shape[1])
    if outside.any():
        row = np.argmax(outside)
        raise ValueError(f"row {row}: target {targets[row]} is not in [{first_candidate}, {scores.shape[1]})")
    candidates = scores[:, first_candidate:]  # (n, candidates), a view
    finite = np.isfinite(candidates)
    if not finite.all():
        row, column = np.unravel_index(np.argmin(finite), finite.shape)
        raise NotFinite(int(row), int(column) + first_candidate, float(candidates[row, column]))
    of_target = scores[np.arange(len(targets)), targets][:, None]  # (n, 1)
    greater = np.count_nonzero(candidates > of_target, axis=1)
    equals = np.count_nonzero(candidates == of_target, axis=1) - 1
    return greater.astype(np.int64), equals.astype(np.int64)


def ranks(greater: np.ndarray, equals: np.ndarray, ties: str = "mean") -> np.ndarray:
    """Ranks from the counts of `count_above`.

    Args:
        greater, equals: integers (n,).
        ties: the place of a target among its equals: "mean" (the middle), "optimistic" (first) or "pessimistic" (last).

    Returns:
        Ranks from 1, float64 (n,); under "mean" they can be halves.

    Raises:
        ValueError: another word for `ties`.
    """
    if ties not in TIES:
        raise ValueError(f"ties must be one of {', '.join(TIES)}, found {ties!r}")
    return 1.0 + greater + TIES[ties] * np.asarray(equals)


def top_k(scores: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    """The columns of the k highest scores of each row and those scores, best first, equal ones by column.

    The columns of a row are dealt out to 32 k groups. The k-th highest of the groups' maxima is a bound that k scores
    reach, so the top k are among the few that reach it, and only those are sorted.

    Args:
        scores: float32 (b, V), -inf for what is excluded.
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
        raise WorkFailed("a session's scores are not finite: the model has diverged, nothing can be recommended")
    bound = np.partition(maxima, -k, axis=1)[:, -k, None]  # (b, 1)
    rows, columns = np.divmod(np.flatnonzero(scores >= bound), width)  # np.nonzero of two dimensions is slow
    values = scores[rows, columns]
    order = np.lexsort((columns, -values, rows))
    first = np.searchsorted(rows, np.arange(n_rows))  # rows ascend before and after the sort
    best = order[first[:, None] + np.arange(k)]  # (b, k)
    return columns[best], values[best]


def sample_gains(ranks: np.ndarray, ks: Iterable[int]) -> dict[str, np.ndarray]:
    """What each sample adds to P@K, MRR@K and NDCG@K, the metrics being the samples' means.

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
    """P@K, MRR@K and NDCG@K over samples with one right item each.

    A hit is a rank <= K. P@K is the share of hits: the field's name since the SR-GNN paper for what, with one right
    item, is Recall@K and HR@K as well. MRR@K is the mean of 1/rank, and NDCG@K that of 1/log2(rank + 1), the ideal
    being 1; both count 0 past K.

    Args and raises: as `sample_gains`.

    Returns:
        `{"P@5": .., "MRR@5": .., "NDCG@5": ..}` for each K, in percent.
    """
    return {name: 100.0 * float(gain.mean()) for name, gain in sample_gains(ranks, ks).items()}
