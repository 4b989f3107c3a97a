"""The ranks of a model's next items over a set of sessions, in bounded memory and without sorting the catalogue."""

from __future__ import annotations

import sys
from collections.abc import Callable

import numpy as np

from ..config import Settings
from ..datasets.samples import SampleBatches, sample_batches
from ..datasets.sessions import Sessions
from ..errors import WorkFailed
from ..model import SRGNN
from ..runtime import import_paddle, in_row_blocks, memory_of
from .metrics import ranking_metrics, ranks

paddle = import_paddle()

SCORES_AT_ONCE = 25_000_000  # 100 MB of float32, whatever the size of the catalogue


def count_ranks(
    model: SRGNN,
    sessions: Sessions,
    batch_size: int,
    max_session_length: int,
    advance: Callable[[int], object] = lambda samples: None,
) -> tuple[np.ndarray, np.ndarray]:
    """For each sample, how many items score above its target, and how many others score the same.

    Padding is never a candidate. `metrics.ranks` makes ranks of the two counts.

    Args:
        batch_size: samples encoded at once.
        max_session_length: how many of the most recent clicks are read.
        advance: called with the number of samples done after each batch.

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
                above, same = _count(user_emb[part], candidates, target[part] - 1, done + first)
                greater.append(above)
                equals.append(same)
            done += len(target)
            advance(len(target))
    if was_training:
        model.train()
    return np.concatenate(greater), np.concatenate(equals)


def _count(user_emb, candidates, target, first_sample: int) -> tuple[np.ndarray, np.ndarray]:
    """`greater` and `equals` of the samples whose vectors (b, d) and targets (b,) are given, each (b,) int64."""
    scores = paddle.matmul(user_emb, candidates, transpose_y=True)  # (b, V)
    own = paddle.gather(scores.reshape([-1]), paddle.arange(len(target)) * scores.shape[1] + target)  # (b,)
    compare = _compare_on_cpu if scores.place.is_cpu_place() else _compare
    greater, equals, finite = compare(scores, own)
    if not finite.all():
        sample = first_sample + int(np.argmin(finite))
        raise WorkFailed(
            f"the scores of sample {sample} are not finite: the model has diverged, no rank can be trusted"
        )
    return greater, equals - 1  # the target equals itself


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


def model_ranks(model: SRGNN, sessions: Sessions, settings: Settings, label: str, ties: str = "mean") -> np.ndarray:
    """The ranks (n_samples,) of a set of sessions' targets, in order of their positions, with a progress bar."""
    with progress_bar(label, sessions.n_samples) as bar:
        counts = count_ranks(model, sessions, settings.eval_batch_size, settings.max_session_length, bar.update)
    return ranks(*counts, ties=ties)


def evaluate(
    model: SRGNN, sessions: Sessions, settings: Settings, ks: tuple[int, ...], label: str, ties: str = "mean"
) -> dict[str, float]:
    """The ranking metrics of a model on a set of sessions, in percent, with a progress bar."""
    return ranking_metrics(model_ranks(model, sessions, settings, label, ties), sorted(set(ks)))


def progress_bar(label: str, total: int, done: int = 0):
    """A bar on stderr, in samples: a live one on a terminal, a line a minute in a log."""
    from tqdm import tqdm

    pause = 0.1 if sys.stderr.isatty() else 60
    look = {"unit": " samples", "unit_scale": True, "leave": False, "delay": pause, "mininterval": pause}
    return tqdm(desc=label, total=total, initial=done, **look)
