"""The best of all items for each session vector: exactly, or approximately by faiss's HNSW graph.

Both indexes have one method, `search`. It returns columns: item 1 is column 0, so the padding is never found.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from ..errors import InputError, WorkFailed
from ..kernels import in_memory, in_row_blocks, memory_of
from ..protocols.metrics import top_k
from ..runtime import import_paddle, thread_count

paddle = import_paddle()

SCORES_AT_ONCE = 25_000_000  # 100 MB of float32, whatever the number of sessions and the size of the catalogue


class Excluded(NamedTuple):
    """Items to leave out: (row, column) pairs, rows ascending."""

    rows: np.ndarray  # (E,) int64
    columns: np.ndarray  # (E,) int64


class Exact:
    """Scores every item of a table (V, d), which has a row for each item except the padding."""

    def __init__(self, table: paddle.Tensor):
        self.table = table

    def search(self, user_emb: paddle.Tensor, k: int, excluded: Excluded) -> tuple[np.ndarray, np.ndarray]:
        """The k best columns for each session vector (b, d), and their scores, best first, ties by column.

        Returns:
            columns int64 (b, k) and scores float32 (b, k), -inf where fewer than k are left.
        """
        k = min(k, len(self.table))
        columns = np.empty((len(user_emb), k), dtype=np.int64)
        values = np.empty((len(user_emb), k), dtype=np.float32)
        rows = max(1, SCORES_AT_ONCE // len(self.table))
        for first in range(0, len(user_emb), rows):
            part = slice(first, first + rows)
            scores = paddle.matmul(user_emb[part], self.table, transpose_y=True)  # (b, V)
            array = memory_of(scores) if in_memory(scores) else scores.numpy()
            inside = slice(*np.searchsorted(excluded.rows, [first, first + rows]))
            array[excluded.rows[inside] - first, excluded.columns[inside]] = -np.inf
            in_row_blocks(_into, array, columns[part], values[part])
        return columns, values


def _into(scores: np.ndarray, columns: np.ndarray, values: np.ndarray) -> None:
    columns[:], values[:] = top_k(scores, columns.shape[1])


class Hnsw:
    """Approximate: faiss's HNSW graph over the table (V, d), by inner product (Malkov and Yashunin, TPAMI 2020).

    Raises:
        InputError: faiss is not installed.
    """

    LINKS, EF_CONSTRUCTION, EF_SEARCH = 32, 200, 128

    def __init__(self, table: paddle.Tensor):
        try:
            import faiss
        except ImportError as error:
            raise InputError(f'index hnsw needs faiss ({error}): pip install -e ".[ann]", or use exact') from None
        faiss.omp_set_num_threads(thread_count())  # it would be 1, as Paddle is imported first
        self._parameters = faiss.SearchParametersHNSW
        self._index = faiss.IndexHNSWFlat(table.shape[1], self.LINKS, faiss.METRIC_INNER_PRODUCT)
        self._index.hnsw.efConstruction = self.EF_CONSTRUCTION
        self._index.add(table.numpy())

    def search(self, user_emb: paddle.Tensor, k: int, excluded: Excluded) -> tuple[np.ndarray, np.ndarray]:
        """As `Exact.search`, but some of the best columns may be missed."""
        # As many more as the most that a row has excluded.
        wanted = min(k + int(np.bincount(excluded.rows, minlength=1).max()), self._index.ntotal)
        parameters = self._parameters(efSearch=max(self.EF_SEARCH, 2 * wanted))
        values, columns = self._index.search(user_emb.numpy(), wanted, params=parameters)  # (b, wanted) each
        if not (values < np.inf).all():
            raise WorkFailed("a session's scores are not finite: the model has diverged and cannot recommend")
        values[columns < 0] = -np.inf
        pairs = np.arange(len(user_emb))[:, None] * self._index.ntotal + columns
        values[np.isin(pairs, excluded.rows * self._index.ntotal + excluded.columns)] = -np.inf
        order = np.lexsort((columns, -values), axis=1)[:, :k]
        return np.take_along_axis(columns, order, axis=1), np.take_along_axis(values, order, axis=1)
