"""The GNN and SRGNN layers, under the reference's names.

Sources: Wu et al., "Session-based Recommendation with Graph Neural Networks", AAAI 2019 (arXiv:1811.00855), and the
Datawhale reference implementation, whose names, signatures, state-dict keys and return values are kept.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import partial

import numpy as np

from .graph import PackedGraph, packed_graph, padded_graph, unpad
from .kernels import full_softmax, sparse_lookup, unit_rows
from .runtime import import_paddle

paddle = import_paddle()
nn, F = paddle.nn, paddle.nn.functional


class GNN(nn.Layer):
    """A gated graph layer (the paper's equations 1 to 5; Li et al., "Gated Graph Sequence Neural Networks", ICLR 2016).

    Args:
        embedding_size: d, the width of node vectors.
        step: how often messages are passed; every step has the same parameters.
    """

    def __init__(self, embedding_size: int, step: int = 1):
        super().__init__()
        self.step = step
        self.embedding_size = embedding_size
        self.input_size = embedding_size * 2
        self.gate_size = embedding_size * 3

        self.w_ih = self.create_parameter(shape=[self.input_size, self.gate_size])
        self.w_hh = self.create_parameter(shape=[self.embedding_size, self.gate_size])
        self.b_ih = self.create_parameter(shape=[self.gate_size])
        self.b_hh = self.create_parameter(shape=[self.gate_size])
        self.b_iah = self.create_parameter(shape=[self.embedding_size])
        self.b_ioh = self.create_parameter(shape=[self.embedding_size])

        self.linear_edge_in = nn.Linear(self.embedding_size, self.embedding_size)
        self.linear_edge_out = nn.Linear(self.embedding_size, self.embedding_size)

    def GNNCell(self, A: paddle.Tensor, hidden: paddle.Tensor) -> paddle.Tensor:
        """One step on padded graphs: A (B, L, 2L) and hidden (B, L, d) give (B, L, d)."""
        L = A.shape[1]
        input_in = paddle.matmul(A[:, :, :L], self.linear_edge_in(hidden)) + self.b_iah  # (B, L, d)
        input_out = paddle.matmul(A[:, :, L:], self.linear_edge_out(hidden)) + self.b_ioh  # (B, L, d)
        return self._gated(paddle.concat([input_in, input_out], axis=-1), hidden)

    def forward(self, A: paddle.Tensor, hidden: paddle.Tensor) -> paddle.Tensor:
        """All steps on padded graphs: A (B, L, 2L) and hidden (B, L, d) give (B, L, d)."""
        for _ in range(self.step):
            hidden = self.GNNCell(A, hidden)
        return hidden

    def propagate(self, graph: PackedGraph, hidden: paddle.Tensor) -> paddle.Tensor:
        """All steps on packed graphs, equal to `forward` on the padded ones: hidden (N, d) gives (N, d)."""
        edge_in, edge_out = self.linear_edge_in, self.linear_edge_out
        edge_weight = paddle.concat([edge_in.weight, edge_out.weight], axis=1)  # (d, 2d)
        edge_bias = paddle.concat([edge_in.bias, edge_out.bias])  # (2d,)
        bias = paddle.concat([self.b_iah, self.b_ioh])  # (2d,)
        message_weight = graph.message_weight.unsqueeze(1)  # (M, 1)
        for _ in range(self.step):
            sent = (paddle.matmul(hidden, edge_weight) + edge_bias).reshape([-1, self.embedding_size])  # (2N, d)
            messages = F.embedding(graph.message_from, sent) * message_weight  # (M, d)
            received = paddle.index_add(paddle.zeros_like(sent), graph.message_to, 0, messages)  # (2N, d)
            hidden = self._gated(received.reshape([-1, self.input_size]) + bias, hidden)  # (N, d)
        return hidden

    def _gated(self, inputs: paddle.Tensor, hidden: paddle.Tensor) -> paddle.Tensor:
        """The gates: inputs (..., 2d) and hidden (..., d) give the next hidden (..., d).

        The input gate has the reference's (and RecBole's) sense, (1-z)h + zn; the authors' code exchanges z and 1-z.
        """
        n_gates = 2 * self.embedding_size  # the columns of the reset and the input gate; the new state's follow
        gates = paddle.matmul(inputs, self.w_ih[:, :n_gates]) + paddle.matmul(hidden, self.w_hh[:, :n_gates])
        reset_gate, input_gate = F.sigmoid(gates + (self.b_ih + self.b_hh)[:n_gates]).chunk(2, -1)  # (..., d) each
        i_n = paddle.matmul(inputs, self.w_ih[:, n_gates:]) + self.b_ih[n_gates:]  # (..., d)
        h_n = paddle.matmul(hidden, self.w_hh[:, n_gates:]) + self.b_hh[n_gates:]  # (..., d)
        new_gate = paddle.tanh(i_n + reset_gate * h_n)
        return hidden + input_gate * (new_gate - hidden)


class SRGNN(nn.Layer):
    r"""Ranks the next item of a session, seen as a directed graph of its items.

    For the session 1, 2, 3, 2, 4 the connection matrix is [incoming | outgoing]:

        ====  ===  ===  ===  ===     ====  ===  ===  ===  ===
        in     1    2    3    4      out    1    2    3    4
        ====  ===  ===  ===  ===     ====  ===  ===  ===  ===
         1     0    0    0    0       1     0    1    0    0
         2    1/2   0   1/2   0       2     0    0   1/2  1/2
         3     0    1    0    0       3     0    1    0    0
         4     0    1    0    0       4     0    0    0    0
        ====  ===  ===  ===  ===     ====  ===  ===  ===  ===

    Args:
        config: a mapping with the reference's keys `embedding_dim` (d), `step`, and `n_items` (padding item 0
            included), and the switches below; other keys are ignored, as the reference does.

            - `initialization`: "paddle" (the default, and what the reference really does: it builds initialisers
              without applying them), or "uniform": U(-1/sqrt(d), 1/sqrt(d)) for every parameter, as the authors do.
            - `score_item_zero`: whether the padding item is a candidate; True by default, as in the reference.
            - `cosine_scale`: where it is not 0, a score is that times the cosine between session and item, and nodes
              and clicks are unit vectors too, before the graph network and before the readout (Gupta et al., "NISER:
              Normalized Item and Session Representations", 2019): popular items cannot win by their vectors' length.
            - `dropout`: probability with which each number of the node vectors is zeroed before the graph network,
              the others growing to make up for it; in training mode only (as NISER).
            - `positions`: where it is not 0, the n-th click from the session's end has the n-th row of a table of that
              many added to its vector after the graph network (reversed positions: Wang et al., "GCE-GNN", SIGIR
              2020, which concatenates them); clicks further back share the last row.
            - `label_smoothing`: the share of the label that is spread over all candidates, see `losses.full_softmax`.

    Raises:
        ValueError: a key is missing or a value impossible.
    """

    def __init__(self, config: Mapping):
        super().__init__()
        for key in ("embedding_dim", "step", "n_items"):
            if not isinstance(config.get(key), (int, np.integer)) or config[key] < 1:
                raise ValueError(f"SRGNN config: {key} must be an integer >= 1, found {config.get(key)!r}")
        self.config = config
        self.embedding_size = config["embedding_dim"]
        self.step = config["step"]
        self.n_items = config["n_items"]
        self.initialization = config.get("initialization", "paddle")
        self.score_item_zero = config.get("score_item_zero", True)
        if self.initialization not in ("paddle", "uniform"):
            raise ValueError(f"SRGNN config: initialization must be paddle or uniform, found {self.initialization!r}")
        self.cosine_scale = config.get("cosine_scale", 0.0)
        self.dropout = config.get("dropout", 0.0)
        self.positions = config.get("positions", 0)
        self.label_smoothing = config.get("label_smoothing", 0.0)
        for key in ("cosine_scale", "positions"):
            if getattr(self, key) < 0:
                raise ValueError(f"SRGNN config: {key} must be 0 (off) or more, found {getattr(self, key)}")
        for key in ("dropout", "label_smoothing"):
            if not 0 <= getattr(self, key) < 1:
                raise ValueError(f"SRGNN config: {key} must be in [0, 1), found {getattr(self, key)}")

        # A lookup of item 0 gives zeros and trains nothing, yet its row is trained where it is scored.
        self.item_emb = nn.Embedding(self.n_items, self.embedding_size, padding_idx=0)
        self.gnn = GNN(self.embedding_size, self.step)
        self.linear_one = nn.Linear(self.embedding_size, self.embedding_size)
        self.linear_two = nn.Linear(self.embedding_size, self.embedding_size)
        self.linear_three = nn.Linear(self.embedding_size, 1, bias_attr=False)
        self.linear_transform = nn.Linear(self.embedding_size * 2, self.embedding_size)
        if self.positions:
            self.pos_emb = nn.Embedding(self.positions, self.embedding_size)
        self.loss_fun = full_softmax

        self.reset_parameters()

    def reset_parameters(self, initializer: nn.initializer.Initializer | None = None) -> None:
        """Initialise every parameter with `initializer`; by default as the switch `initialization` says.

        With "paddle" that is nothing: Paddle's own initialisation of each parameter stands, as in the reference.
        """
        if initializer is None:
            if self.initialization == "paddle":
                return
            bound = 1 / math.sqrt(self.embedding_size)
            initializer = nn.initializer.Uniform(-bound, bound)
        for parameter in self.parameters():
            initializer(parameter)
        with paddle.no_grad():
            self.item_emb.weight[0] = 0.0  # as nn.Embedding leaves it

    def forward(self, item_seq, mask=None, item=None, train: bool = True) -> dict[str, paddle.Tensor]:
        """The reference's interface.

        Args:
            item_seq: (B, L) integers, sessions left-aligned and padded with 0.
            mask: ignored, as the reference does.
            item: (B,) integers, the next items; only read when `train`.
            train: whether to compute the loss.

        Returns:
            {"user_emb": (B, d)}, and with `train` {"loss": scalar} too.

        Raises:
            ValueError: a row has no clicks, or a 0 before a click, or an id is outside [0, n_items).
        """
        clicks, lengths = unpad(_as_numpy(item_seq), self.n_items)
        graph = PackedGraph(*map(paddle.to_tensor, packed_graph(clicks, lengths)))
        output = {"user_emb": self.encode(graph)}
        if train:
            if item is None:
                raise ValueError("the loss needs the next items: pass item, or train=False")
            item = _as_numpy(item)
            lowest = 0 if self.score_item_zero else 1
            if item.min() < lowest or item.max() >= self.n_items:
                raise ValueError(
                    f"the next item must be in [{lowest}, {self.n_items}), found {item.min()} to {item.max()}"
                )
            output["loss"] = self.calculate_loss(output["user_emb"], paddle.to_tensor(item))
        return output

    def encode(self, graph: PackedGraph, sparse_gradient: bool = False) -> paddle.Tensor:
        """The session vectors (B, d) of a batch of packed graphs, whose arrays are tensors (equations 1 to 7).

        Their products with `output_items()` are the scores.

        Args:
            sparse_gradient: a faster backward, only for a loss that reads the whole table, as `calculate_loss` does.
        """
        unit = unit_rows if self.cosine_scale else lambda vectors: vectors
        lookup = sparse_lookup if sparse_gradient else partial(F.embedding, padding_idx=0)
        hidden = unit(lookup(graph.items, self.item_emb.weight))  # (N, d)
        hidden = F.dropout(hidden, self.dropout, training=self.training)
        hidden = self.gnn.propagate(graph, hidden)  # (N, d)
        seq_hidden = F.embedding(graph.click_node, hidden)  # (C, d)
        if self.positions:
            last = paddle.gather(graph.last_click, graph.click_session)  # (C,)
            from_end = (last - paddle.arange(len(last))).clip(max=self.positions - 1)  # (C,), 0 for the last click
            seq_hidden = seq_hidden + self.pos_emb(from_end)
        seq_hidden = unit(seq_hidden)
        ht = F.embedding(graph.last_click, seq_hidden)  # (B, d), the local preference s_l
        q1 = F.embedding(graph.click_session, self.linear_one(ht))  # (C, d)
        q2 = self.linear_two(seq_hidden)  # (C, d)
        alpha = self.linear_three(F.sigmoid(q1 + q2))  # (C, 1), without a softmax
        a = paddle.index_add(paddle.zeros_like(ht), graph.click_session, 0, alpha * seq_hidden)  # (B, d), s_g
        user_emb = self.linear_transform(paddle.concat([a, ht], axis=1))  # (B, d)
        return unit(user_emb) * self.cosine_scale if self.cosine_scale else user_emb

    def calculate_loss(self, user_emb: paddle.Tensor, pos_item: paddle.Tensor) -> paddle.Tensor:
        """Mean cross-entropy of the next items (B,) over all candidates, a scalar."""
        first_candidate = int(not self.score_item_zero)
        return self.loss_fun(user_emb, self.output_items(), pos_item, first_candidate, self.label_smoothing)

    def output_items(self) -> paddle.Tensor:
        """The item table (n_items, d); with `cosine_scale` of unit vectors."""
        return unit_rows(self.item_emb.weight) if self.cosine_scale else self.item_emb.weight

    def gather_indexes(self, output: paddle.Tensor, gather_index: paddle.Tensor) -> paddle.Tensor:
        """From output (B, L, d) the vector at position gather_index (B,) of each row: (B, d)."""
        index = gather_index.reshape([-1, 1, 1]).expand([-1, 1, output.shape[-1]])  # (B, 1, d)
        return paddle.take_along_axis(output, index, 1).squeeze(1)

    def _get_slice(self, item_seq) -> tuple[paddle.Tensor, paddle.Tensor, paddle.Tensor, paddle.Tensor]:
        """The padded graphs of item_seq (B, L), in the reference's order.

        Returns:
            alias_inputs (B, L) int64, A (B, L, 2L) float32, items (B, L) int64, mask (B, L) int32.
        """
        return tuple(map(paddle.to_tensor, padded_graph(_as_numpy(item_seq))))


def _as_numpy(values) -> np.ndarray:
    return values.numpy() if isinstance(values, paddle.Tensor) else np.asarray(values)
