"""The ranks of a model's next items over a set of sessions, in bounded memory and without sorting the catalogue."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator

import numpy as np
from tqdm import tqdm

from ..config import Settings
from ..datasets.samples import SampleBatches, sample_batches
from ..datasets.sessions import Sessions
from ..errors import WorkFailed
from ..kernels import in_memory, in_row_blocks, memory_of
from ..model import SRGNN
from ..protocols.metrics import top_k
from ..runtime import import_paddle

paddle = import_paddle()

SCORES_AT_ONCE = 25_000_000  # 100 MB of float32, whatever the size of the catalogue
COSINES_AT_ONCE = 8_000_000  # 64 MB of float64


def count_ranks(
    model: SRGNN,
    sessions: Sessions,
    batch_size: int,
    max_session_length: int,
    advance: Callable[[int], object] = lambda samples: None,
    top: np.ndarray | None = None,
    positions: np.ndarray | None = None,
    vectors: np.ndarray | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """For each sample, how many items score above its target, and how many others score the same.

    Padding is not a candidate. `metrics.ranks` turns the counts into ranks.

    Args:
        batch_size: samples encoded at once.
        max_session_length: how many of the most recent clicks are read.
        advance: called after each batch with its number of samples.
        top: integers (n_samples, k), filled in the same pass with each sample's k best items, best first.
        positions: (n_samples,) the targets of the samples to rank, in this order; None for
            `sessions.sample_positions()`.
        vectors: float32 (n_samples, d), filled with the session vectors.

    Returns:
        greater and equals, each (n_samples,) int64, in the order of the positions.

    Raises:
        WorkFailed: a score is not finite: counting would give a diverged model perfect ranks.
    """
    greater, equals = [], []
    rows = max(1, SCORES_AT_ONCE // model.n_items)
    done = 0
    with evaluating(model):
        candidates = model.output_items()[1:]  # (V, d)
        for graph, target in sample_batches(SampleBatches(sessions, batch_size, max_session_length, positions)):
            user_emb = model.encode(graph)  # (B, d)
            if vectors is not None:
                vectors[done : done + len(target)] = user_emb.numpy()
            for first in range(0, len(target), rows):
                part = slice(first, first + rows)
                own_top = None if top is None else top[done:][part]
                above, same = _count(user_emb[part], candidates, target[part] - 1, done + first, own_top)
                greater.append(above)
                equals.append(same)
            done += len(target)
            advance(len(target))
    return np.concatenate(greater), np.concatenate(equals)


def _count(user_emb, candidates, target, first_sample: int, top) -> tuple[np.ndarray, np.ndarray]:
    """`greater` and `equals` of some samples' vectors (b, d) and targets (b,), each (b,) int64; fills `top` (b, k)."""
    scores = paddle.matmul(user_emb, candidates, transpose_y=True)  # (b, V)
    own = paddle.gather(scores.reshape([-1]), paddle.arange(len(target)) * scores.shape[1] + target)  # (b,)
    compare = _compare_on_cpu if in_memory(scores, own) else _compare
    greater, equals, finite = compare(scores, own)
    if not finite.all():
        sample = first_sample + int(np.argmin(finite))
        raise WorkFailed(f"the scores of sample {sample} are not finite: the model has diverged and cannot be ranked")
    if top is not None and in_memory(scores):
        in_row_blocks(_select, memory_of(scores), top)
    elif top is not None:
        top[:] = 1 + paddle.topk(scores, top.shape[1])[1].numpy()
    return greater, equals - 1  # the target equals itself


def _select(scores: np.ndarray, top: np.ndarray) -> None:
    top[:] = 1 + top_k(scores, top.shape[1])[0]  # column 0 is item 1


def _compare(scores, own) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """How many of the scores (b, V) exceed `own` (b,), how many equal it, and whether all are finite: each (b,)."""
    own = own.unsqueeze(1)
    greater, equals = (paddle.count_nonzero(found, axis=1).numpy() for found in (scores > own, scores == own))
    return greater, equals, paddle.isfinite(scores.sum(axis=1)).numpy()  # a sum is finite only if all its terms are


def _compare_on_cpu(scores, own) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """As `_compare`, by numpy in Paddle's own memory, on every core."""

    def compare(scores: np.ndarray, own: np.ndarray, counts: np.ndarray) -> None:
        counts[:, 0] = np.count_nonzero(scores > own, axis=1)
        counts[:, 1] = np.count_nonzero(scores == own, axis=1)
        counts[:, 2] = np.isfinite(scores.sum(axis=1))

    counts = np.empty((len(own), 3), dtype=np.int64)
    in_row_blocks(compare, memory_of(scores), memory_of(own)[:, None], counts)
    return tuple(counts.T)


class ModelScorer:
    """Counts and lists a model's scores for the protocols, with the `eval_batch_size` and length of the settings."""

    def __init__(self, model: SRGNN, settings: Settings):
        self.model, self.n_items = model, model.n_items
        self.batch_size, self.max_session_length = settings.eval_batch_size, settings.max_session_length

    def count(self, sessions: Sessions, advance: Callable, top: np.ndarray | None) -> tuple[np.ndarray, np.ndarray]:
        """As `count_ranks`."""
        return count_ranks(self.model, sessions, self.batch_size, self.max_session_length, advance, top)

    def best(self, sessions: Sessions, positions: np.ndarray, k: int, advance: Callable) -> np.ndarray:
        """The k items nearest to the clicks before each position (n,), as `nearest_items`: int64 (n, k)."""
        samples = SampleBatches(sessions, self.batch_size, self.max_session_length, positions)
        return nearest_items(session_vectors(self.model, samples, advance), self.model.item_emb.weight.numpy(), k)


def session_vectors(
    model: SRGNN, samples: SampleBatches, advance: Callable[[int], object] = lambda samples: None
) -> np.ndarray:
    """The session vectors of samples in their order, float32 (n_samples, d)."""
    vectors = []
    with evaluating(model):
        for batch in sample_batches(samples):
            vectors.append(model.encode(batch.graph).numpy())  # (B, d)
            advance(len(vectors[-1]))
    return np.concatenate(vectors)


@contextlib.contextmanager
def evaluating(model: SRGNN) -> Iterator[None]:
    """Evaluation mode without gradients inside the `with` block."""
    was_training = model.training
    model.eval()
    try:
        with paddle.no_grad():
            yield
    finally:
        if was_training:
            model.train()


def nearest_items(users: np.ndarray, items: np.ndarray, k: int) -> np.ndarray:
    """The k items of largest cosine for each user, item 0 included, ties by number.

    The vectors are normalised in float32, multiplied in float64, and the cosines rounded to float32.

    Args:
        users: float32 (n, d).
        items: float32 (m, d), item 0 first.

    Returns:
        Item numbers, int64 (n, min(k, m)).

    Raises:
        WorkFailed: a vector is not finite.
    """
    for name, vectors in (("user", users), ("item", items)):
        finite = np.isfinite(vectors).all(axis=1)
        if not finite.all():
            raise WorkFailed(f"the vector of {name} {np.argmin(finite)} is not finite: the model has diverged")
    users, items = _unit(users), _unit(items).astype(np.float64)
    rows = max(1, COSINES_AT_ONCE // len(items))
    lists = [np.empty((0, min(k, len(items))), dtype=np.int64)]
    for first in range(0, len(users), rows):
        cosines = users[first : first + rows].astype(np.float64) @ items.T  # (rows, m)
        lists.append(top_k(cosines.astype(np.float32), lists[0].shape[1])[0])
    return np.concatenate(lists)


def _unit(vectors: np.ndarray) -> np.ndarray:
    """Unit rows (n, d), zero vectors unchanged: scikit-learn's `normalize`, which takes 2 s to import."""
    length = np.sqrt(np.einsum("nd,nd->n", vectors, vectors))[:, None]  # (n, 1)
    return vectors / np.where(length == 0, np.float32(1), length)


def progress_bar(label: str, total: int, done: int = 0):
    """A bar on stderr, in samples: live on a terminal, a line a minute in a log."""
    pause = 0.1 if sys.stderr.isatty() else 60
    look = {"unit": " samples", "unit_scale": True, "leave": False, "delay": pause, "mininterval": pause}
    return tqdm(desc=label, total=total, initial=done, **look)
