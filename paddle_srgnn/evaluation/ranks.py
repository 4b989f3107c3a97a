"""The ranks of a model's next items over a set of sessions, in bounded memory and without sorting the catalogue."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Callable

import numpy as np

from ..config import Settings
from ..datasets.samples import SampleBatches, sample_batches
from ..datasets.sessions import Sessions
from ..errors import WorkFailed
from ..model import SRGNN
from ..kernels import in_memory, in_row_blocks, memory_of
from ..runtime import import_paddle
from .metrics import ranking_metrics, ranks, top_k

paddle = import_paddle()

SCORES_AT_ONCE = 25_000_000  # 100 MB of float32, whatever the size of the catalogue
TOP = 20  # items in the lists that are kept


def count_ranks(
    model: SRGNN,
    sessions: Sessions,
    batch_size: int,
    max_session_length: int,
    advance: Callable[[int], object] = lambda samples: None,
    top: np.ndarray | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """For each sample, how many items score above its target, and how many others score the same.

    Padding is never a candidate. `metrics.ranks` makes ranks of the two counts.

    Args:
        batch_size: samples encoded at once.
        max_session_length: how many of the most recent clicks are read.
        advance: called with the number of samples done after each batch.
        top: integers (n_samples, k), filled in the same pass with each sample's k best items, best first.

    Returns:
        greater and equals, each (n_samples,) int64, in the order of `sessions.sample_positions()`.

    Raises:
        WorkFailed: a score is not finite: counting would give a diverged model a perfect rank.
    """
    was_training = model.training
    model.eval()
    greater, equals = [], []
    rows = max(1, SCORES_AT_ONCE // model.n_items)
    done = 0
    with paddle.no_grad():
        candidates = model.output_items()[1:]  # (V, d)
        for graph, target in sample_batches(SampleBatches(sessions, batch_size, max_session_length)):
            user_emb = model.encode(graph)  # (B, d)
            for first in range(0, len(target), rows):
                part = slice(first, first + rows)
                own_top = None if top is None else top[done:][part]
                above, same = _count(user_emb[part], candidates, target[part] - 1, done + first, own_top)
                greater.append(above)
                equals.append(same)
            done += len(target)
            advance(len(target))
    if was_training:
        model.train()
    return np.concatenate(greater), np.concatenate(equals)


def _count(user_emb, candidates, target, first_sample: int, top) -> tuple[np.ndarray, np.ndarray]:
    """`greater` and `equals` of the samples whose vectors (b, d) and targets (b,) are given, each (b,) int64.

    Their best items go into `top` (b, k), if it is given.
    """
    scores = paddle.matmul(user_emb, candidates, transpose_y=True)  # (b, V)
    own = paddle.gather(scores.reshape([-1]), paddle.arange(len(target)) * scores.shape[1] + target)  # (b,)
    compare = _compare_on_cpu if in_memory(scores, own) else _compare
    greater, equals, finite = compare(scores, own)
    if not finite.all():
        sample = first_sample + int(np.argmin(finite))
        raise WorkFailed(
            f"the scores of sample {sample} are not finite: the model has diverged, no rank can be trusted"
        )
    if top is not None and in_memory(scores):
        in_row_blocks(_select, memory_of(scores), top)
    elif top is not None:
        top[:] = 1 + paddle.topk(scores, top.shape[1])[1].numpy()
    return greater, equals - 1  # the target equals itself


def _select(scores: np.ndarray, top: np.ndarray) -> None:
    top[:] = 1 + top_k(scores, top.shape[1])[0]  # a column is an item less one, for the padding is no candidate


def _compare(scores, own) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """How many of the scores (b, V) exceed `own` (b,), how many equal it, and whether all are finite: each (b,)."""
    greater, equals = (
        paddle.count_nonzero(relation(scores, own.unsqueeze(1)), axis=1).numpy()
        for relation in (paddle.greater_than, paddle.equal)
    )
    return greater, equals, paddle.isfinite(scores.sum(axis=1)).numpy()  # a sum is finite only if all its terms are


def _compare_on_cpu(scores, own) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The same by numpy in Paddle's own memory, on every core."""

    def compare(scores: np.ndarray, own: np.ndarray, counts: np.ndarray) -> None:
        counts[:, 0] = np.count_nonzero(scores > own, axis=1)
        counts[:, 1] = np.count_nonzero(scores == own, axis=1)
        counts[:, 2] = np.isfinite(scores.sum(axis=1))

    counts = np.empty((len(own), 3), dtype=np.int64)
    in_row_blocks(compare, memory_of(scores), memory_of(own)[:, None], counts)
    return tuple(counts.T)


@dataclasses.dataclass
class Kept:
    """What a pass over the samples leaves behind besides its metrics, for whoever passes one in.

    Attributes:
        ranks: (n_samples,) float64, from 1, in order of the samples' positions.
        top: (n_samples, k) int32, each sample's best items, best first.
    """

    ranks: np.ndarray | None = None
    top: np.ndarray | None = None


def room_for_lists(sessions: Sessions, n_items: int) -> np.ndarray:
    """An array for the TOP best items of each sample, (n_samples, k) int32; k is less in a smaller catalogue."""
    return np.empty((sessions.n_samples, min(TOP, n_items - 1)), dtype=np.int32)


def model_ranks(
    model: SRGNN, sessions: Sessions, settings: Settings, label: str, ties: str = "mean", kept: Kept | None = None
) -> np.ndarray:
    """The ranks (n_samples,) of a set of sessions' targets, in order of their positions, with a progress bar."""
    top = room_for_lists(sessions, model.n_items) if kept else None
    with progress_bar(label, sessions.n_samples) as bar:
        counts = count_ranks(model, sessions, settings.eval_batch_size, settings.max_session_length, bar.update, top)
    found = ranks(*counts, ties=ties)
    if kept:
        kept.ranks, kept.top = found, top
    return found


def evaluate(
    model: SRGNN,
    sessions: Sessions,
    settings: Settings,
    ks: tuple[int, ...],
    label: str,
    ties: str = "mean",
    kept: Kept | None = None,
) -> dict[str, float]:
    """The ranking metrics of a model on a set of sessions, in percent, with a progress bar."""
    return ranking_metrics(model_ranks(model, sessions, settings, label, ties, kept), sorted(set(ks)))


def progress_bar(label: str, total: int, done: int = 0):
    """A bar on stderr, in samples: a live one on a terminal, a line a minute in a log."""
    from tqdm import tqdm

    pause = 0.1 if sys.stderr.isatty() else 60
    look = {"unit": " samples", "unit_scale": True, "leave": False, "delay": pause, "mininterval": pause}
    return tqdm(desc=label, total=total, initial=done, **look)
