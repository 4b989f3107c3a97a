"""The course's protocol: a training sample is drawn from each user in every epoch; a test user has many labels.

Source: the pipeline of the Datawhale course. Its metrics are reproduced exactly and keep their names. Only its `ndcg@K`
is called `course_ndcg@K` here, as it is not the usual NDCG; the usual one is reported too.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence

import numpy as np

from ..datasets.course import CSV_COLUMNS, evaluation_cuts, n_cuts, random_cuts
from ..datasets.sessions import SessionDataset, Sessions
from ..errors import InputError
from .paper import Measured, _known


class Course:
    """Users with all their items, measured by recall@K, hitrate@K and two NDCG@K of a test user's later items.

    The methods are those of `Paper`.
    """

    name = "course"  # in meta.json
    unit = "users"
    samples = "users"  # what the metrics are means of
    metrics = ("recall", "hitrate", "course_ndcg", "ndcg")
    ks = (20, 50)
    ties = "order of items"
    tie_rules = (ties,)
    options = ("seed",)
    columns = CSV_COLUMNS
    cosine = True  # lists are ordered by cosine

    def metric(self, name: str) -> str:
        return _known(self, name, name)

    def split(self, dataset: SessionDataset, share: float) -> tuple[Sessions, Sessions]:
        """The users to train on, and the dataset's own validation users, regardless of the share."""
        return dataset.train, dataset.valid

    def n_samples(self, train: Sessions) -> int:
        return n_cuts(train)

    def positions(self, train: Sessions, seed: int, epoch: int) -> np.ndarray:
        return random_cuts(train, seed, epoch)

    def n_measured(self, sessions: Sessions) -> int:
        return len(sessions)

    def describe(self, sessions: Sessions) -> str:
        return f"{len(sessions):,} users, {len(sessions.items):,} items"

    def measure(
        self,
        scorer,
        sessions: Sessions,
        ks: Sequence[int],
        ties: str = ties,
        keep_lists: bool = False,
        advance: Callable[[int], object] = lambda samples: None,
    ) -> Measured:
        """List the best items given every user's items before the cut, and look for the later ones.

        As `Paper.measure`, but the scorer's `best(sessions, positions, k, advance)` lists the k best items, ties are
        always in order of items, and `keep_lists` has no effect.

        Raises:
            InputError: another value of `ties`.
        """
        if ties not in self.tie_rules:
            raise InputError(f"ties={ties}: protocol {self.name} lists items of equal score in {self.ties}")
        lists = scorer.best(sessions, evaluation_cuts(sessions), max(ks), advance)
        return Measured(course_metrics(lists, *labels_of(sessions), ks))


def labels_of(users: Sessions) -> tuple[np.ndarray, np.ndarray]:
    """All users' labels, concatenated (labels,), and how many each user has, int64 (users,)."""
    cuts = evaluation_cuts(users)
    is_label = np.arange(len(users.items)) >= np.repeat(cuts, users.lengths)
    return np.asarray(users.items)[is_label], users.offsets[1:] - cuts


def course_metrics(lists: np.ndarray, labels: np.ndarray, n_labels: np.ndarray, ks: Iterable[int]) -> dict[str, float]:
    """recall@K, hitrate@K, course_ndcg@K and ndcg@K, each the mean over users.

    - recall@K: the share of a user's labels that are among the first K of the list; repeated labels count repeatedly.
    - hitrate@K: 1 if any label is among them, else 0.
    - course_ndcg@K: the course's. A label among the first K counts 1/log2(2 + its position among the user's labels,
      from 0), regardless of its rank in the list. The ideal is as many labels found, at the first positions.
    - ndcg@K: the usual one. A listed label counts 1/log2(1 + its rank, from 1). The ideal is a list that begins with
      the user's distinct labels.

    Args:
        lists: item numbers, (n, length), best first; a K above the length counts the whole list.
        labels: item numbers, (labels,), user by user in the order of time.
        n_labels: how many labels each user has, (n,), each at least 1.
        ks: the cut-offs, each >= 1.

    Returns:
        `{"recall@20": .., "hitrate@20": .., "course_ndcg@20": .., "ndcg@20": ..}` for each K, in percent.

    Raises:
        ValueError: there are no users, or a K is below 1.
    """
    if not len(lists):
        raise ValueError("metrics need at least one user, found none")
    n, most = len(n_labels), int(max(n_labels))
    user = np.repeat(np.arange(n), n_labels)  # (labels,)
    place = np.arange(len(labels)) - np.repeat(np.cumsum(n_labels) - n_labels, n_labels)  # among the user's labels
    # math.log, bincount and cumsum (which sum from first to last) give the course's figures to the last bit.
    discount = np.array([1.0 / math.log(position + 2, 2) for position in range(max(most, lists.shape[1]))])
    ideal = np.concatenate([[0.0], np.cumsum(discount)])  # by how many are found
    rank = _ranks_in(lists, labels, user)  # (labels,) from 1
    first = np.zeros(len(labels), dtype=bool)  # the first occurrence of a label
    first[np.unique(np.stack([user, labels]), axis=1, return_index=True)[1]] = True
    distinct = np.bincount(user[first], minlength=n)

    metrics = {}
    for k in sorted(set(ks)):
        if k < 1:
            raise ValueError(f"K must be at least 1, found {k}")
        hit = rank <= k
        found = np.bincount(user[hit], minlength=n)  # (n,)
        course_dcg = np.bincount(user[hit], weights=discount[place[hit]], minlength=n)
        once = hit & first
        dcg = np.bincount(user[once], weights=discount[rank[once] - 1], minlength=n)
        values = {
            "recall": found / n_labels,
            "hitrate": np.minimum(found, 1),
            "course_ndcg": course_dcg / np.where(found > 0, ideal[found], 1.0),
            "ndcg": dcg / np.cumsum(discount)[np.minimum(distinct, min(k, len(discount))) - 1],
        }
        metrics |= {f"{name}@{k}": 100.0 * (float(np.cumsum(value)[-1]) / n) for name, value in values.items()}
    return metrics


def _ranks_in(lists: np.ndarray, labels: np.ndarray, user: np.ndarray) -> np.ndarray:
    """The rank of each label in its user's list, from 1; above any K if it is not listed: int64 (labels,)."""
    ranks = np.full(len(labels), np.iinfo(np.int64).max)
    for rank in range(lists.shape[1], 0, -1):
        ranks[lists[user, rank - 1] == labels] = rank
    return ranks
