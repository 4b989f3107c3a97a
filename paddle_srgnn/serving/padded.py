"""SR-GNN on padded item numbers, in tensor operations only, so that it can be exported."""

from __future__ import annotations

from ..model import SRGNN
from ..runtime import import_paddle

paddle = import_paddle()
nn, F = paddle.nn, paddle.nn.functional


class SessionEncoder(nn.Layer):
    """Session vectors from padded item numbers, equal to `SRGNN.encode`, with the graph built by tensor operations.

    Neither numpy nor `paddle.unique` can be exported, so this repeats what `graph` does. Every click is a node here:
    the clicks of one item have equal rows and columns, so nodes need no numbering.

    Args:
        model: the model whose weights to use.
        max_session_length: how many of a session's most recent clicks are read.
        cosine: whether to normalise the session vectors, so that their products with unit item vectors are cosines.
    """

    def __init__(self, model: SRGNN, max_session_length: int, cosine: bool = False):
        super().__init__()
        self.model = model
        self.max_session_length = max_session_length
        self.cosine = cosine
        with paddle.no_grad():
            vectors = model.output_items()[1:]  # padding is never looked up and never a candidate
        self.items = nn.Embedding(*vectors.shape)
        self.items.weight.set_value(vectors)

    def forward(self, item_seq: paddle.Tensor) -> paddle.Tensor:
        """The session vectors (B, d) of item_seq (B, L) int64 in [0, n_items): left-aligned, 0 is padding.

        Unlike `SRGNN.forward` this cannot check its input: a row without a click, or with a 0 before one, gets an
        arbitrary vector.
        """
        model = self.model
        clicks = self.recent_clicks(item_seq)  # (B, W)
        is_click = clicks != 0
        hidden = self.items((clicks - 1) * is_click.astype("int64"))  # (B, W, d), already unit vectors where asked
        hidden = model.gnn(self.connections(clicks), hidden)
        if model.positions:
            number = _counted(clicks)
            from_end = number[:, -1:] - number  # (B, W), 0 for the last click
            hidden = hidden + model.pos_emb(_at_most(from_end, model.positions - 1))
        hidden = _unit(hidden) if model.cosine_scale else hidden
        ht = hidden[:, -1]  # (B, d)
        energy = F.sigmoid(model.linear_one(ht).unsqueeze(1) + model.linear_two(hidden))  # (B, W, d)
        alpha = model.linear_three(energy) * is_click.astype("float32").unsqueeze(2)  # (B, W, 1)
        user_emb = model.linear_transform(paddle.concat([(alpha * hidden).sum(1), ht], axis=1))  # (B, d)
        if self.cosine:
            return _unit(user_emb)
        return _unit(user_emb) * model.cosine_scale if model.cosine_scale else user_emb

    def recent_clicks(self, item_seq: paddle.Tensor) -> paddle.Tensor:
        """The most recent clicks, right-aligned after at least one column of zeros: (B, L) gives (B, W), W >= 2."""
        length = (item_seq != 0).astype("int64").sum(1, keepdim=True)  # (B, 1)
        number = _counted(item_seq)
        source = number - 1 + length - number[:, -1:]  # (B, L), the left-aligned column of each click
        is_click = (source >= 0).astype("int64")
        clicks = paddle.take_along_axis(item_seq, source * is_click, 1) * is_click
        clicks = clicks[:, -self.max_session_length :]
        return paddle.concat([paddle.zeros_like(clicks[:, :1]), clicks], axis=1)

    def connections(self, clicks: paddle.Tensor) -> paddle.Tensor:
        """The matrix A (B, W, 2W) of `GNN.forward` with clicks (B, W) for nodes, [incoming | outgoing].

        Only the first of several equal transitions counts, at the clicks it starts from and ends at.
        """
        source, target = clicks[:, :-1], clicks[:, 1:]  # (B, W-1), the transitions
        number = _counted(source)
        same = _pairs_equal(source, source) & _pairs_equal(target, target)
        earlier = same & (number.unsqueeze(2) > number.unsqueeze(1))  # (B, W-1, W-1)
        is_first = (source != 0) & (earlier.astype("float32").sum(2) == 0)  # right-aligned: after a click comes a click
        weight = is_first.astype("float32").unsqueeze(1)  # (B, 1, W-1)
        incoming = _pairs_equal(clicks, target).astype("float32") * weight  # (B, W, W-1), columns are sources
        outgoing = _pairs_equal(clicks, source).astype("float32") * weight  # (B, W, W-1), columns are targets
        zeros = paddle.zeros_like(incoming[:, :, :1])  # the last click is not a source, the first column not a target
        return paddle.concat([_row_shares(incoming), zeros, zeros, _row_shares(outgoing)], axis=2)


class Ranker(nn.Layer):
    """The k best next items: item_seq (B, L) gives item numbers (B, k) int64, never 0, and their scores (B, k).

    Scores descend. The order of equal scores is up to `topk` and to rounding.
    """

    def __init__(self, encoder: SessionEncoder, k: int):
        super().__init__()
        self.encoder, self.k = encoder, k
        if encoder.cosine:
            lengths = paddle.linalg.norm(encoder.items.weight, axis=1)  # (n_items-1,)
            self.per_length = self.create_parameter(lengths.shape)
            self.per_length.set_value(1 / paddle.clip(lengths, 1e-12))

    def forward(self, item_seq: paddle.Tensor) -> tuple[paddle.Tensor, paddle.Tensor]:
        scores = paddle.matmul(self.encoder(item_seq), self.encoder.items.weight, transpose_y=True)  # (B, n_items-1)
        if self.encoder.cosine:
            scores = scores * self.per_length
        best, index = paddle.topk(scores, self.k, axis=1)
        return index + 1, best


def _unit(vectors: paddle.Tensor) -> paddle.Tensor:
    """`kernels.unit_rows` of vectors (..., d)."""
    return vectors / _at_least(paddle.sqrt((vectors * vectors).sum(-1, keepdim=True)), 1e-12)


def _counted(matrix: paddle.Tensor) -> paddle.Tensor:
    """1, 2, 3, ... along each row of a matrix (n, m), without its width, which is known only at run time."""
    return paddle.cumsum(paddle.ones_like(matrix), axis=1)


def _pairs_equal(rows: paddle.Tensor, columns: paddle.Tensor) -> paddle.Tensor:
    return rows.unsqueeze(2) == columns.unsqueeze(1)  # (B, R) and (B, C) give (B, R, C)


def _row_shares(matrix: paddle.Tensor) -> paddle.Tensor:
    return matrix / _at_least(matrix.sum(2, keepdim=True), 1.0)  # a row without edges stays 0


# Not `clip`: Paddle Inference 3.3 silently skips it on int64.
def _at_least(tensor: paddle.Tensor, low: float) -> paddle.Tensor:
    return paddle.maximum(tensor, paddle.full_like(tensor, low))


def _at_most(tensor: paddle.Tensor, high: float) -> paddle.Tensor:
    return paddle.minimum(tensor, paddle.full_like(tensor, high))
