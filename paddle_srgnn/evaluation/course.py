"""The course's evaluation: lists of nearest items by cosine, and metrics of many labels per user.

Source: the pipeline of the Datawhale course. Its metrics are kept to the last bit and under their names, but for its
`ndcg@K`: that is not what the name means, so it is called `course_ndcg@K` here and the usual one stands beside it.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from types import ModuleType

import numpy as np

from .. import runtime
from ..config import Settings
from ..datasets.course import evaluation_cuts
from ..datasets.samples import SampleBatches, sample_batches
from ..datasets.sessions import Sessions
from ..errors import WorkFailed
from ..model import SRGNN
from .baselines import Baseline
from .metrics import top_k
from .ranks import progress_bar

paddle = runtime.import_paddle()

KS = (20, 50)
SCORES_AT_ONCE = 8_000_000  # 64 MB of float64
SPARE = 16  # items beyond the list's end that faiss is asked for
ROUNDING = 1e-5  # more than two products of unit vectors in float32 can differ by


def evaluate_course(
    model: SRGNN, users: Sessions, settings: Settings, ks: tuple[int, ...], label: str
) -> dict[str, float]:
    """The course's metrics of a model on users, in percent, with a progress bar.

    A user's vector is made of the `max_session_length` items before the cut at int(0.8 * length); every later item is a
    label. The list is that of `nearest_items`: the padding item is a candidate, and so are the items seen.

    Raises:
        WorkFailed: a vector is not finite: the model has diverged, and any list would be arbitrary.
    """
    with progress_bar(label, len(users)) as bar:
        lists = nearest_items(_user_vectors(model, users, settings, bar), model.item_emb.weight.numpy(), max(ks))
    return course_metrics(lists, *labels_of(users), ks)


def evaluate_baseline(baseline: Baseline, users: Sessions, ks: tuple[int, ...]) -> dict[str, float]:
    """The same metrics of a baseline's lists; the padding item is no candidate, equal scores are in order of item."""
    cuts, k = evaluation_cuts(users), min(max(ks), baseline.n_items - 1)
    rows = max(1, SCORES_AT_ONCE // baseline.n_items)
    lists = [
        1 + top_k(baseline.scores(users, cuts[first : first + rows])[:, 1:], k)[0]
        for first in range(0, len(cuts), rows)
    ]
    return course_metrics(np.concatenate(lists), *labels_of(users), ks)


def _user_vectors(model: SRGNN, users: Sessions, settings: Settings, bar) -> np.ndarray:
    """The vectors of the users' items before their cuts, float32 (users, d)."""
    was_training = model.training
    model.eval()
    vectors = []
    samples = SampleBatches(users, settings.eval_batch_size, settings.max_session_length, evaluation_cuts(users))
    with paddle.no_grad():
        for batch in sample_batches(samples):
            vectors.append(model.encode(batch.graph).numpy())  # (B, d)
            bar.update(len(vectors[-1]))
    if was_training:
        model.train()
    return np.concatenate(vectors)


def labels_of(users: Sessions) -> tuple[np.ndarray, np.ndarray]:
    """All users' labels one after another, (labels,), and how many each user has, int64 (users,)."""
    cuts = evaluation_cuts(users)
    is_label = np.arange(len(users.items)) >= np.repeat(cuts, users.lengths)
    return np.asarray(users.items)[is_label], users.offsets[1:] - cuts


def nearest_items(users: np.ndarray, items: np.ndarray, k: int) -> np.ndarray:
    """The k items of largest cosine for each user, item 0 among them, equal ones in order of their numbers.

    A cosine is the product of the vectors, normalised in float32, taken in float64 and rounded to float32. With faiss
    installed its exact index (`IndexFlatIP`) finds the candidates; the lists are the same.

    Args:
        users: float32 (n, d).
        items: float32 (m, d), item 0 first.
        k: the length of the lists; at most m.

    Returns:
        Item numbers, int64 (n, min(k, m)).

    Raises:
        WorkFailed: a vector is not finite.
    """
    from sklearn.preprocessing import normalize

    for name, vectors in (("user", users), ("item", items)):
        finite = np.isfinite(vectors).all(axis=1)
        if not finite.all():
            which = f"the vector of {name} {np.argmin(finite)}"
            raise WorkFailed(f"{which} is not finite: the model has diverged, no list means anything")
    users, items, k = normalize(users), normalize(items), min(k, len(items))
    faiss = _faiss()
    return _exact(users, items, k) if faiss is None else _by_faiss(faiss, users, items, k)


def _exact(users: np.ndarray, items: np.ndarray, k: int) -> np.ndarray:
    items = items.astype(np.float64)
    rows = max(1, SCORES_AT_ONCE // len(items))
    lists = [np.empty((0, k), dtype=np.int64)]
    for first in range(0, len(users), rows):
        cosines = users[first : first + rows].astype(np.float64) @ items.T  # (rows, m)
        lists.append(top_k(cosines.astype(np.float32), k)[0])
    return np.concatenate(lists)


def _faiss() -> ModuleType | None:
    try:
        import faiss
    except ModuleNotFoundError:
        return None
    return faiss


def _by_faiss(faiss: ModuleType, users: np.ndarray, items: np.ndarray, k: int) -> np.ndarray:
    """faiss rounds in float32: its candidates are scored anew, and where rounding may have cost one, all items are."""
    faiss.omp_set_num_threads(runtime.thread_count())  # imported after Paddle, it would use one
    index = faiss.IndexFlatIP(items.shape[1])
    index.add(items)
    found_cosines, found = index.search(users, min(k + SPARE, len(items)))  # (n, k + SPARE) each, best first
    found = np.sort(found, axis=1)
    cosines = np.einsum("nd,nkd->nk", users.astype(np.float64), items[found].astype(np.float64)).astype(np.float32)
    best, _ = top_k(cosines, k)
    lists = np.take_along_axis(found, best, axis=1)
    if found.shape[1] < len(items):
        worst_listed = np.take_along_axis(cosines, best[:, -1:], axis=1)[:, 0]  # (n,)
        doubtful = found_cosines[:, -1] > worst_listed - ROUNDING
        lists[doubtful] = _exact(users[doubtful], items, k)
    return lists


def course_metrics(lists: np.ndarray, labels: np.ndarray, n_labels: np.ndarray, ks: Iterable[int]) -> dict[str, float]:
    """recall@K, hitrate@K, course_ndcg@K and ndcg@K, each the mean over users.

    - recall@K: the share of a user's labels that are among the first K of the list. A label that occurs twice is two.
    - hitrate@K: 1 where any label is.
    - course_ndcg@K: the course's. A label that is among the K counts 1/log2(2 + its position among the user's
      labels, from 0), wherever it stands in the list; the ideal is that many labels found, at the first positions.
    - ndcg@K: the usual one. An item of the list that is a label counts 1/log2(1 + its rank, from 1); the ideal is a
      list that begins with the user's distinct labels.

    Args:
        lists: item numbers, (n, length), best first; a K beyond their length counts all.
        labels: item numbers, (labels,), one user's after another's in the order of time.
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
    # math.log to the last bit as the course computes it; its sums run from first to last, as bincount's and cumsum's.
    discount = np.array([1.0 / math.log(position + 2, 2) for position in range(max(most, lists.shape[1]))])
    ideal = np.concatenate([[0.0], np.cumsum(discount)])  # by how many are found
    rank = _ranks_in(lists, labels, user)  # (labels,) from 1
    first = np.zeros(len(labels), dtype=bool)  # where a label occurs for the first time
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
    """Where each label stands in its user's list, from 1; past any K where it does not: int64 (labels,)."""
    ranks = np.full(len(labels), np.iinfo(np.int64).max)
    for rank in range(lists.shape[1], 0, -1):
        ranks[lists[user, rank - 1] == labels] = rank
    return ranks
