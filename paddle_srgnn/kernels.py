"""Fast paths by numpy in Paddle's own memory: the loss over the whole catalogue, unit rows, L2 and averaged weights.

Each takes contiguous float32 tensors on the CPU, which `in_memory` checks in one place, and computes anything else with
plain Paddle. What runs in the threads of the pool is numpy alone: a thread has Paddle's default device, which may be a
GPU, and `paddle.set_device` would change it for the whole process.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from .runtime import import_paddle, thread_count

paddle = import_paddle()
F = paddle.nn.functional

_CACHED = 300_000  # float32 elements that stay in a core's cache
_VIEWS = "FLAGS_use_stride_kernel"
_pool: ThreadPoolExecutor | None = None


def in_memory(*tensors: paddle.Tensor) -> bool:
    """Whether numpy can work on the tensors' memory: contiguous float32 on the CPU, and Paddle's views share memory."""
    return paddle.get_flags(_VIEWS)[_VIEWS] and all(
        tensor.dtype == paddle.float32 and tensor.place.is_cpu_place() and tensor.is_contiguous() for tensor in tensors
    )


def memory_of(tensor: paddle.Tensor) -> np.ndarray:
    """The tensor's memory as a numpy array, valid while the tensor is alive.

    `numpy.from_dlpack` would do, were its arrays not read-only with Paddle 3.0.

    Raises:
        ValueError: the tensor's memory is not what `in_memory` asks for.
    """
    if not in_memory(tensor):
        raise ValueError(
            f"cannot read a tensor's memory: {tensor.dtype} on {tensor.place}, expected contiguous float32 on the CPU"
        )
    buffer = (ctypes.c_float * tensor.size).from_address(tensor.data_ptr())
    return np.frombuffer(buffer, dtype=np.float32).reshape(tensor.shape)


def in_row_blocks(operation: Callable, *matrices: np.ndarray) -> None:
    """Apply an operation that works row by row and in place to large matrices.

    The operation gets blocks of rows, which are views, small enough to stay in a core's cache between its passes over
    them. numpy uses one thread and releases Python's lock, so every core works on its own blocks; the result is the
    same. The operation must not call Paddle.
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
        _pool = ThreadPoolExecutor(threads)
    bounds = [n_rows * part // threads for part in range(threads + 1)]
    list(_pool.map(work, bounds[:-1], bounds[1:]))


def full_softmax(
    user_emb: paddle.Tensor,
    item_table: paddle.Tensor,
    pos_item: paddle.Tensor,
    first_candidate: int = 0,
    label_smoothing: float = 0.0,
) -> paddle.Tensor:
    """Mean cross-entropy of the next item against the rows of the table (the paper's equations 8 to 10).

    Args:
        user_emb: (B, d), the session vectors.
        item_table: (V, d), a row per item.
        pos_item: (B,) int64 in [first_candidate, V), each session's next item.
        first_candidate: the rows before it are not candidates and get no gradient.
        label_smoothing: the share e of the label that is spread evenly over all candidates: the loss is 1-e times the
            next item's cross-entropy plus e times the mean of every candidate's (Szegedy et al., "Rethinking the
            Inception Architecture", CVPR 2016, section 7).

    Returns:
        A scalar tensor, in nats.
    """
    if in_memory(user_emb, item_table):
        return _FullSoftmax.apply(user_emb, item_table, pos_item, first_candidate, label_smoothing)
    scores = paddle.matmul(user_emb, item_table[first_candidate:], transpose_y=True)  # (B, candidates)
    loss = F.cross_entropy(scores, pos_item - first_candidate)
    if not label_smoothing:
        return loss
    even = (paddle.logsumexp(scores, axis=1) - scores.mean(axis=1)).mean()  # every candidate's mean cross-entropy
    return (1 - label_smoothing) * loss + label_smoothing * even


class _FullSoftmax(paddle.autograd.PyLayer):
    """Scores, softmax and its gradient in one buffer of (B, V) numbers.

    With a catalogue of 43 thousand items every pass over that buffer costs as much as half a matrix product. Here each
    number is written by the product, exponentiated in place, and read by the two products of the gradient; what would
    take further passes, the softmax's denominator and the mean, is applied to the (B, d) factors of those products.
    numpy's exp is three times as fast as Paddle's on a CPU.
    Paddle 3.3 cannot run any PyLayer's backward twice: after `retain_graph=True` the second time crashes.
    """

    @staticmethod
    def forward(ctx, user_emb, item_table, pos_item, first_candidate, label_smoothing):
        n_rows, n_items = user_emb.shape[0], item_table.shape[0]

        def exponentiate(scores: np.ndarray, largest: np.ndarray, total: np.ndarray) -> None:
            scores.max(axis=1, keepdims=True, out=largest)
            scores -= largest
            np.exp(scores, out=scores)
            scores.sum(axis=1, keepdims=True, out=total)

        scores = paddle.matmul(user_emb, item_table, transpose_y=True)  # (B, V)
        numerators = memory_of(scores)
        numerators[:, :first_candidate] = -np.inf
        own = np.arange(n_rows), pos_item.numpy()
        own_score = paddle.to_tensor(numerators[own])  # (B,)
        largest, total = paddle.empty([n_rows, 1], scores.dtype), paddle.empty([n_rows, 1], scores.dtype)
        in_row_blocks(exponentiate, numerators, memory_of(largest), memory_of(total))
        # The gradient of the loss by the scores is (softmax - 1 at the next item) / B, so total times that is:
        numerators[own] -= (1 - label_smoothing) * memory_of(total)[:, 0]
        ctx.first_candidate, ctx.label_smoothing = first_candidate, label_smoothing
        loss = (paddle.log(total) + largest).mean() - (1 - label_smoothing) * own_score.mean()
        mean_item = None
        if label_smoothing:
            candidates = np.full([1, n_items], 1 / (n_items - first_candidate), np.float32)
            candidates[:, :first_candidate] = 0.0
            mean_item = paddle.matmul(paddle.to_tensor(candidates), item_table)  # (1, d)
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
                candidates = memory_of(grad_table)[ctx.first_candidate :]
                even = user_emb.mean(axis=0, keepdim=True) * (grad * ctx.label_smoothing / len(candidates))  # (1, d)
                even = even.numpy()
                in_row_blocks(lambda rows: np.subtract(rows, even, out=rows), candidates)
        return grad_user, grad_table, None


def unit_rows(vectors: paddle.Tensor) -> paddle.Tensor:
    """The rows of vectors (n, d) divided by their Euclidean length, or by 1e-12 where that is less."""
    return _UnitRows.apply(vectors) if in_memory(vectors) else F.normalize(vectors, axis=1)


class _UnitRows(paddle.autograd.PyLayer):
    """`unit_rows` on every core: on the item table several times as fast as Paddle's."""

    @staticmethod
    def forward(ctx, vectors):
        def divide(vectors: np.ndarray, unit: np.ndarray, length: np.ndarray) -> None:
            length[:, 0] = np.maximum(np.sqrt(np.einsum("nd,nd->n", vectors, vectors)), 1e-12)
            np.divide(vectors, length, out=unit)

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


def sparse_lookup(indices: paddle.Tensor, table: paddle.Tensor) -> paddle.Tensor:
    """`F.embedding(indices, table, padding_idx=0)` for a loss that reads the whole table besides.

    The gradient of `F.embedding` is a second matrix as large as the table, which Paddle fills with zeros and adds to
    the loss's. Here it has only the rows that were looked up, and Paddle adds them in place; each row's share is summed
    up first, so that the result is the same to the bit. Without another, dense gradient, the table's would stay sparse,
    and Paddle's Adam cannot be trusted with that.

    Args:
        indices: (n,) int64.
        table: (V, d).

    Returns:
        (n, d), zeros where the index is 0.
    """
    if not in_memory(table):
        return F.embedding(indices, table, padding_idx=0)
    distinct, inverse = np.unique(indices.numpy(), return_inverse=True)
    rows = F.embedding(paddle.to_tensor(distinct), table, sparse=True)  # (distinct, d)
    return F.embedding(paddle.to_tensor(inverse), rows, padding_idx=None if distinct[0] else 0)


def add_l2(parameters: Sequence[paddle.Tensor], weight_decay: float) -> None:
    """Add the gradient of the L2 penalty to that of every parameter, as the authors' Adam does.

    Paddle's `weight_decay=L2Decay(..)` computes the same in three passes on one thread: on the item table, longer than
    Adam itself.
    """

    def add(grad: np.ndarray, weight: np.ndarray) -> None:
        grad += weight * weight_decay

    if not weight_decay:
        return
    with paddle.no_grad():
        for parameter in parameters:
            grad = parameter.grad
            if _is_table(grad, parameter):
                in_row_blocks(add, memory_of(grad), memory_of(parameter))
            else:
                grad.add_(parameter * weight_decay)


def average(averaged: paddle.nn.Layer, model: paddle.nn.Layer, decay: float, updates: int) -> None:
    """Move the averaged weights towards the model's, whose share in the `updates`-th update is 1 - the decay.

    The decay is that of an exponential moving average (Polyak and Juditsky, 1992, average evenly), but smaller in the
    first updates, (1 + n) / (10 + n), so that the average soon forgets the initialisation.
    """
    share = 1 - min(decay, (1 + updates) / (10 + updates))

    def move(mean: np.ndarray, weight: np.ndarray) -> None:
        mean += (weight - mean) * share

    with paddle.no_grad():
        for mean, weight in zip(averaged.parameters(), model.parameters(), strict=True):
            if _is_table(mean, weight):
                in_row_blocks(move, memory_of(mean), memory_of(weight))
            else:
                mean.add_((weight - mean) * share)


def _is_table(*tensors: paddle.Tensor) -> bool:
    """Whether row blocks pay: a Paddle call on a small parameter takes less time than reaching its memory."""
    return tensors[0].ndim == 2 and tensors[0].size >= _CACHED and in_memory(*tensors)
