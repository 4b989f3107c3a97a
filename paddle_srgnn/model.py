"""The GNN and SRGNN layers, under the reference's names.

Sources: Wu et al., "Session-based Recommendation with Graph Neural Networks", AAAI 2019 (arXiv:1811.00855), and the
Datawhale reference implementation, whose names, signatures, state-dict keys and return values are kept.

By default the layers compute what the reference computes, quirks included: Paddle's own initialisation (its
`reset_parameters` builds initialisers and never applies them), item 0 among the classes of the softmax, repeated edges
counted once, the `mask` argument ignored. These are the differences from the reference:

- They run on Paddle 3, where the reference's product of an int32 mask and a float32 tensor raises. Packed sessions have
  no padding, so there is no mask to multiply by.
- Sessions are packed end to end and edges are index lists, for speed and memory. The reference has padded batches and
  [B, L, 2L] matrices; `_get_slice`, `GNN.forward` and `GNNCell` still take padded tensors.
- `_get_slice` is vectorised, for speed, and equal to the last integer. The reference loops over rows in Python.
- `forward` refuses a row of padding only, a 0 before a click, and ids outside [0, n_items): a wrong vector is worse
  than an error. The reference reads a wrong last click there, or crashes in the kernel.
- `reset_parameters(initializer)` applies what it is given, which the reference ignores. The default changes nothing.
- `mask` and `item` may be left out: the first is never read, the second only with `train=True`.
- The loss is one operation with a gradient of its own instead of `CrossEntropyLoss`, for speed: it keeps one buffer of
  scores and does not copy the item table. Its `backward` runs once, as Paddle 3.3 crashes when such an operation goes
  back twice.
- Switches that are off by default: `initialization="uniform"` and `score_item_zero=False` are the authors' settings,
  for the paper's figures; `cosine_scale`, `dropout` and `positions`, and `label_smoothing` in training, are those of
  recipe `strong`.

The authors' PyTorch code differs from the reference in three more ways: the sense of the update gate (`z` and `1-z`
exchanged, equivalent up to the sign of its weights), uniform initialisation, and no score for item 0.
"""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from functools import partial

import numpy as np

from .config import ModelConfig
from .errors import InputError
from .files import read_safetensors
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
        d = self.embedding_size  # the columns of the reset and the input gate come first, the new state's follow
        w_ih, w_in = self.w_ih.split([2 * d, d], axis=1)
        w_hh, w_hn = self.w_hh.split([2 * d, d], axis=1)
        b_ih, b_in = self.b_ih.split([2 * d, d])
        b_hh, b_hn = self.b_hh.split([2 * d, d])
        gates = paddle.matmul(inputs, w_ih) + paddle.matmul(hidden, w_hh) + (b_ih + b_hh)
        reset_gate, input_gate = F.sigmoid(gates).chunk(2, -1)  # (..., d) each
        i_n = paddle.matmul(inputs, w_in) + b_in  # (..., d)
        h_n = paddle.matmul(hidden, w_hn) + b_hn  # (..., d)
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
        config: a `ModelConfig`, or a mapping with the reference's keys `embedding_dim` (d), `step` and `n_items`
            (padding item 0 included), and any of `ModelConfig`'s switches; other keys are ignored, as there.

    Raises:
        ValueError: a key is missing, or a value has the wrong type or range.
    """

    def __init__(self, config: ModelConfig | Mapping):
        super().__init__()
        self.config = config = ModelConfig.of(config)
        self.embedding_size = config.embedding_dim
        self.step = config.step
        self.n_items = config.n_items
        self.initialization = config.initialization
        self.score_item_zero = config.score_item_zero
        self.cosine_scale = config.cosine_scale
        self.dropout = config.dropout
        self.positions = config.positions

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

    @classmethod
    def from_file(cls, config: ModelConfig | Mapping, path: str | os.PathLike) -> SRGNN:
        """The model with the weights of a .safetensors file, in evaluation mode.

        Raises:
            InputError: the file is damaged, or its names and shapes are not the model's.
        """
        model = cls(config)
        model.load_weights(path)
        model.eval()
        return model

    def load_weights(self, path: str | os.PathLike) -> None:
        """Take the weights of a .safetensors file. Raises as `from_file`."""
        arrays, expected = read_safetensors(path), self.state_dict()
        found = {key: list(array.shape) for key, array in arrays.items()}
        wanted = {key: list(tensor.shape) for key, tensor in expected.items()}
        if found != wanted:
            keys = sorted(key for key in found.keys() | wanted.keys() if found.get(key) != wanted.get(key))
            differences = "; ".join(f"{key}: found {found.get(key)}, expected {wanted.get(key)}" for key in keys)
            raise InputError(f"{path}: does not fit its settings: {differences}")
        self.set_state_dict(arrays)

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
        output = {"user_emb": self._encode_clicks(*unpad(_as_numpy(item_seq), self.n_items))}
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

    def encode_sessions(self, sessions: Sequence[np.ndarray], max_session_length: int | None = None) -> paddle.Tensor:
        """The session vectors (B, d) of sessions as they are: item numbers, oldest first.

        Args:
            sessions: B integer arrays (clicks,) in [1, n_items), each of one click or more.
            max_session_length: how many of the most recent clicks are read; None for all.
        """
        recent = [session if max_session_length is None else session[-max_session_length:] for session in sessions]
        return self._encode_clicks(np.concatenate(recent), np.array([len(session) for session in recent]))

    def _encode_clicks(self, clicks: np.ndarray, lengths: np.ndarray) -> paddle.Tensor:
        return self.encode(PackedGraph(*map(paddle.to_tensor, packed_graph(clicks, lengths))))

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

    def calculate_loss(
        self, user_emb: paddle.Tensor, pos_item: paddle.Tensor, label_smoothing: float = 0.0
    ) -> paddle.Tensor:
        """Mean cross-entropy of the next items (B,) over all candidates, a scalar; see `kernels.full_softmax`."""
        first_candidate = int(not self.score_item_zero)
        return self.loss_fun(user_emb, self.output_items(), pos_item, first_candidate, label_smoothing)

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
