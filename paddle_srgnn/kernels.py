"""The training loss: the softmax over the whole catalogue."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from .runtime import import_paddle, thread_count

paddle = import_paddle()

_CACHED = 300_000  # float32 elements that stay in a core's cache
_pool: ThreadPoolExecutor | None = None


def full_softmax(
    user_emb: paddle.Tensor,
    item_table: paddle.Tensor,
    pos_item: paddle.Tensor,
    first_candidate: int = 0,
    label_smoothing: float = 0.0,
) -> paddle.Tensor:
    """Mean cross-entropy of the next item against the rows of the table (the paper's equations 8 to 10).

    Args:
        user_emb: (B, d) float32, the session vectors.
        item_table: (V, d) float32, a row per item.
        pos_item: (B,) int64 in [first_candidate, V), each session's next item.
        first_candidate: the rows before it are no candidates, and get no gradient.
        label_smoothing: the share e of the label that is spread evenly over all candidates: the loss is 1-e times the
            next item's cross-entropy plus e times the mean of every candidate's (Szegedy et al., "Rethinking the
            Inception Architecture", CVPR 2016, section 7).

    Returns:
        A scalar tensor, in nats.
    """
    return _FullSoftmax.apply(user_emb, item_table, pos_item, first_candidate, label_smoothing)


class _FullSoftmax(paddle.autograd.PyLayer):
    """Scores, softmax and its gradient in one buffer of (B, V) numbers.

    With a catalogue of 43 thousand items every pass over that buffer costs as much as half a matrix product. Here each
    number is written by the product, exponentiated in place, and read by the two products of the gradient; what would
    take further passes, the softmax's denominator and the mean, is applied to the (B, d) factors of those products.
    Paddle 3.3 cannot run any PyLayer's backward twice: after `retain_graph=True` the second time crashes.
    """

    @staticmethod
    def forward(ctx, user_emb, item_table, pos_item, first_candidate, label_smoothing):
        n_rows, n_items = user_emb.shape[0], item_table.shape[0]
        scores = paddle.matmul(user_emb, item_table, transpose_y=True)  # (B, V)
        if first_candidate:
            scores[:, :first_candidate].fill_(float("-inf"))  # through a view
        own = paddle.arange(n_rows) * n_items + pos_item  # (B,), where each next item stands in the flat buffer
        flat = scores.reshape([-1])  # (B V,), a view
        own_score = paddle.gather(flat, own)  # (B,)
        exponentiate = _exponentiate_on_cpu if scores.place.is_cpu_place() else _exponentiate
        largest, total = exponentiate(scores)  # (B, 1) each; the scores are now the softmax's numerators
        # The gradient of the loss by the scores is (softmax - 1 at the next item) / B, so total times that is:
        paddle.index_add_(flat, own, 0, -(1 - label_smoothing) * total.squeeze(1))
        ctx.first_candidate, ctx.label_smoothing = first_candidate, label_smoothing
        loss = (paddle.log(total) + largest).mean() - (1 - label_smoothing) * own_score.mean()
        mean_item = None
        if label_smoothing:
            candidates = paddle.full([1, n_items], 1 / (n_items - first_candidate))
            candidates[:, :first_candidate] = 0.0
            mean_item = paddle.matmul(candidates, item_table)  # (1, d)
            loss -= label_smoothing * paddle.matmul(user_emb, mean_item, transpose_y=True).mean()
        ctx.save_for_backward(user_emb, item_table, scores, total, mean_item)
        return loss

    @staticmethod
    def backward(ctx, grad):
        user_emb, item_table, difference, total, mean_item = ctx.saved_tensor()
        factor = grad / (total * user_emb.shape[0])  # (B, 1)
        grad_user = grad_table = None  # as Paddle wants it for a side that is not trained
        if not user_emb.stop_gradient:
            grad_user = paddle.matmul(difference, item_table) * factor  # (B, d)
            if mean_item is not None:
                grad_user -= grad * ctx.label_smoothing / user_emb.shape[0] * mean_item
        if not item_table.stop_gradient:
            grad_table = paddle.matmul(difference, user_emb * factor, transpose_x=True)  # (V, d)
            if mean_item is not None:
                candidates = grad_table[ctx.first_candidate :]  # a view
                even = user_emb.mean(axis=0, keepdim=True) * (
                    grad * ctx.label_smoothing / candidates.shape[0]
                )  # (1, d)
                if candidates.place.is_cpu_place():
                    in_row_blocks(lambda rows: rows.subtract_(even), candidates)
                else:
                    candidates.subtract_(even)
        return grad_user, grad_table, None


def _exponentiate(scores: paddle.Tensor) -> tuple[paddle.Tensor, paddle.Tensor]:
    """Turn scores (B, V) into exp(score - the row's largest), in place; returns each row's largest and sum (B, 1)."""
    largest = scores.max(axis=1, keepdim=True)
    scores.subtract_(largest).exp_()
    return largest, scores.sum(axis=1, keepdim=True)


def _exponentiate_on_cpu(scores: paddle.Tensor) -> tuple[paddle.Tensor, paddle.Tensor]:
    """The same by numpy in Paddle's own memory, on every core: its exp is three times as fast as Paddle's on a CPU."""

    def exponentiate(scores: np.ndarray, largest: np.ndarray, total: np.ndarray) -> None:
        scores.max(axis=1, keepdims=True, out=largest)
        scores -= largest
        np.exp(scores, out=scores)
        scores.sum(axis=1, keepdims=True, out=total)

    largest, total = (paddle.empty([scores.shape[0], 1], scores.dtype) for _ in range(2))
    in_row_blocks(exponentiate, *map(memory_of, (scores, largest, total)))
    return largest, total


def unit_rows(vectors: paddle.Tensor) -> paddle.Tensor:
    """The rows of vectors (n, d) float32 divided by their Euclidean length, or by 1e-12 where that is less."""
    if vectors.place.is_cpu_place():
        return _UnitRows.apply(vectors)
    return paddle.nn.functional.normalize(vectors, axis=1)


class _UnitRows(paddle.autograd.PyLayer):
    """`unit_rows` by numpy in Paddle's own memory, on every core: on the item table several times as fast."""

    @staticmethod
    def forward(ctx, vectors):
        def divide(vectors: np.ndarray, unit: np.ndarray, length: np.ndarray) -> None:
            length[:, 0] = np.maximum(np.sqrt(np.einsum("nd,nd->n", vectors, vectors)), 1e-12)
            np.divide(vectors, length, out=unit)

        vectors = vectors.contiguous()
        unit, length = paddle.empty_like(vectors), paddle.empty([vectors.shape[0], 1])
        in_row_blocks(divide, *map(memory_of, (vectors, unit, length)))
        ctx.save_for_backward(unit, length)
        return unit

    @staticmethod
    def backward(ctx, grad):
        """Of the gradient (n, d) what is across the unit vector, divided by the length."""

        def project(grad: np.ndarray, unit: np.ndarray, length: np.ndarray, result: np.ndarray) -> None:
            np.multiply(unit, np.einsum("nd,nd->n", grad, unit)[:, None], out=result)
            np.subtract(grad, result, out=result)
            result /= length

        unit, length = ctx.saved_tensor()
        grad = grad.contiguous()
        result = paddle.empty_like(grad)
        in_row_blocks(project, *map(memory_of, (grad, unit, length, result)))
        return result


def in_row_blocks(operation: Callable, *matrices) -> None:
    """Apply an operation that works row by row and in place to large matrices on the CPU: tensors or numpy arrays.

    The operation gets blocks of rows, which are views, small enough to stay in a core's cache between its passes over
    them. Paddle's and numpy's kernels for such operations use one thread and release Python's lock, so every core works
    on its own blocks; the result is the same.
    """
    global _pool
    threads = thread_count()
    n_rows, width = matrices[0].shape
    rows = max(1, _CACHED // width)

    def work(start: int, stop: int) -> None:
        for first in range(start, stop, rows):
            operation(*(matrix[first : min(first + rows, stop)] for matrix in matrices))

    if threads == 1 or n_rows * width < _CACHED:
        work(0, n_rows)
        return
    if _pool is None:
        # A new thread would compute on Paddle's default device.
        _pool = ThreadPoolExecutor(threads, initializer=paddle.set_device, initargs=("cpu",))
    bounds = [n_rows * part // threads for part in range(threads + 1)]
    list(_pool.map(work, bounds[:-1], bounds[1:]))


def memory_of(tensor) -> np.ndarray:
    """The memory of a contiguous float32 tensor on the CPU as a numpy array, valid while the tensor is alive.

    `numpy.from_dlpack` would do, were its arrays not read-only with Paddle 3.0.
    """
    buffer = (ctypes.c_float * tensor.size).from_address(tensor.data_ptr())
    return np.frombuffer(buffer, dtype=np.float32).reshape(tensor.shape)
