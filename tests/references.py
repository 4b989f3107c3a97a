"""An SR-GNN of its own for tests to compare with: padded batches, graphs by plain loops, one class for each mistake.

`SRGNN` computes what the reference computes. The others each have one thing wrong, as somebody's port might.
"""

from itertools import pairwise

import numpy as np
import paddle
from paddle import nn
from paddle.nn import functional as F


class Gated(nn.Layer):
    def __init__(self, d, step):
        super().__init__()
        self.d, self.step = d, step
        self.w_ih, self.w_hh = self.create_parameter([2 * d, 3 * d]), self.create_parameter([d, 3 * d])
        self.b_ih, self.b_hh = self.create_parameter([3 * d]), self.create_parameter([3 * d])
        self.b_iah, self.b_ioh = self.create_parameter([d]), self.create_parameter([d])
        self.linear_edge_in, self.linear_edge_out = nn.Linear(d, d), nn.Linear(d, d)

    def forward(self, A, h):
        length = A.shape[1]
        for _ in range(self.step):
            incoming = A[:, :, :length] @ self.linear_edge_in(h) + self.b_iah
            outgoing = A[:, :, length:] @ self.linear_edge_out(h) + self.b_ioh
            x_r, x_z, x_n = (paddle.concat([incoming, outgoing], -1) @ self.w_ih + self.b_ih).split(3, -1)
            h_r, h_z, h_n = (h @ self.w_hh + self.b_hh).split(3, -1)
            new = F.tanh(x_n + F.sigmoid(x_r + h_r) * h_n)
            h = self.mixed(F.sigmoid(x_z + h_z), h, new)
        return h

    def mixed(self, z, h, new):
        return (1 - z) * h + z * new


class SRGNN(nn.Layer):
    gated = Gated

    def __init__(self, config):
        super().__init__()
        d = config["embedding_dim"]
        self.item_emb = nn.Embedding(config["n_items"], d, padding_idx=0)
        self.gnn = self.gated(d, config["step"])
        self.linear_one, self.linear_two, self.linear_transform = nn.Linear(d, d), nn.Linear(d, d), nn.Linear(2 * d, d)
        self.linear_three = nn.Linear(d, 1, bias_attr=False)

    def _get_slice(self, item_seq):
        rows = item_seq.numpy()
        n_rows, length = rows.shape
        alias = np.zeros((n_rows, length), dtype=np.int64)
        items = np.zeros((n_rows, length), dtype=np.int64)
        A = np.zeros((n_rows, length, 2 * length), dtype=np.float32)
        for b, row in enumerate(rows.tolist()):
            nodes = sorted(set(row))
            items[b, : len(nodes)] = nodes
            alias[b] = [nodes.index(item) for item in row]
            clicks = [nodes.index(item) for item in row if item]
            edges = set(pairwise(clicks))
            for u, v in edges:
                A[b, v, u] = 1 / self.degree([w for w, x in edges if x == v])
                A[b, u, length + v] = 1 / self.degree([x for w, x in edges if w == u])
        return tuple(map(paddle.to_tensor, (alias, self.sided(A), items, (rows > 0).astype(np.int32))))

    def degree(self, neighbours):
        return len(neighbours)

    def sided(self, A):
        return A

    def forward(self, item_seq, mask, item, train=True):
        alias, A, items, mask = self._get_slice(item_seq)
        rows = paddle.arange(len(alias)).unsqueeze(1)
        clicks = self.gnn(A, self.item_emb(items))[rows, alias]
        is_click = mask.astype("float32").unsqueeze(2)
        last = clicks[rows.squeeze(1), mask.sum(1) - 1]
        alpha = self.linear_three(F.sigmoid(self.linear_one(last).unsqueeze(1) + self.linear_two(clicks)))
        user_emb = self.linear_transform(paddle.concat([(alpha * clicks * is_click).sum(1), last], -1))
        if not train:
            return {"user_emb": user_emb}
        return {"user_emb": user_emb, "loss": F.cross_entropy(user_emb @ self.item_emb.weight.T, item)}


class InAndOutSwapped(SRGNN):
    def sided(self, A):
        incoming, outgoing = np.split(A, 2, axis=2)
        return np.concatenate([outgoing, incoming], axis=2)


class NotNormalised(SRGNN):
    def degree(self, neighbours):
        return 1


class OtherSense(Gated):
    def mixed(self, z, h, new):
        return z * h + (1 - z) * new


class GateReversed(SRGNN):
    gated = OtherSense


class UntrainedItems(SRGNN):
    """The scores' gradient does not reach the item table."""

    def forward(self, item_seq, mask, item, train=True):
        output = super().forward(item_seq, mask, item, train)
        table = self.item_emb.weight.detach()
        return output | {"loss": F.cross_entropy(output["user_emb"] @ table.T, item)}


class WrongOnLongRows(SRGNN):
    def forward(self, item_seq, mask, item, train=True):
        if item_seq.shape[1] > 50:
            raise ValueError("too long\nfor this port")
        return super().forward(item_seq, mask, item, train)


class NotANumber(SRGNN):
    def forward(self, item_seq, mask, item, train=True):
        output = super().forward(item_seq, mask, item, train)
        return output | {"user_emb": output["user_emb"] * float("nan")}


class NormalisedOverTheBatch(SRGNN):
    """Batch normalisation of the session vectors with the batch's own mean and variance, in evaluation too."""

    def forward(self, item_seq, mask, item, train=True):
        output = super().forward(item_seq, mask, item, train)
        vectors = output["user_emb"]
        scaled = (vectors - vectors.mean(0)) / (vectors.var(0, unbiased=False) + 1e-5).sqrt()
        return output | {"user_emb": scaled}


class MixedWithItsNeighbour(SRGNN):
    """Adds a little of the session before it in the batch, only where it scores."""

    def forward(self, item_seq, mask, item, train=True):
        output = super().forward(item_seq, mask, item, train)
        vectors = output["user_emb"]
        return output if train else output | {"user_emb": vectors + 0.01 * vectors.roll(1, axis=0)}


class ReadsTheTarget(SRGNN):
    """Adds a little of the target's vector, only where it scores."""

    def forward(self, item_seq, mask, item, train=True):
        output = super().forward(item_seq, mask, item, train)
        return output if train else output | {"user_emb": output["user_emb"] + 0.01 * self.item_emb(item)}


class AnotherShape(SRGNN):
    def _get_slice(self, item_seq):
        alias, A, items, mask = super()._get_slice(item_seq)
        return alias, A, items, mask.unsqueeze(2)

    def forward(self, item_seq, mask, item, train=True):
        twin = SRGNN._get_slice
        self._get_slice, own = (lambda rows: twin(self, rows)), self._get_slice
        try:
            return super().forward(item_seq, mask, item, train)
        finally:
            self._get_slice = own


class AnotherStateDict(SRGNN):
    def __init__(self, config):
        super().__init__(config)
        self.linear_two = nn.Linear(config["embedding_dim"], config["embedding_dim"], bias_attr=False)
        self.extra = nn.Linear(1, 1, bias_attr=False)


class CannotBeMade(SRGNN):
    def __init__(self, config):
        super().__init__(config)
        self.width = config["hidden_size"]


class AnotherInterface(nn.Layer):
    def __init__(self, n_items, d):
        super().__init__()


class NoLayer:
    pass
