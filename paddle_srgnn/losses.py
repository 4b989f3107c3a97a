"""The training loss: the softmax over the whole catalogue."""

from __future__ import annotations

from .runtime import import_paddle

paddle = import_paddle()


def full_softmax(user_emb: paddle.Tensor, item_table: paddle.Tensor, pos_item: paddle.Tensor) -> paddle.Tensor:
    """Mean cross-entropy of the next item against every row of the table (the paper's equations 8 to 10).

    Args:
        user_emb: (B, d) float32, the session vectors.
        item_table: (V, d) float32, the candidates.
        pos_item: (B,) integers in [0, V), the row of each session's next item.

    Returns:
        A scalar tensor, in nats.
    """
    scores = paddle.matmul(user_emb, item_table, transpose_y=True)  # (B, V)
    return paddle.nn.functional.cross_entropy(scores, pos_item)
