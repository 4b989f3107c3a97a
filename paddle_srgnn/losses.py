"""The training loss: the softmax over the whole catalogue."""

from __future__ import annotations

from .runtime import import_paddle, in_row_blocks

paddle = import_paddle()


def full_softmax(
    user_emb: paddle.Tensor, item_table: paddle.Tensor, pos_item: paddle.Tensor, first_candidate: int = 0
) -> paddle.Tensor:
    """Mean cross-entropy of the next item against the rows of the table (the paper's equations 8 to 10).

    Args:
        user_emb: (B, d) float32, the session vectors.
        item_table: (V, d) float32, a row per item.
        pos_item: (B,) int64 in [first_candidate, V), each session's next item.
        first_candidate: the rows before it are no candidates, and get no gradient.

    Returns:
        A scalar tensor, in nats.
    """
    return _FullSoftmax.apply(user_emb, item_table, pos_item, first_candidate)


class _FullSoftmax(paddle.autograd.PyLayer):
    """Scores, softmax and its gradient in one buffer of (B, V) numbers.

    With a catalogue of 43 thousand items every pass over that buffer costs as much as half a matrix product. Here each
    number is written by the product, turned into the gradient in place, and read by the two products of the gradient.
    Paddle 3.3 cannot run a PyLayer's backward twice (`retain_graph=True` and then once more crashes, whatever the layer).
    """

    @staticmethod
    def forward(ctx, user_emb, item_table, pos_item, first_candidate):
        n_rows, n_items = user_emb.shape[0], item_table.shape[0]
        scores = paddle.matmul(user_emb, item_table, transpose_y=True)  # (B, V)
        padding = scores[:, :first_candidate]  # a view
        if first_candidate:
            padding.fill_(float("-inf"))
        in_row_blocks(paddle.nn.functional.softmax_, scores)
        if first_candidate:
            padding.zero_()  # Paddle's softmax leaves exp(-64) there
        own = paddle.arange(n_rows) * n_items + pos_item  # (B,), where each next item stands in the flat buffer
        flat = scores.reshape([-1])  # (B V,), a view
        probability = paddle.gather(flat, own)  # (B,)
        # d loss / d scores, but for the factor 1/B: the softmax less 1 at the next item.
        paddle.index_add_(flat, own, 0, paddle.full([n_rows], -1.0, scores.dtype))
        ctx.save_for_backward(user_emb, item_table, scores)
        return -paddle.log(paddle.clip(probability, min=1e-38)).mean()

    @staticmethod
    def backward(ctx, grad):
        user_emb, item_table, difference = ctx.saved_tensor()
        factor = grad / user_emb.shape[0]
        grad_user = grad_table = None  # as Paddle wants it for a side that is not trained
        if not user_emb.stop_gradient:
            grad_user = paddle.matmul(difference, item_table) * factor  # (B, d)
        if not item_table.stop_gradient:
            grad_table = paddle.matmul(difference, user_emb * factor, transpose_x=True)  # (V, d)
        return grad_user, grad_table, None
